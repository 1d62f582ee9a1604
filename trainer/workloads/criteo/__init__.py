"""Criteo's click logs: their text, the hashes of categories, shards of rows, splits, and the order."""
