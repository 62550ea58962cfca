"""Trains and evaluates runs with the Model Garden, in a process of its own that loads TensorFlow."""
