"""Pairs to train on: the JSONL corpus, the miniature's folder, changes at random, batches of a step."""
