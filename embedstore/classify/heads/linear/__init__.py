"""The logistic-regression probe and its optimizers."""
