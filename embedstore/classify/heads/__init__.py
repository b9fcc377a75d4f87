"""Classifiers over features that are already computed. scikit-learn estimators; none knows a store.

Names are loaded when they are first used: importing this package alone imports neither scikit-learn nor torch.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from embedstore.errors import BadHead, UnknownHead, near

if TYPE_CHECKING:
    from embedstore.classify.heads.calibration import Abstain, Calibrated, ConformalSets, probabilities, set_threshold
    from embedstore.classify.heads.few_shot import PromptBlend, TipAdapter
    from embedstore.classify.heads.knn import WeightedKNN
    from embedstore.classify.heads.linear.probe import LogisticProbe
    from embedstore.classify.heads.mlp import MLPHead
    from embedstore.classify.heads.multilabel import OneVsRest
    from embedstore.classify.heads.prototype import NearestPrototype
    from embedstore.classify.heads.serialization import binding, export_npz, export_onnx, load, save
    from embedstore.classify.heads.zero_shot import ZeroShot, class_vectors, prompts_for, templates

_HOMES = {
    "calibration": ("Abstain", "Calibrated", "ConformalSets", "probabilities", "set_threshold"),
    "few_shot": ("PromptBlend", "TipAdapter"),
    "knn": ("WeightedKNN",),
    "linear.probe": ("LogisticProbe",),
    "mlp": ("MLPHead",),
    "multilabel": ("OneVsRest",),
    "serialization": ("binding", "export_npz", "export_onnx", "load", "save"),
    "prototype": ("NearestPrototype",),
    "zero_shot": ("ZeroShot", "class_vectors", "prompts_for", "templates"),
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
NAMES = tuple(_MADE)
__all__ = [
    "NAMES",
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
    "binding",
    "class_vectors",
    "export_npz",
    "export_onnx",
    "load",
    "make",
    "probabilities",
    "prompts_for",
    "save",
    "set_threshold",
    "templates",
]


def make(name: str, **options: Any) -> Any:
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
        raise UnknownHead(f"no head {name!r}; there are {', '.join(NAMES)}{near(name, NAMES)}")
    module, cls, defaults = _MADE[name]
    made = getattr(importlib.import_module(module), cls)
    known = list(inspect.signature(made).parameters)
    for option in options:
        if option not in known:
            raise BadHead(f"head {name!r} has no option {option!r}; it has {', '.join(known)}{near(option, known)}")
    return made(**{**defaults, **options})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{near(name, __all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
