"""Who trains what, now: the queue of runs, the workers that share it, and their progress."""
