"""Embedding: a source is scanned and planned, and its files are read, decoded, embedded and committed."""
