"""A corpus of any size -> vectors in Parquet or LanceDB, in shards that any engine can make.

source (JSONL, Parquet, a folder, a data set) -> plan: slices of it -> shards: a file a slice -> the output, whole.
"""
