"""One run: its attempts, its files, its submitted job, and its state."""
