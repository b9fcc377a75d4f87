"""Networks that were trained to classify tables (TabPFN, Hollmann et al. 2025; TabICL, Qu et al. 2025) as heads.

They read the training rows and answer without being fitted. Neither package nor weights are part of embedstore, and
nothing is downloaded: both must be on this machine.
"""

from __future__ import annotations

import importlib
import os
from enum import StrEnum
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.heads.options import check_whole
from embedstore.errors import BadHead, MissingExtra, WeightsNotFound

# What the packages and torch.load raise for a file that is no checkpoint, of another kind, or of another version.
_UNREADABLE = (OSError, EOFError, KeyError, RuntimeError, AssertionError, AttributeError, UnpicklingError)
_REASON = 120  # letters of their message that are repeated
MAX_ROWS = 10_000  # that the first was trained for; more take minutes


class TabularModel(StrEnum):
    """The packages, which are also the names of the heads."""

    TABPFN = "tabpfn"
    TABICL = "tabicl"


class PretrainedTabularHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A pre-trained classifier of tables over the first principal components of the features.

    Such a head is evaluated and compared as others. It cannot be saved: its network belongs to the package.

    Args:
        model: ``tabpfn`` or ``tabicl``.
        weights: the file of its weights; by default the one that the environment variable ``EMBEDSTORE_TABPFN_WEIGHTS``
            or ``EMBEDSTORE_TABICL_WEIGHTS`` names.
        n_components: principal components of the training rows, which the network reads; such networks know tables of
            some hundred columns.
        random_state: random seed.

    Attributes:
        classes_: labels ``(K,)``.
        network_: the classifier of the package.
        components_: the fitted principal components.
    """

    def __init__(
        self, model: str = "tabpfn", *, weights: str | None = None, n_components: int = 100, random_state: int = 0
    ) -> None:
        self.model = model
        self.weights = weights
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Array, y: Array) -> PretrainedTabularHead:
        """Load the network and give it the rows.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``.

        Raises:
            MissingExtra: if the package is not installed.
            WeightsNotFound: if its weights are not on this machine, or the package cannot read them.
            BadHead: if there are more than 10,000 rows, or ``n_components`` is no whole number of at least 1.
        """
        check_whole("n_components", self.n_components)
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        if len(X) > MAX_ROWS:
            raise BadHead(f"head {self.model} reads at most {MAX_ROWS:,} rows, not {len(X):,}; use head logistic")
        network = self._load()
        self.components_ = PCA(min(self.n_components, *X.shape), random_state=self.random_state).fit(X)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.network_ = self._give_rows(network, self.components_.transform(X), codes)
        return self

    def _give_rows(self, network: Any, X: FloatArray, y: IntArray) -> Any:
        """Return the classifier of the package with the rows; it reads its weights now."""
        try:
            return network.fit(X, y)
        except _UNREADABLE as e:
            model = TabularModel(self.model)
            reason = " ".join(str(e).split())[:_REASON] or type(e).__name__
            raise WeightsNotFound(
                f"the package {model} cannot use the weights {self._weights_file(model)} ({reason}); give a checkpoint "
                f"of a classifier that this version of {model} reads"
            ) from e

    def _load(self) -> Any:
        """Return the unfitted classifier of the package with local weights."""
        model = TabularModel(self.model)
        try:
            package = importlib.import_module(model.value)
        except ImportError as e:
            raise MissingExtra(f"head {model} needs the package {model}: pip install {model}") from e
        path = self._weights_file(model)
        if model is TabularModel.TABPFN:
            return package.TabPFNClassifier(model_path=str(path), device="cpu", random_state=self.random_state)
        return package.TabICLClassifier(
            model_path=str(path), allow_auto_download=False, device="cpu", random_state=self.random_state
        )

    def _weights_file(self, model: TabularModel) -> Path:
        variable = f"EMBEDSTORE_{model.upper()}_WEIGHTS"
        given = self.weights or os.environ.get(variable)
        if given is None or not Path(given).is_file():
            found = "no file is named" if given is None else f"{given} is not a file"
            raise WeightsNotFound(
                f"head {model} needs its weights on this machine, and {found}; download them with the package {model} "
                f"where there is a network, copy the .ckpt file, and give --head-arg weights=FILE, or set {variable}"
            )
        return Path(given)

    def predict_proba(self, X: Array) -> FloatArray:
        """Return probabilities ``(N, K)``."""
        check_is_fitted(self)
        rows = self.components_.transform(validate_data(self, X, reset=False))
        return np.asarray(self.network_.predict_proba(rows), np.float64)

    def predict(self, X: Array) -> Array:
        """Return labels ``(N,)``."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
