"""Builders of benchmarks, and results. What scores a model is in `plume_embed.evaluation`."""
