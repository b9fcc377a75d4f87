"""Data sets of Hugging Face: folders that ``datasets.save_to_disk`` wrote, and names on the hub."""
