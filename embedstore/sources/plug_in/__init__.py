"""Sources that installed packages add by the entry point ``embedstore.sources``."""
