"""What is known of one run: its attempts, its files, the job that it was submitted as, and its state."""
