"""Training and evaluation of the bundled model. `python -m tools.tiny --help` lists the steps."""
