"""Records to numbers: estimates with intervals, differences with tests, credits of toggles. Draws nothing."""
