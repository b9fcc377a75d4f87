"""Evaluation protocols of the field by their names: who picks C or k, over which values, and what is refitted."""
