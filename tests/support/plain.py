"""Configurations compared by what they say alone."""


def leaves(value):
    """Tuples as lists, so that only what is said counts."""
    if isinstance(value, dict):
        return {key: leaves(item) for key, item in value.items()}
    return [leaves(item) for item in value] if isinstance(value, list | tuple) else value
