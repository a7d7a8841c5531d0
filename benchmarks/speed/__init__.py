"""Scripts behind docs/results/speed.md: training, steps that ride along, types of weights."""
