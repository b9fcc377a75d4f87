"""Refuse a misspelt keyword and name the near ones: the only place that checks the keywords of public functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from embedstore.errors import UnknownOption, did_you_mean
from embedstore.finetuning.settings import FinetuneOptions

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
AnyClass = TypeVar("AnyClass", bound=type)


def check_keywords(function: AnyFunction) -> AnyFunction:
    """Return the function with unknown keywords refused by :class:`~embedstore.errors.UnknownOption`.

    A function with ``**settings`` takes the settings of fine-tuning, the only open keywords of the public functions.
    """
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD]
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        known += FinetuneOptions.__annotations__

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                raise _unknown_option(function.__name__, name, known)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value] # the wrapper has the signature of the function


def check_public_methods(cls: AnyClass) -> AnyClass:
    """Return the class with :func:`check_keywords` applied to its public methods."""
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member) and not name.startswith("_"):
            setattr(cls, name, check_keywords(member))
    return cls


def _unknown_option(function: str, name: str, known: Sequence[str]) -> UnknownOption:
    """Return the error for a keyword that a function does not have: it names the near ones, else all."""
    near = did_you_mean(name, known) or f"; it has {', '.join(known) or 'none'}"
    return UnknownOption(f"{function}() has no option {name!r}{near}")
