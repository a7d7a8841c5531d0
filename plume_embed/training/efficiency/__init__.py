"""Less memory and less time: recomputed layers, grouped vision attention, sharding, LoRA."""
