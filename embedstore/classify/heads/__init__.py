"""Classifiers over features that are already computed. scikit-learn estimators; none knows a store.

Names are loaded when they are first used: importing this package alone imports neither scikit-learn nor torch.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from embedstore.errors import BadHead, UnknownHead, did_you_mean

if TYPE_CHECKING:
    from embedstore.classify.heads.calibration import (
        Abstain,
        Calibrated,
        ConformalSets,
        membership_threshold,
        probabilities,
    )
    from embedstore.classify.heads.few_shot import PromptBlend, TipAdapter
    from embedstore.classify.heads.knn import WeightedKNN
    from embedstore.classify.heads.linear.probe import LogisticProbe
    from embedstore.classify.heads.mlp import MLPHead
    from embedstore.classify.heads.multilabel import OneVsRest
    from embedstore.classify.heads.prototype import NearestPrototype
    from embedstore.classify.heads.serialization import export_npz, export_onnx, load, read_binding, save
    from embedstore.classify.heads.zero_shot import ZeroShot, build_prompts, encode_class_vectors, load_templates

_HOMES = {
    "calibration": ("Abstain", "Calibrated", "ConformalSets", "membership_threshold", "probabilities"),
    "few_shot": ("PromptBlend", "TipAdapter"),
    "knn": ("WeightedKNN",),
    "linear.probe": ("LogisticProbe",),
    "mlp": ("MLPHead",),
    "multilabel": ("OneVsRest",),
    "serialization": ("read_binding", "export_npz", "export_onnx", "load", "save"),
    "prototype": ("NearestPrototype",),
    "zero_shot": ("ZeroShot", "encode_class_vectors", "build_prompts", "load_templates"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

_MADE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "logistic": ("embedstore.classify.heads.linear.probe", "LogisticProbe", {}),
    "knn": ("embedstore.classify.heads.knn", "WeightedKNN", {}),
    "prototype": ("embedstore.classify.heads.prototype", "NearestPrototype", {}),
    # Shrinkage by Ledoit and Wolf 2004: a covariance of 1,280 features from a few hundred rows is singular without.
    "lda": ("sklearn.discriminant_analysis", "LinearDiscriminantAnalysis", {"solver": "lsqr", "shrinkage": "auto"}),
    "svm": ("sklearn.svm", "LinearSVC", {"random_state": 0}),
    "ridge": ("sklearn.linear_model", "RidgeClassifier", {}),
    "mlp": ("embedstore.classify.heads.mlp", "MLPHead", {}),
}
HEAD_NAMES = tuple(_MADE)
__all__ = [
    "HEAD_NAMES",
    "Abstain",
    "Calibrated",
    "ConformalSets",
    "LogisticProbe",
    "MLPHead",
    "NearestPrototype",
    "OneVsRest",
    "PromptBlend",
    "TipAdapter",
    "WeightedKNN",
    "ZeroShot",
    "build_prompts",
    "encode_class_vectors",
    "export_npz",
    "export_onnx",
    "load",
    "load_templates",
    "make_head",
    "membership_threshold",
    "probabilities",
    "read_binding",
    "save",
]


def make_head(name: str, **options: Any) -> Any:
    """An unfitted classifier by its name.

    Args:
        name: one of :data:`NAMES`.
        **options: of the estimator's constructor; they override our defaults.

    Returns:
        A scikit-learn classifier. ``svm`` and ``ridge`` have no ``predict_proba``; see :func:`probabilities`.

    Raises:
        UnknownHead: no classifier of that name.
        BadHead: an option that it does not have.
    """
    if name not in _MADE:
        raise UnknownHead(f"no head {name!r}; there are {', '.join(HEAD_NAMES)}{did_you_mean(name, HEAD_NAMES)}")
    module, cls, defaults = _MADE[name]
    made = getattr(importlib.import_module(module), cls)
    known = list(inspect.signature(made).parameters)
    for option in options:
        if option not in known:
            raise BadHead(
                f"head {name!r} has no option {option!r}; it has {', '.join(known)}{did_you_mean(option, known)}"
            )
    return made(**{**defaults, **options})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{did_you_mean(name, __all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
