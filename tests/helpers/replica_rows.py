"""Rows of a store that is copied into a vector database: absent values, equal ones, and numbers that are none."""

import math

import numpy as np


def vectors(n, dim=8, seed=0):
    """Random rows: float32 ``(n, dim)``."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def columns(n):
    """Columns with NULLs, equal values and text with quotes."""
    rng = np.random.default_rng(1)
    return {
        "label": [TEXTS[v] for v in rng.integers(0, len(TEXTS), n)],
        "year": [None if v == 0 else 2000 + int(v) for v in rng.integers(0, 9, n)],
        "ok": [None if v == 0 else bool(v == 1) for v in rng.integers(0, 3, n)],
        "score": [None if v < 0.1 else NUMBERS_LIKE_NONE.get(int(v * 100), float(v)) for v in rng.random(n)],
    }


TEXTS = [None, "it's 1", "it's 2", "it's 3", "Ä", "z%", "a\x00b", "ab"]
NUMBERS_LIKE_NONE = {20: math.nan, 21: math.inf, 22: -math.inf, 50: 0.5}
