"""Nearest neighbours of a query among vectors: higher score is nearer."""
