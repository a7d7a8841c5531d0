"""Commands around the Space."""
