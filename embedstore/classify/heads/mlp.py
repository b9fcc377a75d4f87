"""One hidden layer with dropout and early stopping: what transfer-learning texts put on frozen features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.heads.base import LogitClassifier
from embedstore.classify.heads.numerics import blocks
from embedstore.classify.heads.optimizer import AdamW

_BLOCK = 8192


class MLPHead(LogitClassifier):
    """Standardise, one ReLU layer, dropout (Srivastava et al. 2014); AdamW; the best epoch is kept.

    Training uses torch; prediction is numpy, so a loaded head needs no torch. The same seed on the same machine
    gives the same head.

    Args:
        hidden: units. dropout: share of them dropped while training.
        learning_rate, weight_decay, batch_size: of AdamW.
        max_epochs: at most. patience: epochs without a better held-out loss before it stops.
        validation_fraction: of the rows, held out by class, that decide when to stop; with a class of one row or
            too few rows the training loss decides.
        random_state: seed of the split, the first weights, dropout and the order of rows.
        device: ``auto`` (CUDA where there is one), ``cpu`` or any torch device.

    Attributes:
        classes_: labels ``(K,)``. mean_, scale_: float32 ``(D,)``. coefs_: weights ``(D, H)`` and ``(H, K)``.
        intercepts_: ``(H,)`` and ``(K,)``. n_iter_: epochs done. loss_curve_: the loss that decides, by epoch.
    """

    def __init__(  # noqa: PLR0913 - one argument a hyper-parameter, as scikit-learn asks
        self,
        *,
        hidden: int = 512,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 256,
        max_epochs: int = 200,
        patience: int = 10,
        validation_fraction: float = 0.1,
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device

    def fit(self, X: Array, y: Array) -> MLPHead:
        """Train until the held-out loss has stopped falling.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``.

        Raises:
            ValueError: a single class.
        """
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"labels hold one class, {str(self.classes_[0])!r}; a classifier needs at least two")
        train, held = self._split(codes)
        self.mean_ = X[train].mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = X[train].std(axis=0, dtype=np.float64).astype(np.float32)
        self.scale_ = np.where(spread > 1e-12, spread, 1).astype(np.float32)
        self._train(self._standard(X), codes, train, held)
        return self

    def _logits(self, X: Array) -> FloatArray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return np.concatenate([self._forward(self._standard(X[s])) for s in blocks(len(X), _BLOCK)])

    def _forward(self, X: FloatArray) -> FloatArray:
        hidden = np.maximum(X @ self.coefs_[0] + self.intercepts_[0], 0)
        return np.asarray(hidden @ self.coefs_[1] + self.intercepts_[1])

    def _standard(self, X: Array) -> FloatArray:
        return np.asarray((X - self.mean_) / self.scale_, dtype=np.float32)

    def _split(self, codes: IntArray) -> tuple[IntArray, IntArray]:
        """Rows to train on and rows that decide when to stop; the same rows where a split is impossible."""
        rows, counts = np.arange(len(codes)), np.bincount(codes)
        held = int(np.ceil(self.validation_fraction * len(codes)))
        if counts.min() < 2 or held < len(counts) or len(codes) - held < len(counts):
            return rows, rows
        splitter = StratifiedShuffleSplit(1, test_size=held, random_state=self.random_state)
        train, test = next(splitter.split(rows, codes))
        return train, test

    def _train(self, X: FloatArray, codes: IntArray, train: IntArray, held: IntArray) -> None:
        import torch

        device = torch.device(self._device(torch))
        draw = torch.Generator(device).manual_seed(self.random_state)
        rows = torch.Generator().manual_seed(self.random_state)
        layers = self._first_layers(torch, X.shape[1], rows, device)
        data = [torch.as_tensor(a).to(device) for a in (X[train], codes[train], X[held], codes[held])]
        kept = self._epochs(torch, layers, data, (rows, draw))
        first, first_bias, second, second_bias = (p.detach().cpu().numpy() for p in kept)
        self.coefs_, self.intercepts_ = [first, second], [first_bias, second_bias]

    def _epochs(self, torch: Any, layers: list[Any], data: list[Any], draws: tuple[Any, Any]) -> list[Any]:
        """The layers of the epoch with the lowest held-out loss."""
        X, y, X_held, y_held = data
        loss_of = torch.nn.functional.cross_entropy
        optimiser = AdamW([p.data for p in layers], self.learning_rate, self.weight_decay)
        kept, self.loss_curve_ = layers, []
        for _ in range(self.max_epochs):
            for rows in torch.randperm(len(X), generator=draws[0]).to(X.device).split(self.batch_size):
                loss = loss_of(self._noisy(torch, layers, X[rows], draws[1]), y[rows])
                optimiser.step(torch.autograd.grad(loss, layers))
            with torch.inference_mode():
                hidden = torch.relu(X_held @ layers[0] + layers[1])
                self.loss_curve_.append(float(loss_of(hidden @ layers[2] + layers[3], y_held)))
            since = len(self.loss_curve_) - 1 - int(np.argmin(self.loss_curve_))
            kept = [p.detach().clone() for p in layers] if since == 0 else kept
            if since >= self.patience:
                break
        self.n_iter_ = len(self.loss_curve_)
        return kept

    def _noisy(self, torch: Any, layers: list[Any], X: Any, draw: Any) -> Any:
        """Logits with dropout: what is kept is scaled up, so that prediction needs no change."""
        hidden = torch.relu(X @ layers[0] + layers[1])
        keep = torch.rand(hidden.shape, generator=draw, device=hidden.device) >= self.dropout
        return (hidden * keep / max(1 - self.dropout, 1e-6)) @ layers[2] + layers[3]

    def _first_layers(self, torch: Any, dim: int, draw: Any, device: Any) -> list[Any]:
        """Weights and biases drawn uniformly within 1 / sqrt(inputs), as torch's own layers start."""
        layers = []
        for inputs, outputs in ((dim, self.hidden), (self.hidden, len(self.classes_))):
            for shape in ((inputs, outputs), (outputs,)):
                drawn = (torch.rand(shape, generator=draw) * 2 - 1) / inputs**0.5
                layers.append(drawn.to(device).requires_grad_())
        return layers

    def _device(self, torch: Any) -> str:
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"
