"""Tasks and training pairs over composed scenes."""
