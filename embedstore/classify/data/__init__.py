"""Features, labels and splits."""
