"""Which runs studies want, which of them are missing, and what these cost."""
