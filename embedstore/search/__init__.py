"""Filtered vector search over one space."""
