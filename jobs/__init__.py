"""From a specification to runs that run: expansion, submission, workers, and how they are doing."""
