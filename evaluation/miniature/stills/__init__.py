"""Tasks and training pairs over single pictures."""
