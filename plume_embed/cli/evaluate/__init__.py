"""`plume-embed evaluate BENCHMARK`: one file a benchmark, and the models that they score."""
