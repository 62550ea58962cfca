"""Data sets of videos: their manifests, how they are prepared or generated, and how clips are read from them."""
