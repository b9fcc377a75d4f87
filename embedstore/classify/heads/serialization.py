"""Heads as JSON values and arrays, without pickle.

Only the classes of :data:`HEAD_CODECS` are built when a head is read, from JSON values and arrays: nothing that is
stored is ever executed. The names on disk (kinds, parameters, learned attributes) are fixed by the codecs, so that
Python names may change.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from embedstore.arrays import Array
from embedstore.errors import BadHead

_OURS = "embedstore.classify.heads."
# All that prediction needs of a scikit-learn estimator; its other attributes differ between versions.
_SKLEARN_STATE = ("classes_", "coef_", "intercept_", "n_features_in_", "n_iter_")
_NOT_STORED = ("out_of_fold_",)  # describes the rows of the fit, not the head


@dataclass(frozen=True)
class HeadCodec:
    """How the heads of one class are written and read.

    Attributes:
        module: the module that holds the class.
        class_name: the name of the class in Python. Its kind on disk is the key in :data:`HEAD_CODECS`.
        stored_names: Python name to name on disk, for the parameters and learned attributes that differ.
        optional_params: parameters that are stored only if they are not None, so that a version without them can read
            the heads that do not use them.
    """

    module: str
    class_name: str
    stored_names: Mapping[str, str] = field(default_factory=dict)
    optional_params: tuple[str, ...] = ()

    @cached_property
    def _python_names(self) -> dict[str, str]:
        return {stored: name for name, stored in self.stored_names.items()}

    def matches(self, value: Any) -> bool:
        """Return whether the value is an estimator of this class."""
        return type(value).__name__ == self.class_name and type(value).__module__.startswith(self.module)

    def params(self, head: Any) -> dict[str, Any]:
        """Return the constructor's arguments under their names on disk."""
        params = head.get_params(deep=False).items()
        return self._to_stored((k, v) for k, v in params if v is not None or k not in self.optional_params)

    def learned(self, head: Any) -> dict[str, Any]:
        """Return the learned attributes under their names on disk."""
        if not self.module.startswith(_OURS):
            return {name: getattr(head, name) for name in _SKLEARN_STATE if hasattr(head, name)}
        learned = ((k, v) for k, v in vars(head).items() if k.endswith("_") and not k.startswith("_"))
        return self._to_stored((k, v) for k, v in learned if k not in _NOT_STORED)

    def build(self, params: Mapping[str, Any], learned: Mapping[str, Any]) -> Any:
        """Build a head from what :meth:`params` and :meth:`learned` returned.

        Raises:
            ValueError: if a name is not that of a learned attribute.
            TypeError: if the class has no such parameter.
        """
        head = getattr(importlib.import_module(self.module), self.class_name)(**self._to_python(params))
        for name, value in self._to_python(learned).items():
            if not re.fullmatch(r"[a-zA-Z]\w*_", name):
                raise ValueError(f"{name} is not the name of a learned attribute")
            self._restore(head, name, value)
        return head

    def _restore(self, head: Any, name: str, value: Any) -> None:
        if self.class_name == "RidgeClassifier" and name == "classes_":  # it reads the kind of labels off its binarizer
            from sklearn.preprocessing import LabelBinarizer

            head._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(value)
        with contextlib.suppress(AttributeError):  # before scikit-learn 1.9 its classes are a property of the binarizer
            setattr(head, name, value)

    def _to_stored(self, named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {self.stored_names.get(name, name): value for name, value in named}

    def _to_python(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        return {self._python_names.get(name, name): value for name, value in stored.items()}


HEAD_CODECS: dict[str, HeadCodec] = {
    "Abstain": HeadCodec(
        f"{_OURS}selective", "SelectiveClassifier", {"target_precision": "precision", "abstain_label": "other"}
    ),
    "Calibrated": HeadCodec(f"{_OURS}calibration", "CalibratedHead"),
    "ConformalSets": HeadCodec(f"{_OURS}conformal", "ConformalSets"),
    "KernelProbe": HeadCodec(f"{_OURS}kernel", "KernelProbe"),
    "KNNRegressor": HeadCodec(f"{_OURS}regression.knn", "KNNRegressor"),
    "LabelThresholds": HeadCodec(f"{_OURS}label_thresholds", "LabelThresholds"),
    "LinearDiscriminantAnalysis": HeadCodec("sklearn.discriminant_analysis", "LinearDiscriminantAnalysis"),
    "LinearSVC": HeadCodec("sklearn.svm", "LinearSVC"),
    "LogisticProbe": HeadCodec(
        f"{_OURS}linear.probe",
        "LogisticProbe",
        {"n_folds_": "folds_", "n_unscored_": "unjudged_"},
        ("C", "class_weight"),
    ),
    "LogisticRegression": HeadCodec("sklearn.linear_model", "LogisticRegression"),
    "MLPHead": HeadCodec(f"{_OURS}mlp", "MLPHead", optional_params=("class_weight",)),
    "NearestPrototype": HeadCodec(f"{_OURS}prototype", "NearestPrototype"),
    "OrdinalHead": HeadCodec(f"{_OURS}regression.ordinal", "OrdinalHead"),
    "PredictionInterval": HeadCodec(f"{_OURS}regression.prediction_interval", "PredictionInterval"),
    "RidgeHead": HeadCodec(f"{_OURS}regression.ridge", "RidgeHead"),
    "OneVsRest": HeadCodec(f"{_OURS}multilabel", "OneVsRest", {"constant_labels_": "unlearned_"}),
    "PromptBlend": HeadCodec(
        f"{_OURS}few_shot",
        "PromptBlend",
        {"penalties": "pulls", "penalty_": "pull_", "tuning_rows_": "tuned_on_"},
    ),
    "RidgeClassifier": HeadCodec("sklearn.linear_model", "RidgeClassifier"),
    "TipAdapter": HeadCodec(f"{_OURS}few_shot", "TipAdapter", {"tuning_rows_": "tuned_on_"}),
    "WeightedKNN": HeadCodec(f"{_OURS}knn", "WeightedKNN", {"block_size": "block"}),
    "ZeroShot": HeadCodec(f"{_OURS}zero_shot", "ZeroShotHead"),
}
_NEEDS_NO_FIT = ("ZeroShot",)


def encode_head(head: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a fitted head as a JSON value and the arrays that the value names.

    Raises:
        BadHead: if the head is not fitted, or holds a value that cannot be stored without pickle.
    """
    arrays: dict[str, Array] = {}
    return _encode(head, arrays, "head"), arrays


def decode_head(tree: Any, arrays: Mapping[str, Array]) -> Any:
    """Build the head that :func:`encode_head` returned.

    Raises:
        KeyError: if an array is missing or the kind is unknown.
        TypeError: if a class has no parameter of a stored name.
        ValueError: if a value is none that a head can hold.
    """
    from embedstore.classify.heads.linear.regularization_path import RegularizationPoint

    match tree:
        case {"kind": str(kind), "params": dict(params), "learned": dict(learned)}:
            decoded = [{k: decode_head(v, arrays) for k, v in part.items()} for part in (params, learned)]
            return HEAD_CODECS[kind].build(*decoded)
        case {"float": str(text)}:
            return float(text)
        case {"array": str(name)}:
            return arrays[name]
        case {"strings": list(strings), "objects": bool(objects)}:
            return np.array(strings, dtype=object if objects else None)
        case {"items": list(items), "tuple": bool(is_tuple)}:
            values = [decode_head(v, arrays) for v in items]
            return tuple(values) if is_tuple else values
        case {"map": dict(pairs)}:
            return {k: decode_head(v, arrays) for k, v in pairs.items()}
        case {"c_point": point}:
            return RegularizationPoint(*decode_head(point, arrays))
        case None | bool() | int() | float() | str():
            return tree
    raise ValueError(f"{str(tree)[:60]} is not a value of a head")


def _encode(value: Any, arrays: dict[str, Array], name: str) -> Any:
    """Return a value as JSON; put arrays into ``arrays`` under the path to the value."""
    from embedstore.classify.heads.linear.regularization_path import RegularizationPoint

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), arrays, name)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.ndarray):
        return {"objects": value.dtype.kind == "O", "strings": value.tolist()}
    if isinstance(value, list | tuple):
        items = [_encode(v, arrays, f"{name}.{i}") for i, v in enumerate(value)]
        return {"tuple": isinstance(value, tuple), "items": items}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"map": {k: _encode(v, arrays, f"{name}.{k}") for k, v in value.items()}}
    if isinstance(value, RegularizationPoint):
        return {"c_point": _encode(list(asdict(value).values()), arrays, name)}
    return _encode_estimator(value, arrays, name)


def _encode_estimator(head: Any, arrays: dict[str, Array], name: str) -> dict[str, Any]:
    kind = next((kind for kind, codec in HEAD_CODECS.items() if codec.matches(head)), None)
    if kind is None:
        classes = ", ".join(codec.class_name for codec in HEAD_CODECS.values())
        raise BadHead(f"{name} is a {type(head).__name__}, which cannot be stored; these classes can: {classes}")
    codec = HEAD_CODECS[kind]
    learned = codec.learned(head)
    if not learned and kind not in _NEEDS_NO_FIT:
        raise BadHead(f"{codec.class_name} is not fitted; fit it before you save it")
    return {
        "kind": kind,
        "params": {k: _encode(v, arrays, f"{name}.{k}") for k, v in codec.params(head).items()},
        "learned": {k: _encode(v, arrays, f"{name}.{k}") for k, v in learned.items()},
    }
