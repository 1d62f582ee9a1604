"""The user's code: what belongs to it, the snapshot that is kept of it, and whether a job can import it."""
