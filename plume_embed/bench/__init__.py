"""Speed on this machine, always side by side in one run."""
