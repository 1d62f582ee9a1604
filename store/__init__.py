"""Journals, which are the truth, and the database that is an index of them."""
