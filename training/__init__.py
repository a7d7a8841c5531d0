"""Experiments that reproduce the paper's curriculum and its ablations; README.md says which command gives which result.

What they share with users, the trainer, the losses and the curriculum, is in `plume_embed.training`.
"""
