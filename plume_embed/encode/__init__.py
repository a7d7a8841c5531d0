"""Items to vectors: the encoder behind the command line, batches of like cost, explicit rationales."""
