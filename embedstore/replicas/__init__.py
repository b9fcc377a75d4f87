"""Copies of a space in vector databases: derived from the store, never the truth."""
