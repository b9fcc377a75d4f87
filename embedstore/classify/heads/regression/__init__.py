"""Heads that predict numbers: scikit-learn regressors that know nothing of stores."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from embedstore.errors import BadHead, UnknownHead, did_you_mean

_FACTORIES = {
    "ridge": ("embedstore.classify.heads.regression.ridge", "RidgeHead"),
    "knn": ("embedstore.classify.heads.regression.knn", "KNNRegressor"),
}
REGRESSION_HEADS = tuple(_FACTORIES)


def make_regressor(name: str, **options: Any) -> Any:
    """Return an unfitted regressor by its name.

    Args:
        name: one of :data:`REGRESSION_HEADS`.
        **options: arguments of its constructor.

    Raises:
        UnknownHead: if there is no regressor of that name; heads for classes are named as such.
        BadHead: if the regressor has no such option.
    """
    if name not in _FACTORIES:
        raise UnknownHead(
            f"head {name!r} does not predict numbers; {' and '.join(REGRESSION_HEADS)} do"
            f"{did_you_mean(name, REGRESSION_HEADS)}; --task classification reads the labels as classes"
        )
    module, class_name = _FACTORIES[name]
    head_class = getattr(importlib.import_module(module), class_name)
    known = list(inspect.signature(head_class).parameters)
    for option in options:
        if option not in known:
            raise BadHead(
                f"head {name!r} has no option {option!r} for numbers; it has {', '.join(known)}"
                f"{did_you_mean(option, known)}"
            )
    return head_class(**options)
