"""MMEB-v2: 78 tasks over images, videos and visual documents, scored as upstream scores them."""
