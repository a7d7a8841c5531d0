"""Fine-tuning on pairs of one's own, tried: plume-tiny learns to find the picture that a sketch shows."""
