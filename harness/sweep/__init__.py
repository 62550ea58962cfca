"""Searches scales and toggle values with Optuna."""
