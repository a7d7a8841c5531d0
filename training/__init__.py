"""Training of PLUME: from explicit to latent reasoning.

curriculum.py     segments, suffixes, stages, learning rate: functions of the text and the step
objective.py      one side of a batch through prefix, latent steps and suffix
batch_loss.py     the loss of a batch from its sides; losses.py: its terms
grad_cache.py     a large batch in the memory of a small one, with equal gradients
rationale.py      explicit chain of thought, decoded greedily
data.py           the JSONL corpus, subset-balanced batches; corpus_task.py: it as a task for the trainer
hops.py           the state-tracking task; hops_task.py: it as a task for the trainer
trainer.py        transformers' Trainer with all that; checkpoints.py: safetensors, whole or not at all; lora.py
recipe.py         recipes/*.yaml as typed settings; dry_run.py; run.py: from a recipe to results.json; cli.py
tiny_model.py     a fresh small model; stills.py: the loop that trained the first edition of plume-tiny
"""
