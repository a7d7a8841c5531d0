"""plume-small, the model that knows real pictures and free text, made from what packages bring along."""
