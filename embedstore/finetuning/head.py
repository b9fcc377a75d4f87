"""The classifier of a tuned network over vectors of its space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class LinearHead:
    """Softmax of ``X W' + b``.

    Args:
        weight: ``(K, D)``. bias: ``(K,)``. classes: K names in their order.
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32], classes: Sequence[str]) -> None:
        self.weight, self.bias = weight, bias
        self.classes_ = np.array(classes, dtype=object)

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities ``(N, K)`` of features as they are stored, ``(N, D)``."""
        logits = X @ self.weight.T + self.bias
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(shares / shares.sum(1, keepdims=True), dtype=np.float32)
