"""The losses of the paper, a batch's loss out of them, and large batches in chunks."""
