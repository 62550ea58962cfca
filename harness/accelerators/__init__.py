"""Predicts, without an accelerator, whether a run would compile for one and fit it, and what it would cost."""
