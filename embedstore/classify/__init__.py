"""Heads on cached features, and their evaluation."""
