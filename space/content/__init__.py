"""What can be searched: the bundled collection, uploads, sessions."""
