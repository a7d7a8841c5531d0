"""Evaluation of PLUME embedders: MMEB-v2, the miniature benchmark and the metrics."""
