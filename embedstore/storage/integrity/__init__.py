"""Verify, repair and back up a store."""
