"""The protocols, what each fixes, and the options that contradict them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from embedstore.classify.data.task import AUTO, Task
from embedstore.classify.evaluation.settings import ChoiceRows, EvaluationSettings
from embedstore.errors import BadOption, did_you_mean


class Protocol(StrEnum):
    """Published ways to evaluate frozen features."""

    CLIP = "clip"  # Radford et al. 2021, appendix A.3
    DINOV2 = "dinov2"  # Oquab et al. 2023, and its published evaluation code
    DINOV3 = "dinov3"  # Siméoni et al. 2025, and its published evaluation code
    VTAB1K = "vtab1k"  # Zhai et al. 2019
    MTEB = "mteb"  # Muennighoff et al. 2023, classification, and its published code
    HEAR = "hear"  # Turian et al. 2022, one label per clip, and its published code
    SUPERB = "superb"  # Yang et al. 2021, classification of utterances


PROBE_PROTOCOLS = tuple(p.value for p in Protocol)
KNN_PROTOCOLS = (Protocol.DINOV2.value, Protocol.DINOV3.value)
SOURCES = {
    Protocol.CLIP: "Radford et al. 2021, appendix A.3",
    Protocol.DINOV2: "Oquab et al. 2023; facebookresearch/dinov2, dinov2/eval",
    Protocol.DINOV3: "Siméoni et al. 2025; facebookresearch/dinov3, dinov3/eval",
    Protocol.VTAB1K: "Zhai et al. 2019; google-research/task_adaptation",
    Protocol.MTEB: "Muennighoff et al. 2023; embeddings-benchmark/mteb, classification",
    Protocol.HEAR: "Turian et al. 2022; hearbenchmark/hear-eval-kit, scenes of one label",
    Protocol.SUPERB: "Yang et al. 2021, classification of utterances",
}
SOUND_PROTOCOLS = (Protocol.HEAR, Protocol.SUPERB)
"""Protocols that train a network of their own in the place of logistic regression."""
_DEFAULTS = EvaluationSettings()
_FIXED = ("folds", "calibrate", "abstain_precision", "conformal_alpha", "conformal_by_class")
_AGREED: dict[str, dict[str, Any]] = {  # options of the heads that say what the protocols do anyway
    "logistic": {"max_iter": 1000, "scale": "none", "class_weight": None},
    "knn": {"weights": "softmax", "temperature": 0.07},
}


def python_spelling(name: str, value: Any) -> str:
    """Return an option as it is written in Python."""
    return name if value is None else f"{name}={value!r}"


@dataclass(frozen=True)
class ProtocolOptions:
    """What a person gave beside the name of a protocol.

    Attributes:
        head: the head.
        head_options: options of the head that were given.
        settings: the settings of the evaluation.
        spelling: returns the name of an option, and its value if it is one of the head, as the person wrote it.
        task: what the label is.
        weight: a column with the weights of the items.
    """

    head: str
    head_options: Mapping[str, Any]
    settings: EvaluationSettings
    spelling: Callable[[str, Any], str] = python_spelling
    task: str = AUTO
    weight: str | None = None


def parse_protocol(name: str, given: ProtocolOptions) -> Protocol:
    """Return a protocol by its name, after every option beside it is checked.

    Args:
        name: the name of the protocol.
        given: what the person gave beside it.

    Raises:
        BadOption: if there is no such protocol for this head, or an option contradicts it; the message names the
            option.
    """
    known = KNN_PROTOCOLS if given.head == "knn" else PROBE_PROTOCOLS
    if name not in PROBE_PROTOCOLS:
        raise BadOption(f"no protocol {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}")
    if given.head not in ("logistic", "knn"):
        raise BadOption(
            f"protocol {name} evaluates logistic regression (probe) or nearest neighbors (knn): leave out head "
            f"{given.head}, or the protocol"
        )
    if name not in known:
        raise BadOption(f"protocol {name} has no nearest neighbors; those with them are {', '.join(known)}")
    conflicts = _contradictions(given, Protocol(name))
    if conflicts:
        raise BadOption(f"protocol {name} fixes {', '.join(conflicts)}: leave out {_them(conflicts)}, or the protocol")
    return Protocol(name)


def _them(conflicts: list[str]) -> str:
    return "it" if len(conflicts) == 1 else "them"


def _contradictions(given: ProtocolOptions, protocol: Protocol) -> list[str]:
    """Return the options that contradict a protocol, by the names that a person gave."""
    settings, agreed = given.settings, _AGREED[given.head]
    if protocol is Protocol.MTEB:
        agreed = agreed | {"max_iter": 100}
    if protocol in SOUND_PROTOCOLS:
        agreed = {}
    out = [given.spelling(k, v) for k, v in given.head_options.items() if k not in agreed or agreed[k] != v]
    out += [given.spelling(k, None) for k in _FIXED if getattr(settings, k) != getattr(_DEFAULTS, k)]
    out += [given.spelling("task", None)] if given.task not in (AUTO, Task.CLASSIFICATION) else []
    out += [given.spelling("weight", None)] if given.weight is not None else []
    if given.head == "knn" or protocol is Protocol.MTEB or protocol in SOUND_PROTOCOLS:
        out += [given.spelling("refit", None)] if settings.refit else []
        out += [given.spelling("choose_on", None)] if settings.choose_on != ChoiceRows.FOLDS else []
    return out
