"""How well vectors find what belongs together: recall, average precision, gain and rank, over labels or captions."""
