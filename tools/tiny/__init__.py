"""How the bundled model is made: scenes, merges, training, measuring. `python -m tools.tiny --help` says the steps."""
