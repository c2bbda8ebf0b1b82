"""Facts of the real world, as language models know them: what EditFleet is tried on with a model from elsewhere."""
