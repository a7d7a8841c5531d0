"""Where the miniature's contents come from: packages, concepts, words, rationales, rendering."""
