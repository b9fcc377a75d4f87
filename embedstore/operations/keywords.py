"""Refuse a misspelt keyword and name the near ones: the only place that checks the keywords of public functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from embedstore.errors import UnknownOption, did_you_mean

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
AnyClass = TypeVar("AnyClass", bound=type)


def check_keywords(function: AnyFunction) -> AnyFunction:
    """Return the function with unknown keywords refused by :class:`~embedstore.errors.UnknownOption`.

    A function with ``**options`` of its own checks them with :func:`unknown_option`.
    """
    parameters = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return function
    known = [name for name in parameters if name != "self"]

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in parameters:
                raise unknown_option(function.__name__, name, known)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value] # the wrapper has the signature of the function


def check_public_methods(cls: AnyClass) -> AnyClass:
    """Return the class with :func:`check_keywords` applied to its public methods."""
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member) and not name.startswith("_"):
            setattr(cls, name, check_keywords(member))
    return cls


def unknown_option(function: str, name: str, known: Iterable[str]) -> UnknownOption:
    """Return the error for an option that a function does not have."""
    known = list(known)
    return UnknownOption(f"{function}() has no option {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}")
