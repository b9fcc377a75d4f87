"""One hidden layer with dropout and early stopping, as is common in transfer learning on frozen features."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray
from embedstore.classify.data.folds import stratified_group_holdout
from embedstore.classify.heads.base import LogitClassifier, check_classes
from embedstore.classify.heads.class_weights import ClassWeight, class_weights
from embedstore.classify.heads.mlp_training import MLPTraining, WeightedBatch
from embedstore.classify.heads.numerics import block_rows, blocks
from embedstore.classify.heads.options import (
    check_not_negative,
    check_positive,
    check_random_state,
    check_share,
    check_whole,
)
from embedstore.classify.heads.sample_weights import drop_unweighted

_MAX_HIDDEN = 16_384  # units: 250 MB of weights and of their moments at 1,280 features
_MAX_EPOCHS = 10_000
_BLOCK = 8192  # rows of a block of predictions, fewer where memory is short


class MLPHead(LogitClassifier):
    """Standardize, one ReLU layer, dropout (Srivastava et al. 2014); AdamW; the best epoch is kept.

    Training uses torch; prediction is NumPy, so a loaded head needs no torch. The same seed on the same machine gives
    the same head.

    Args:
        hidden: number of hidden units.
        dropout: share of hidden units dropped in training.
        learning_rate: the learning rate of AdamW.
        weight_decay: the weight decay of AdamW.
        batch_size: the batch size of AdamW.
        max_epochs: most epochs.
        patience: epochs without a lower held-out loss before training stops.
        validation_fraction: share of the rows, stratified by class, that decide when to stop. If a class has one row
            or group, or there are too few rows, the training loss decides.
        random_state: random seed of the split, the first weights, dropout and the order of rows.
        device: ``auto`` (CUDA if there is a GPU and enough to do, and its memory suffices), ``cpu`` or a torch device.
        class_weight: ``balanced``, or weights by class, as in scikit-learn; None weighs all rows alike. The weights are
            in the loss that is trained on and in the one that decides when to stop.

    Attributes:
        classes_: labels ``(K,)``.
        mean_: float32 ``(D,)``, mean of the features.
        scale_: float32 ``(D,)``, standard deviation of the features.
        coefs_: weights ``(D, H)`` and ``(H, K)``; of a protocol of sound one to three layers.
        intercepts_: biases ``(H,)`` and ``(K,)``, likewise.
        n_iter_: epochs done.
        loss_curve_: the loss that decides, by epoch.
    """

    def __init__(  # noqa: PLR0913 - one argument per hyperparameter, as scikit-learn requires
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
        class_weight: ClassWeight = None,
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
        self.class_weight = class_weight

    def fit(self, X: Array, y: Array, groups: Array | None = None, sample_weight: Array | None = None) -> MLPHead:
        """Train until the held-out loss has stopped falling.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``.
            groups: ``(N,)``; rows of one group are all trained on or all held out.
            sample_weight: ``(N,)``, at least 0, in the loss that is trained on and in the one that decides when to
                stop. A row of weight 0 is left out; 2 counts as two rows, up to the order of the rows in an epoch.

        Raises:
            BadHead: if an option is outside its range; if ``class_weight`` is not ``balanced`` or a positive number for
                each class that it names; if a sample weight is negative or not finite; if the rows do not fit into the
                memory of the named device.
            ValueError: if there is a single class.
        """
        self._check_options()
        X, y = validate_data(self, X, y)
        check_classes(y)
        sample_weight, X, y, groups = drop_unweighted(sample_weight, X, y, groups)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"labels hold one class, {str(self.classes_[0])!r}; a classifier needs at least two")
        weights = class_weights(self.class_weight, codes, self.classes_, sample_weight)
        n_held_out = int(np.ceil(self.validation_fraction * len(codes)))
        every = np.arange(len(codes))
        parts = stratified_group_holdout(codes, groups, n_held_out, seed=self.random_state)
        train, held_out = parts or (every, every)
        self.mean_ = X[train].mean(axis=0, dtype=np.float64).astype(np.float32)
        std = X[train].std(axis=0, dtype=np.float64).astype(np.float32)
        self.scale_ = np.where(std > 1e-12, std, 1).astype(np.float32)
        X = self._standardize(X)
        weights = np.ones(len(codes)) if weights is None else weights
        training_rows, stopping_rows = [
            WeightedBatch(X[rows], codes[rows], weights[rows]) for rows in (train, held_out)
        ]
        trained = self._training().run(training_rows, stopping_rows, len(self.classes_))
        self.coefs_, self.intercepts_ = trained.layers[::2], trained.layers[1::2]
        self.loss_curve_, self.n_iter_ = trained.losses, len(trained.losses)
        return self

    def _check_options(self) -> None:
        for name in ("batch_size", "patience"):
            check_whole(name, getattr(self, name))
        check_whole("hidden", self.hidden, most=_MAX_HIDDEN)
        check_whole("max_epochs", self.max_epochs, most=_MAX_EPOCHS)
        for name in ("dropout", "validation_fraction"):
            check_share(name, getattr(self, name))
        check_random_state(self.random_state)
        check_positive("learning_rate", self.learning_rate)
        check_not_negative("weight_decay", self.weight_decay)

    def _training(self) -> MLPTraining:
        return MLPTraining(
            hidden=self.hidden,
            dropout=self.dropout,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            max_epochs=self.max_epochs,
            patience=self.patience,
            seed=self.random_state,
            device=self.device,
        )

    def _logits(self, X: Array) -> FloatArray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        size = block_rows(_BLOCK, 4 * (X.shape[1] + 2 * sum(weight.shape[1] for weight in self.coefs_)))
        return np.concatenate([self._forward(self._standardize(X[s])) for s in blocks(len(X), size)])

    def _forward(self, X: FloatArray) -> FloatArray:
        for weight, bias in zip(self.coefs_[:-1], self.intercepts_[:-1], strict=True):
            X = np.maximum(X @ weight + bias, 0)
        return np.asarray(X @ self.coefs_[-1] + self.intercepts_[-1])

    def _standardize(self, X: Array) -> FloatArray:
        return np.asarray((X - self.mean_) / self.scale_, dtype=np.float32)
