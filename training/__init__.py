"""Training of PLUME. So far: the first edition of plume-tiny, `python -m training.stills`."""
