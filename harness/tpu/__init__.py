"""What a run would need of a TPU, found out without one: its programs, compiled, measured and priced."""
