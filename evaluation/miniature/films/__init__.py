"""Tasks and training pairs over moving clips and the films made of them."""
