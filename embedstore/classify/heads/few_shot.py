"""A few labelled images beside the words: Tip-Adapter and a blend of visual prototypes with text weights.

Hyper-parameters are tuned on validation rows, or on shots held out for it; never on rows that are judged later.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.validation import check_is_fitted

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.data.labels import encode_labels
from embedstore.classify.heads.base import LogitClassifier, unit_features
from embedstore.classify.heads.numerics import log_loss, softmax
from embedstore.classify.heads.optimizer import AdamW
from embedstore.classify.heads.prototype import class_means
from embedstore.classify.heads.zero_shot import check_class_vectors
from embedstore.errors import LabelError

ValidationScore = tuple[float, float]
"""(accuracy, minus log-loss): compared in this order."""


class _FewShot(LogitClassifier):
    """Text vectors, shots, and where the rows come from on which hyper-parameters are tuned."""

    class_vectors: Array
    classes: Sequence[Any] | Array
    logit_scale: float
    random_state: int

    def fit(self, X: Array, y: Array, X_val: Array | None = None, y_val: Array | None = None) -> _FewShot:
        """Learn from the shots; tune on validation rows.

        Args:
            X, y: the shots, features ``(N, D)`` and labels; with no rows the head is zero-shot.
            X_val, y_val: rows that only choose hyper-parameters. Without them a quarter of each class's shots is
                held out for that, and the head is then made from all shots; with one shot of a class the
                published defaults stand.

        Raises:
            LabelError: a label that is not among the classes; validation features without labels.
            DimensionMismatch: features of another dimension than the class vectors.
        """
        self.classes_ = np.asarray(self.classes)
        self.text_ = check_class_vectors(self.class_vectors, self.classes)
        self.n_features_in_ = self.text_.shape[1]
        shots = self._rows(X, y)
        if (X_val is None) != (y_val is None):
            raise LabelError("validation needs features and labels, both or neither")
        if len(shots[1]) == 0:
            self._zero_shot()
        elif X_val is not None and y_val is not None and len(X_val):
            self.tuning_rows_ = "validation rows"
            self._learn(shots, self._tuned(shots, self._rows(X_val, y_val)))
        elif (held := _quarter(shots[1], self.random_state)) is not None:
            self.tuning_rows_ = "held-out shots"
            rest, judged = held
            pairs = [(shots[0][i], shots[1][i]) for i in (rest, judged)]
            self._learn(shots, self._tuned(pairs[0], pairs[1]))
        else:
            self.tuning_rows_ = "published defaults"
            self._learn(shots, None)
        return self

    def _rows(self, X: Array, y: Array) -> tuple[FloatArray, IntArray]:
        if len(X) == 0:
            return np.zeros((0, self.n_features_in_), np.float32), np.zeros(0, np.int64)
        return unit_features(X, self.n_features_in_), encode_labels(y, self.classes_)

    def _text_logits(self, X: FloatArray) -> FloatArray:
        return np.asarray(np.float32(self.logit_scale) * (X @ self.text_.T))

    @abstractmethod
    def _zero_shot(self) -> None:
        """Learn that there are no shots."""

    @abstractmethod
    def _tuned(self, shots: tuple[FloatArray, IntArray], judged: tuple[FloatArray, IntArray]) -> Any:
        """Hyper-parameters: learned from the shots, the best on the judged rows."""

    @abstractmethod
    def _learn(self, shots: tuple[FloatArray, IntArray], tuned: Any) -> None:
        """Learn from the shots with these hyper-parameters, or with the published defaults for None."""


class TipAdapter(_FewShot):
    """``logit_scale * f.T + alpha * exp(-beta * (1 - f.K)) . V`` (Zhang et al. 2022, "Tip-Adapter").

    K are the shots' unit vectors and V their one-hot classes. ``fine_tune`` trains K from there (Tip-Adapter-F).

    Args:
        class_vectors, classes, logit_scale: as for :class:`ZeroShot`.
        alphas, betas: tried on validation; 0 among the alphas makes zero-shot one of the candidates. Without
            validation alpha is 1 and beta 5.5, the paper's first values.
        fine_tune: train the keys: AdamW, learning rate with a cosine, as the paper does.
        epochs, learning_rate, batch_size, random_state: of the fine-tuning.

    Attributes:
        keys_: float32 ``(N, D)``. values_: int64 ``(N,)``, the column of each key. alpha_, beta_: chosen.
        tuning_rows_: which rows chose them.
    """

    def __init__(  # noqa: PLR0913 - one argument a hyper-parameter, as scikit-learn asks
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

    def _zero_shot(self) -> None:
        self.keys_: FloatArray = np.zeros_like(self.text_[:0])
        self.values_: IntArray = np.zeros(0, np.int64)
        self.alpha_, self.beta_, self.tuning_rows_ = 0.0, 5.5, "no shots"

    def _learn(self, shots: tuple[FloatArray, IntArray], tuned: tuple[float, float] | None) -> None:
        self.alpha_, self.beta_ = tuned or (1.0, 5.5)
        self.keys_, self.values_ = self._keys(shots), shots[1]

    def _keys(self, shots: tuple[FloatArray, IntArray]) -> FloatArray:
        return self._trained(*shots) if self.fine_tune else shots[0]

    def _tuned(self, shots: tuple[FloatArray, IntArray], judged: tuple[FloatArray, IntArray]) -> tuple[float, float]:
        """The (alpha, beta) of the best accuracy, then the lowest log-loss, on the judged rows."""
        base = self._text_logits(judged[0])
        cosine = judged[0] @ self._keys(shots).T
        votes = _one_hot(shots[1], len(self.classes_))
        tried: list[tuple[ValidationScore, float, float]] = []
        for beta in self.betas:
            cache = np.exp(-beta * (1 - cosine)) @ votes
            tried += [(_judge(base + alpha * cache, judged[1]), alpha, beta) for alpha in self.alphas]
        _, alpha, beta = max(tried, key=lambda t: t[0])
        return float(alpha), float(beta)

    def _logits(self, X: Array) -> FloatArray:
        check_is_fitted(self)
        X = unit_features(X, self.n_features_in_)
        cache = np.exp(-self.beta_ * (1 - X @ self.keys_.T)) @ _one_hot(self.values_, len(self.classes_))
        return np.asarray(self._text_logits(X) + np.float32(self.alpha_) * cache, dtype=np.float32)

    def _trained(self, keys: FloatArray, y: IntArray, alpha: float = 1.0, beta: float = 5.5) -> FloatArray:
        """Keys after cross-entropy training on the shots themselves: float32 ``(N, D)``."""
        features, keys, base = keys, keys.copy(), self._text_logits(keys)
        votes = _one_hot(y, len(self.classes_))
        optimiser = AdamW([keys], self.learning_rate)
        for rows, share in _batches(len(y), self.batch_size, self.epochs, self.random_state):
            near = np.exp(-beta * (1 - features[rows] @ keys.T))
            off = softmax(base[rows] + alpha * (near @ votes)) - votes[rows]
            optimiser.step([alpha * beta * (near * (off @ votes.T)).T @ features[rows] / len(rows)], share)
        return keys


class PromptBlend(_FewShot):
    """``logit_scale * f.(w_k + alpha_k t_k)``: a visual and a text weight a class (after LP++, Huang et al. 2024).

    Both w and alpha are trained, pulled towards where they start: w at the class means of the shots, alpha at one
    value for all classes. That value and the strength of the pull are tuned on validation; "not trained at all" is
    one of the candidates. Unlike the paper's step sizes this is one convex problem, solved by L-BFGS.

    Args:
        class_vectors, classes, logit_scale: as for :class:`ZeroShot`.
        alphas: first text weights tried. pulls: strengths tried. Without validation alpha is 1 and pull 1.
        random_state: of the shots held out when there are no validation rows.

    Attributes:
        weights_: float32 ``(K, D)``, the visual part. text_weights_: float32 ``(K,)``. alpha_, pull_: chosen.
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

    def _zero_shot(self) -> None:
        self.weights_ = np.zeros_like(self.text_)
        self.text_weights_ = np.ones(len(self.text_), np.float32)
        self.alpha_, self.penalty_, self.tuning_rows_ = 1.0, np.inf, "no shots"

    def _learn(self, shots: tuple[FloatArray, IntArray], tuned: tuple[float, float] | None) -> None:
        self.alpha_, self.penalty_ = tuned or (1.0, 1.0)
        self.weights_, self.text_weights_ = self._trained(shots, self.alpha_, self.penalty_)

    def _tuned(self, shots: tuple[FloatArray, IntArray], judged: tuple[FloatArray, IntArray]) -> tuple[float, float]:
        """First the text weight with untrained prototypes, then the pull: the best on the judged rows."""
        X, y = judged
        start = [(_judge(self._blend(X, *self._trained(shots, a, np.inf)), y), a, np.inf) for a in self.alphas]
        untrained = max(start, key=lambda t: t[0])
        alpha = untrained[1]
        trained = [(_judge(self._blend(X, *self._trained(shots, alpha, p)), y), alpha, p) for p in self.penalties]
        _, alpha, pull = max([untrained, *trained], key=lambda t: t[0])
        return float(alpha), float(pull)

    def _blend(self, X: FloatArray, weights: FloatArray, text_weights: FloatArray) -> FloatArray:
        return np.asarray(np.float32(self.logit_scale) * (X @ (weights + text_weights[:, None] * self.text_).T))

    def _logits(self, X: Array) -> FloatArray:
        check_is_fitted(self)
        return self._blend(unit_features(X, self.n_features_in_), self.weights_, self.text_weights_)

    def _trained(self, shots: tuple[FloatArray, IntArray], alpha: float, pull: float) -> tuple[FloatArray, FloatArray]:
        """Visual and text weights after training: ``(K, D)`` and ``(K,)``; an infinite pull leaves the start."""
        from scipy.optimize import minimize

        X, y = shots
        means = class_means(X, y, len(self.classes_))
        text = np.full(len(means), alpha, np.float32)
        if np.isinf(pull):
            return means, text
        start = np.concatenate([means.ravel(), text]).astype(np.float64)
        cosine, votes = X @ self.text_.T, _one_hot(y, len(means))

        def loss(theta: FloatArray) -> tuple[float, FloatArray]:
            w, a = theta[: means.size].reshape(means.shape), theta[means.size :]
            logits = self.logit_scale * (X @ w.T + cosine * a)
            off = self.logit_scale * (softmax(logits) - votes) / len(y)
            away = theta - start
            grad = np.concatenate([(off.T @ X).ravel(), (off * cosine).sum(0)]) + pull * away
            return log_loss(logits, y) + pull / 2 * float(away @ away), grad

        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x.astype(np.float32)
        return found[: means.size].reshape(means.shape), found[means.size :]


