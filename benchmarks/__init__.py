"""What is measured now and then: the GPU suite, the memory of training; results of all benchmarks."""
