"""A folder and its index: what can be embedded, the LanceDB table, updates, search, and JSONL files."""