def _one_hot(y: IntArray, n_classes: int) -> FloatArray:
    return np.asarray(y[:, None] == np.arange(n_classes), dtype=np.float32)


def _judge(logits: FloatArray, y: IntArray) -> ValidationScore:
    return float((logits.argmax(1) == y).mean()), -log_loss(logits, y)


def _quarter(y: IntArray, seed: int) -> tuple[IntArray, IntArray] | None:
    """(rest, held out): a quarter of the rows by class, at least one of each; None if a class has but one row."""
    counts = np.bincount(y)
    counts = counts[counts > 0]
    if counts.min() < 2:
        return None
    held = min(max(len(y) // 4, len(counts)), len(y) - len(counts))
    rest, judged = next(StratifiedShuffleSplit(1, test_size=held, random_state=seed).split(y, y))
    return rest, judged


def _batches(n: int, size: int, epochs: int, seed: int) -> Iterator[tuple[IntArray, float]]:
    """Shuffled rows and the learning rate's share (half a cosine from 1 to 0) for every step."""
    rng = np.random.default_rng(seed)
    per_epoch = -(-n // size)
    for epoch in range(epochs):
        order = rng.permutation(n)
        for b in range(per_epoch):
            done = (epoch * per_epoch + b) / (epochs * per_epoch)
            yield order[b * size : (b + 1) * size], 0.5 * (1 + float(np.cos(np.pi * done)))
