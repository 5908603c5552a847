"""The model: reading data, training, evaluating, and the shipped weights."""
