"""Journals, which hold the data, and the SQLite database that indexes them."""
