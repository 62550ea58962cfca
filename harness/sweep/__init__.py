"""The search of scales with Optuna."""
