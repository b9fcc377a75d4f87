"""A feature-extraction embedding store with lightweight classifiers."""

__version__ = "0.1.0"
