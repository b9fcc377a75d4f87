"""Evaluations of heads that predict numbers or levels."""
