"""One module per group of verbs, as functions over a session."""
