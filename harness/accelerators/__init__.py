"""Whether a run would compile for an accelerator and fit it, and what it would cost; found out without one."""
