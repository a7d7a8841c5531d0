"""Training of PLUME, from explicit to latent reasoning (paper, section 3).

curriculum.py   segments, suffixes, stages, learning rate: functions of the text and the step
objective.py    one side of a batch through prefix, latent steps and suffix
loss/           the losses, a batch's loss out of them, and large batches in chunks with equal gradients
data/           the JSONL corpus, the miniature's folder, changes at random, a corpus as a task for the trainer; hard
                negatives (mine.py), rationales by another model (rationalize.py)
trainer.py      transformers' Trainer with all that; checkpoints.py: safetensors, whole or not at all
gates.py        warnings, early in a run, that it is not going to work
efficiency/     recomputed layers, grouped vision attention, sharding, LoRA
recipe.py       YAML files as typed settings; recipes/; dry_run.py; run.py: from a recipe to results.json
report.py       a run as plots; diagnostics.py: their numbers
small_model.py  a fresh small model with its own tokenizer
"""
