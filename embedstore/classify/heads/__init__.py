"""Classifiers over computed features: scikit-learn estimators that know nothing of stores.

Names are loaded on first use: importing this package alone imports neither scikit-learn nor torch.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from embedstore.errors import BadHead, UnknownHead, did_you_mean

if TYPE_CHECKING:
    from embedstore.classify.heads.calibration import CalibratedHead, probabilities
    from embedstore.classify.heads.conformal import ConformalSets, predicts_sets, set_members
    from embedstore.classify.heads.export import export_npz
    from embedstore.classify.heads.few_shot import PromptBlend, TipAdapter
    from embedstore.classify.heads.head_files import load, save
    from embedstore.classify.heads.kernel import KernelProbe
    from embedstore.classify.heads.knn import WeightedKNN
    from embedstore.classify.heads.label_thresholds import LabelThresholds
    from embedstore.classify.heads.linear.probe import LogisticProbe
    from embedstore.classify.heads.mlp import MLPHead
    from embedstore.classify.heads.multilabel import OneVsRest
    from embedstore.classify.heads.onnx_head import export_onnx
    from embedstore.classify.heads.prototype import NearestPrototype
    from embedstore.classify.heads.regression.knn import KNNRegressor
    from embedstore.classify.heads.regression.ordinal import OrdinalHead
    from embedstore.classify.heads.regression.prediction_interval import PredictionInterval
    from embedstore.classify.heads.regression.ridge import RidgeHead
    from embedstore.classify.heads.sample_weights import fit_weighted
    from embedstore.classify.heads.selective import SelectiveClassifier
    from embedstore.classify.heads.zero_shot import ZeroShotHead, build_prompts, encode_class_vectors, load_templates

_MODULES = {
    "calibration": ("CalibratedHead", "probabilities"),
    "conformal": ("ConformalSets", "predicts_sets", "set_members"),
    "export": ("export_npz",),
    "few_shot": ("PromptBlend", "TipAdapter"),
    "head_files": ("load", "save"),
    "kernel": ("KernelProbe",),
    "knn": ("WeightedKNN",),
    "label_thresholds": ("LabelThresholds",),
    "linear.probe": ("LogisticProbe",),
    "mlp": ("MLPHead",),
    "multilabel": ("OneVsRest",),
    "onnx_head": ("export_onnx",),
    "prototype": ("NearestPrototype",),
    "regression.knn": ("KNNRegressor",),
    "regression.ordinal": ("OrdinalHead",),
    "regression.prediction_interval": ("PredictionInterval",),
    "regression.ridge": ("RidgeHead",),
    "sample_weights": ("fit_weighted",),
    "selective": ("SelectiveClassifier",),
    "zero_shot": ("ZeroShotHead", "build_prompts", "encode_class_vectors", "load_templates"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

_FACTORIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "logistic": ("embedstore.classify.heads.linear.probe", "LogisticProbe", {}),
    "knn": ("embedstore.classify.heads.knn", "WeightedKNN", {}),
    "prototype": ("embedstore.classify.heads.prototype", "NearestPrototype", {}),
    # Shrinkage by Ledoit and Wolf 2004: without it a covariance of 1,280 features from a few hundred rows is singular.
    "lda": ("sklearn.discriminant_analysis", "LinearDiscriminantAnalysis", {"solver": "lsqr", "shrinkage": "auto"}),
    "svm": ("sklearn.svm", "LinearSVC", {"random_state": 0}),
    "ridge": ("sklearn.linear_model", "RidgeClassifier", {}),
    "mlp": ("embedstore.classify.heads.mlp", "MLPHead", {}),
    "kernel": ("embedstore.classify.heads.kernel", "KernelProbe", {}),
}
MAX_ITERATIONS = 10_000
HEAD_NAMES = tuple(_FACTORIES)
_PRETRAINED = ("embedstore.classify.heads.pretrained_tabular", "PretrainedTabularHead")
_OPTIONAL_FACTORIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    name: (*_PRETRAINED, {"model": name}) for name in ("tabpfn", "tabicl")
}
OPTIONAL_HEAD_NAMES = tuple(_OPTIONAL_FACTORIES)
"""Heads whose package and weights are not part of embedstore."""
__all__ = [
    "HEAD_NAMES",
    "OPTIONAL_HEAD_NAMES",
    "CalibratedHead",
    "ConformalSets",
    "KNNRegressor",
    "KernelProbe",
    "LabelThresholds",
    "LogisticProbe",
    "MLPHead",
    "NearestPrototype",
    "OneVsRest",
    "OrdinalHead",
    "PredictionInterval",
    "PromptBlend",
    "RidgeHead",
    "SelectiveClassifier",
    "TipAdapter",
    "WeightedKNN",
    "ZeroShotHead",
    "build_prompts",
    "encode_class_vectors",
    "export_npz",
    "export_onnx",
    "fit_weighted",
    "load",
    "load_templates",
    "make_head",
    "predicts_sets",
    "probabilities",
    "save",
    "set_members",
]


def make_head(name: str, **options: Any) -> Any:
    """Return an unfitted classifier by its name.

    Args:
        name: one of :data:`HEAD_NAMES` or :data:`OPTIONAL_HEAD_NAMES`.
        **options: arguments of the estimator's constructor; they override our defaults.

    Returns:
        A scikit-learn classifier. ``svm`` and ``ridge`` have no ``predict_proba``; see :func:`probabilities`.

    Raises:
        UnknownHead: if there is no classifier of that name.
        BadHead: if the classifier has no such option, or it is a number that was given as true or false, or more
            iterations than :data:`MAX_ITERATIONS`.
    """
    factories = _FACTORIES | _OPTIONAL_FACTORIES
    if name not in factories:
        raise UnknownHead(f"no head {name!r}; there are {', '.join(factories)}{did_you_mean(name, factories)}")
    module, class_name, defaults = factories[name]
    head_class = getattr(importlib.import_module(module), class_name)
    known = inspect.signature(head_class).parameters
    for option, value in options.items():
        if option not in known:
            raise BadHead(
                f"head {name!r} has no option {option!r}; it has {', '.join(known)}{did_you_mean(option, known)}"
            )
        if module.startswith("sklearn."):  # our own heads check their options themselves
            _check_value(name, option, value, known[option].default)
    return head_class(**{**defaults, **options})


def _check_value(head: str, option: str, value: Any, default: Any) -> None:
    """Refuse what scikit-learn accepts: true for the number 1, and iterations that take hours in one call.

    Raises:
        BadHead: if it is one of these.
    """
    if isinstance(value, bool) and not _may_be_bool(default):
        raise BadHead(f"{option} of head {head!r} is no yes-or-no option; give its value, not {value!r}")
    if option == "max_iter" and isinstance(value, int | float) and value > MAX_ITERATIONS:
        raise BadHead(f"max_iter of head {head!r} must be at most {MAX_ITERATIONS:,}, not {value:,}; give fewer")


def _may_be_bool(default: Any) -> bool:
    """Return whether an option with this default accepts true or false, as ``fit_intercept`` and ``dual="auto"`` do."""
    return isinstance(default, bool | str)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{did_you_mean(name, __all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
