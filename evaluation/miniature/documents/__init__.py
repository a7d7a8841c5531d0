"""Tasks and training pairs over manuals."""
