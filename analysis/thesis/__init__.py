"""Compare an experiment with the values that the thesis prints."""
