"""Check the arguments of public functions: refuse a misspelt keyword with the near ones, and convert the values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from embedstore.errors import UnknownOption, did_you_mean
from embedstore.finetuning.settings import FinetuneOptions
from embedstore.operations.arguments import convert_argument

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
AnyClass = TypeVar("AnyClass", bound=type)


def check_arguments(function: AnyFunction) -> AnyFunction:
    """Return the function with its arguments checked and converted.

    An unknown keyword raises :class:`~embedstore.errors.UnknownOption`, and a value of another type than the annotation
    says :class:`~embedstore.errors.BadOption`; see :mod:`embedstore.operations.arguments`. A function with
    ``**settings`` takes the settings of fine-tuning, the only open keywords of the public functions.
    """
    parameters = list(inspect.signature(function).parameters.values())
    known = [p.name for p in parameters if p.name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD]
    annotations = {p.name: p.annotation for p in parameters if p.annotation is not inspect.Parameter.empty}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        known += FinetuneOptions.__annotations__

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                raise _unknown_option(function.__name__, name, known)
        given = [_converted(p.name, value) for p, value in zip(parameters, args, strict=False)]
        named = {name: _converted(name, value) for name, value in kwargs.items()}
        return function(*given, *args[len(parameters) :], **named)

    def _converted(name: str, value: Any) -> Any:
        return convert_argument(function.__name__, name, annotations.get(name, "Any"), value)

    return checked  # type: ignore[return-value] # the wrapper has the signature of the function


def check_public_methods(cls: AnyClass) -> AnyClass:
    """Return the class with :func:`check_arguments` applied to its public methods."""
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member) and not name.startswith("_"):
            setattr(cls, name, check_arguments(member))
    return cls


def _unknown_option(function: str, name: str, known: Sequence[str]) -> UnknownOption:
    """Return the error for a keyword that a function does not have: it names the near ones, else all."""
    near = did_you_mean(name, known) or f"; it has {', '.join(known) or 'none'}"
    return UnknownOption(f"{function}() has no option {name!r}{near}")
