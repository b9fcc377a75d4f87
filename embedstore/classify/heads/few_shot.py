"""A few labeled images besides the class names: Tip-Adapter, and a blend of visual prototypes with text weights.

Hyperparameters are tuned on validation rows, or on a part of the shots held out for it; never on rows of the test.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.data.folds import stratified_group_holdout
from embedstore.classify.data.labels import encode_labels
from embedstore.classify.heads.base import LogitClassifier, unit_features
from embedstore.classify.heads.numerics import log_loss, softmax
from embedstore.classify.heads.optimizer import AdamW
from embedstore.classify.heads.options import (
    check_not_empty,
    check_not_negative,
    check_positive,
    check_positives,
    check_random_state,
    check_whole,
)
from embedstore.classify.heads.prototype import class_means
from embedstore.classify.heads.zero_shot import check_class_vectors
from embedstore.errors import LabelError

_MAX_EPOCHS = 10_000
_EPSILON = 1e-4  # of AdamW, as the authors of Tip-Adapter-F train the keys

Rows = tuple[FloatArray, IntArray]
"""Unit features ``(N, D)`` and the columns of their classes ``(N,)``."""
ValidationScore = tuple[float, float]
"""(accuracy, minus log-loss): compared in this order."""


class _FewShot(LogitClassifier):
    """Text vectors, shots, and the choice of the rows that tune the hyperparameters."""

    class_vectors: Array
    classes: Sequence[Any] | Array
    logit_scale: float
    random_state: int

    def fit(
        self,
        X: Array,
        y: Array,
        X_val: Array | None = None,
        y_val: Array | None = None,
        *,
        groups: Array | None = None,
    ) -> _FewShot:
        """Learn from the shots; tune on validation rows.

        Without validation rows a quarter of each class's shots is held out for tuning, and the head is then fitted on
        all shots; with a class of one shot the published defaults are used.

        Args:
            X: features of the shots ``(N, D)``; without rows the head is zero-shot.
            y: labels of the shots ``(N,)``.
            X_val: features of rows that only choose hyperparameters.
            y_val: labels of those rows.
            groups: ``(N,)``; shots of one group are all tuned on or all learned from.

        Raises:
            LabelError: if a label is not among the classes, or validation features come without labels.
            DimensionMismatch: if the features have another dimension than the class vectors.
            BadHead: if the scale is not above 0, or another option is outside its range.
        """
        check_positive("logit_scale", self.logit_scale)
        self._check_options()
        self.classes_ = np.asarray(self.classes)
        self.text_ = check_class_vectors(self.class_vectors, self.classes)
        self.n_features_in_ = self.text_.shape[1]
        shots = self._encode(X, y)
        if (X_val is None) != (y_val is None):
            raise LabelError("validation needs features and labels, both or neither")
        n_shots = len(shots[1])
        if n_shots == 0:
            self.tuning_rows_ = "no shots"
            self._use_text_only()
        elif X_val is not None and y_val is not None and len(X_val):
            self.tuning_rows_ = "validation rows"
            self._learn(shots, self._tune(shots, self._encode(X_val, y_val)))
        elif (parts := self._hold_out(shots[1], groups)) is not None:
            self.tuning_rows_ = "held-out shots"
            rest, held_out = [(shots[0][rows], shots[1][rows]) for rows in parts]
            self._learn(shots, self._tune(rest, held_out))
        else:
            self.tuning_rows_ = "published defaults"
            self._learn(shots, None)
        return self

    def _hold_out(self, y: IntArray, groups: Array | None) -> tuple[IntArray, IntArray] | None:
        """Return the shots that are learned from and those that tune, or None if there are too few."""
        return stratified_group_holdout(y, groups, self._tuning_size(y), seed=self.random_state)

    def _encode(self, X: Array, y: Array) -> Rows:
        if len(X) == 0:
            return np.zeros((0, self.n_features_in_), np.float32), np.zeros(0, np.int64)
        return unit_features(X, self.n_features_in_), encode_labels(y, self.classes_)

    @staticmethod
    def _tuning_size(y: IntArray) -> int:
        """Return a quarter of the rows, but at least one per class on either side."""
        n_classes = len(np.unique(y))
        return min(max(len(y) // 4, n_classes), len(y) - n_classes)

    def _text_logits(self, X: FloatArray) -> FloatArray:
        return np.asarray(np.float32(self.logit_scale) * (X @ self.text_.T))

    @abstractmethod
    def _check_options(self) -> None:
        """Refuse an option outside its range."""

    @abstractmethod
    def _use_text_only(self) -> None:
        """Set the learned attributes of a head without shots."""

    @abstractmethod
    def _tune(self, shots: Rows, validation: Rows) -> tuple[float, float]:
        """Return the hyperparameters that, learned from the shots, score best on the validation rows."""

    @abstractmethod
    def _learn(self, shots: Rows, hyperparameters: tuple[float, float] | None) -> None:
        """Learn from the shots with these hyperparameters; None means the published defaults."""


class TipAdapter(_FewShot):
    """``alpha * exp(-beta (1 - f.K)) Y`` added to the zero-shot logits (Zhang et al. 2022).

    K are the shots' features and Y their classes; a query is compared with every shot. ``fine_tune`` trains K from
    there (Tip-Adapter-F).

    Args:
        class_vectors: float ``(K, D)``, one text vector per class, unit length.
        classes: the K labels.
        logit_scale: the model's own, exponentiated.
        alphas: values tried on validation; 0 among them makes zero-shot one of the candidates. Without validation alpha
            is 1, the paper's first value.
        betas: values tried on validation. Without validation beta is 5.5, the paper's first value.
        fine_tune: train the keys with AdamW and a cosine learning rate, as the paper does.
        epochs: the number of epochs of the fine-tuning.
        learning_rate: the learning rate of the fine-tuning.
        batch_size: the batch size of the fine-tuning.
        random_state: random seed of the fine-tuning and of the shots held out without validation rows.

    Attributes:
        keys_: float32 ``(N, D)``.
        values_: int64 ``(N,)``, the column of each key.
        alpha_: the chosen alpha.
        beta_: the chosen beta.
        tuning_rows_: which rows chose them.
    """

    def __init__(  # noqa: PLR0913 - one argument per hyperparameter, as scikit-learn requires
        self,
        class_vectors: Array,
        classes: Sequence[Any] | Array,
        logit_scale: float = 100.0,
        *,
        alphas: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0),
        betas: Sequence[float] = (0.5, 1.0, 2.0, 3.5, 5.5, 8.0, 12.0),
        fine_tune: bool = False,
        epochs: int = 20,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        random_state: int = 0,
    ) -> None:
        self.class_vectors = class_vectors
        self.classes = classes
        self.logit_scale = logit_scale
        self.alphas = alphas
        self.betas = betas
        self.fine_tune = fine_tune
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.random_state = random_state

    def _check_options(self) -> None:
        check_not_empty("alphas", self.alphas)
        for alpha in self.alphas:
            check_not_negative("a value of alphas", alpha)
        check_positives("betas", self.betas)
        check_whole("batch_size", self.batch_size)
        check_random_state(self.random_state)
        check_whole("epochs", self.epochs, most=_MAX_EPOCHS)
        check_positive("learning_rate", self.learning_rate)

    def _use_text_only(self) -> None:
        self.keys_: FloatArray = np.zeros_like(self.text_[:0])
        self.values_: IntArray = np.zeros(0, np.int64)
        self.alpha_, self.beta_ = 0.0, 5.5

    def _learn(self, shots: Rows, hyperparameters: tuple[float, float] | None) -> None:
        self.alpha_, self.beta_ = hyperparameters or (1.0, 5.5)
        self.keys_, self.values_ = self._keys(shots), shots[1]

    def _keys(self, shots: Rows) -> FloatArray:
        return self._train_keys(*shots) if self.fine_tune else shots[0]

    def _tune(self, shots: Rows, validation: Rows) -> tuple[float, float]:
        """Return the (alpha, beta) of the best accuracy, then the lowest log-loss."""
        X, y = validation
        base = self._text_logits(X)
        cosine = X @ self._keys(shots).T
        votes = _one_hot(shots[1], len(self.classes_))
        candidates: list[tuple[ValidationScore, float, float]] = []
        for beta in self.betas:
            cache = np.exp(-beta * (1 - cosine)) @ votes
            candidates += [(_validation_score(base + alpha * cache, y), alpha, beta) for alpha in self.alphas]
        _, alpha, beta = max(candidates, key=lambda c: c[0])
        return float(alpha), float(beta)

    def _logits(self, X: Array) -> FloatArray:
        check_is_fitted(self)
        X = unit_features(X, self.n_features_in_)
        cache = np.exp(-self.beta_ * (1 - X @ self.keys_.T)) @ _one_hot(self.values_, len(self.classes_))
        return np.asarray(self._text_logits(X) + np.float32(self.alpha_) * cache, dtype=np.float32)

    def _train_keys(self, X: FloatArray, y: IntArray, alpha: float = 1.0, beta: float = 5.5) -> FloatArray:
        """Return keys after cross-entropy training on the shots themselves, float32 ``(N, D)``."""
        keys, base, votes = X.copy(), self._text_logits(X), _one_hot(y, len(self.classes_))
        optimizer = AdamW([keys], self.learning_rate, epsilon=_EPSILON)
        for rows, rate_scale in cosine_batches(len(y), self.batch_size, self.epochs, self.random_state):
            affinity = np.exp(-beta * (1 - X[rows] @ keys.T))
            residual = softmax(base[rows] + alpha * (affinity @ votes)) - votes[rows]
            grad = alpha * beta * (affinity * (residual @ votes.T)).T @ X[rows] / len(rows)
            optimizer.step([grad], rate_scale)
        return keys


class PromptBlend(_FewShot):
    """``logit_scale * f.(w_k + alpha_k t_k)``: a visual and a text weight per class (after LP++, Huang et al. 2024).

    Both w and alpha are trained with a penalty on their distance from where they start: w at the class means of the
    shots, alpha at one value for all classes. That value and the penalty are tuned on validation; "not trained at all"
    is one of the candidates. Unlike the paper's step sizes this is one convex problem, solved by L-BFGS.

    Args:
        class_vectors: float ``(K, D)``, one text vector per class, unit length.
        classes: the K labels.
        logit_scale: the model's own, exponentiated.
        alphas: first text weights tried. Without validation alpha is 1.
        penalties: strengths of the penalty tried. Without validation it is 1.
        random_state: random seed of the shots held out without validation rows.

    Attributes:
        weights_: float32 ``(K, D)``, the visual part.
        text_weights_: float32 ``(K,)``.
        alpha_: the chosen first text weight.
        penalty_: the chosen strength; infinite if training did not help.
        tuning_rows_: which rows chose them.
    """

    def __init__(
        self,
        class_vectors: Array,
        classes: Sequence[Any] | Array,
        logit_scale: float = 100.0,
        *,
        alphas: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
        penalties: Sequence[float] = (0.01, 0.1, 1.0, 10.0),
        random_state: int = 0,
    ) -> None:
        self.class_vectors = class_vectors
        self.classes = classes
        self.logit_scale = logit_scale
        self.alphas = alphas
        self.penalties = penalties
        self.random_state = random_state

    def _check_options(self) -> None:
        check_positives("alphas", self.alphas)
        check_random_state(self.random_state)
        check_positives("penalties", self.penalties)

    def _use_text_only(self) -> None:
        self.weights_ = np.zeros_like(self.text_)
        self.text_weights_ = np.ones(len(self.text_), np.float32)
        self.alpha_, self.penalty_ = 1.0, np.inf

    def _learn(self, shots: Rows, hyperparameters: tuple[float, float] | None) -> None:
        self.alpha_, self.penalty_ = hyperparameters or (1.0, 1.0)
        self.weights_, self.text_weights_ = self._train(shots, self.alpha_, self.penalty_)

    def _tune(self, shots: Rows, validation: Rows) -> tuple[float, float]:
        """Return first the text weight with untrained prototypes, then the penalty, that score best."""

        def candidate(alpha: float, penalty: float) -> tuple[ValidationScore, float, float]:
            logits = self._blend(validation[0], *self._train(shots, alpha, penalty))
            return _validation_score(logits, validation[1]), alpha, penalty

        untrained = max((candidate(alpha, np.inf) for alpha in self.alphas), key=lambda c: c[0])
        trained = [candidate(untrained[1], penalty) for penalty in self.penalties]
        _, alpha, penalty = max([untrained, *trained], key=lambda c: c[0])
        return float(alpha), float(penalty)

    def _blend(self, X: FloatArray, weights: FloatArray, text_weights: FloatArray) -> FloatArray:
        return np.asarray(np.float32(self.logit_scale) * (X @ (weights + text_weights[:, None] * self.text_).T))

    def _logits(self, X: Array) -> FloatArray:
        check_is_fitted(self)
        return self._blend(unit_features(X, self.n_features_in_), self.weights_, self.text_weights_)

    def _train(self, shots: Rows, alpha: float, penalty: float) -> tuple[FloatArray, FloatArray]:
        """Return visual weights ``(K, D)`` and text weights ``(K,)``; an infinite penalty leaves the start."""
        from scipy.optimize import minimize

        X, y = shots
        means = class_means(X, y, len(self.classes_))
        text = np.full(len(means), alpha, np.float32)
        if np.isinf(penalty):
            return means, text
        start = np.concatenate([means.ravel(), text]).astype(np.float64)
        cosine, votes = X @ self.text_.T, _one_hot(y, len(means))

        def loss(theta: FloatArray) -> tuple[float, FloatArray]:
            w, a = theta[: means.size].reshape(means.shape), theta[means.size :]
            logits = self.logit_scale * (X @ w.T + cosine * a)
            residual = self.logit_scale * (softmax(logits) - votes) / len(y)
            distance = theta - start
            grad = np.concatenate([(residual.T @ X).ravel(), (residual * cosine).sum(0)]) + penalty * distance
            return log_loss(logits, y) + penalty / 2 * float(distance @ distance), grad

        theta = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x.astype(np.float32)
        return theta[: means.size].reshape(means.shape), theta[means.size :]


def _one_hot(y: IntArray, n_classes: int) -> FloatArray:
    return np.asarray(y[:, None] == np.arange(n_classes), dtype=np.float32)


def _validation_score(logits: FloatArray, y: IntArray) -> ValidationScore:
    return float((logits.argmax(1) == y).mean()), -log_loss(logits, y)


def cosine_batches(n: int, size: int, epochs: int, seed: int) -> Iterator[tuple[IntArray, float]]:
    """Yield shuffled rows and the scale of the learning rate (half a cosine from 1 to 0) for every step."""
    rng = np.random.default_rng(seed)
    per_epoch = -(-n // size)
    for epoch in range(epochs):
        order = rng.permutation(n)
        for b in range(per_epoch):
            progress = (epoch * per_epoch + b) / (epochs * per_epoch)
            yield order[b * size : (b + 1) * size], 0.5 * (1 + float(np.cos(np.pi * progress)))
