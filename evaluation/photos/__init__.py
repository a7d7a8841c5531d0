"""Builder of the benchmark of photographs: evaluation only, nothing of it is ever trained on."""
