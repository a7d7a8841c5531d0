"""The benchmark of photographs: text -> photograph and back, on real pictures that nothing was trained on."""
