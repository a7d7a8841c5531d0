"""Training of PLUME: from explicit to latent reasoning.

curriculum.py     segments, suffixes, stages, learning rate: functions of the text and the step
objective.py      one side of a batch through prefix, latent steps and suffix
batch_loss.py     the loss of a batch from its sides; losses.py: its terms
grad_cache.py     a large batch in the memory of a small one, with equal gradients
data.py           the JSONL corpus, subset-balanced batches; folder_corpus.py: the miniature's folder; augment.py: its
                  pictures changed at random; corpus_task.py: a corpus as a task for the trainer
hops.py           the state-tracking task; mixed.py: four families of such tasks; hops_task.py: both for the trainer,
                  sign_tables.py: their batches by index instead of by decoding
trainer.py        transformers' Trainer with all that; checkpoints.py: safetensors, whole or not at all; lora.py
gates.py          warnings, early in a run, that it is not going to work
layer_checkpoint.py  layers recomputed in the backward pass, with the cache
vision_attention.py  one attention call for all pictures of a size
ablations.py      the paper's tables 3 to 6 with paired seeds; ablation_rows.py, ablation_results.py,
                  ablation_archive.py, and fork.py: rows that share stage 0; paradigms.py: plume-tiny four times
report.py         a run as pictures; diagnostics.py: their numbers; collect.py: runs in one file; memory.py: peak memory
recipe.py         recipes/*.yaml as typed settings; dry_run.py; run.py: from a recipe to results.json; cli.py
tiny_model.py     a fresh small model; tiny_backbone.py: one that `plume-embed init` takes
stills.py         checkpoints/plume-tiny-stills, from which plume-tiny is trained; tiny_base.py: other limits for its
                  pictures and frames; ship.py: what the runs made as checkpoints/plume-tiny
"""
