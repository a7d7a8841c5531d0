"""Speed, side by side in one run: `plume-embed bench` on any machine, `python -m benchmarks.gpu_suite` on a GPU."""
