"""Embedding in parts: one process plans, many embed a part each, and one registers their results."""
