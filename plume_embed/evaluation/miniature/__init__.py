"""The miniature benchmark: its files, its media, and scores on it. Its builder is no part of the package."""
