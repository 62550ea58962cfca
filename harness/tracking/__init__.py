"""Mirrors of runs: W&B."""
