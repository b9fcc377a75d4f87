"""The folder on disk: catalog, vector files, lock, and what makes a commit survive."""
