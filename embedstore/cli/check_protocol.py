"""Refuse options that contradict a protocol as a usage error, before the store is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from embedstore.cli.option_groups import EvaluationOptionGroup
from embedstore.errors import BadOption

_KNN_OPTIONS = {"k": "-k", "weights": "--neighbor-weights"}


def check_protocol(
    protocol: str,
    head: str,
    head_options: Mapping[str, Any],
    evaluation: EvaluationOptionGroup,
    *,
    task: str = "auto",
    weight: str | None = None,
    separator: str | None = None,
    learning_curve: bool = False,
) -> None:
    """Refuse a protocol that does not exist, and the options that contradict it.

    Args:
        protocol: its name.
        head: the head.
        head_options: options of the head that were given.
        evaluation: options of the evaluation.
        task: what the label is.
        weight: a column with the weights of the items.
        separator: the text that separates several labels.
        learning_curve: whether the curve over labels is requested.

    Raises:
        typer.BadParameter: if there is no such protocol, or an option contradicts it; the message names the option.
        EmbedstoreError: if the options contradict each other.
    """
    from embedstore.classify.evaluation.settings import EvaluationSettings
    from embedstore.classify.protocols.protocol import ProtocolOptions, parse_protocol

    for option, is_given in (("--separator", separator is not None), ("--learning-curve", learning_curve)):
        if is_given:
            raise typer.BadParameter(f"{protocol} does without {option}: leave it out", param_hint="--protocol")
    settings = EvaluationSettings(**evaluation.to_kwargs())
    try:
        parse_protocol(protocol, ProtocolOptions(head, head_options, settings, _spelling(head), task, weight))
    except BadOption as e:
        raise typer.BadParameter(str(e), param_hint="--protocol") from e


def _spelling(head: str) -> Any:
    """Return the function that writes an option as it stands on the command line."""

    def spell(name: str, value: Any) -> str:
        if value is None:
            return f"--{name.replace('_', '-')}"
        is_own = head == "knn" and name in _KNN_OPTIONS
        return f"{_KNN_OPTIONS[name]} {value}" if is_own else f"--head-arg {name}={value}"

    return spell
