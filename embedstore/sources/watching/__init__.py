"""Notice that a source changes: events of the file system, or listing it again and again."""
