"""One file -> the items in it: pictures, films and their clips, pages, passages. Decoders run in a bounded process."""
