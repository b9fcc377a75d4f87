"""Source -> decode -> backbone -> store: what is missing is decided first, then done."""
