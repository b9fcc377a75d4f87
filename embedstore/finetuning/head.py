"""The softmax head of a fine-tuned network, applied to stored vectors of its space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class LinearHead:
    """Softmax of ``X W' + b``.

    Args:
        weight: float32 ``(K, D)``.
        bias: float32 ``(K,)``.
        classes: K names in the order of the rows.
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32], classes: Sequence[str]) -> None:
        self.weight, self.bias = weight, bias
        self.classes_ = np.array(classes, dtype=object)

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities ``(N, K)`` of stored features ``(N, D)``."""
        logits = X @ self.weight.T + self.bias
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(1, keepdims=True), dtype=np.float32)
