"""Which program runs a network: torch as it is, torch compiled, or onnxruntime; and whether two of them agree.

The runtime is no part of a space: vectors of every runtime are the same within :data:`LEAST`, which is measured on
the person's own images before a runtime is used, and a runtime that is further off is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadBackbone, MissingExtra
from embedstore.space import Space

MIN_COSINE = 0.9999  # cosine of a row to the eager one, plain and centred
MIN_SPREAD = 1e-3  # of the vectors' length: rows nearer to their mean than this have no direction of their own


class Runtime(StrEnum):
    """The values of ``--runtime``."""

    AUTO = "auto"  # eager for short runs, onnx where it is installed and pays
    EAGER = "eager"
    ONNX = "onnx"
    COMPILE = "compile"


class Tower(StrEnum):
    """One half of a network that maps images and words into one space."""

    IMAGE = "image"
    TEXT = "text"


class Encoder(Protocol):
    """What search needs of a backbone, with torch or without it."""

    space: Space
    logit_scale: float | None

    def encode_images(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 ``(B, 3, H, W)`` to float32 ``(B, D)``."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to float32 ``(T, D)``, rows of length 1."""


def parse_runtime(value: str) -> Runtime:
    """The runtime of that name.

    Raises:
        BadBackbone: there is none.
    """
    try:
        return Runtime(value)
    except ValueError:
        raise BadBackbone(f"unknown runtime {value!r}; use one of {', '.join(Runtime)}") from None


def has_onnxruntime() -> bool:
    """Whether onnxruntime is installed."""
    return find_spec("onnxruntime") is not None


def has_onnx_export() -> bool:
    """Whether networks can be exported and run."""
    return has_onnxruntime() and find_spec("onnx") is not None


def require_onnx_export() -> None:
    """Ask for the packages of ``--runtime onnx``.

    Raises:
        MissingExtra: they are not installed.
    """
    if not has_onnx_export():
        raise MissingExtra(
            "--runtime onnx needs the packages onnx and onnxruntime: pip install 'embedstore[onnx]'; "
            "or leave --runtime out"
        )


@dataclass(frozen=True)
class Agreement:
    """How near two runtimes are.

    Attributes:
        cosine: least cosine of a row to the reference.
        centred: the same after the reference's mean row is taken from both: what tells images apart.
        rows: how many were compared.
    """

    cosine: float
    centred: float
    rows: int

    @property
    def is_close(self) -> bool:
        """Near enough to stand in one space. NaN is not."""
        return self.cosine >= MIN_COSINE and self.centred >= MIN_COSINE

    def __str__(self) -> str:
        return f"least cosine {self.cosine:.6f}, centred {self.centred:.6f} over {self.rows} rows"


def compare_vectors(reference: NDArray[np.float32], other: NDArray[np.float32]) -> Agreement:
    """Compare the vectors of one batch by two runtimes.

    Args:
        reference, other: float32 ``(B, D)``, B at least 1.
    """
    a, b = reference.astype(np.float64), other.astype(np.float64)
    mean = a.mean(axis=0)
    away = np.linalg.norm(a - mean, axis=1) > MIN_SPREAD * np.linalg.norm(a, axis=1)
    centred = _cosines(a[away] - mean, b[away] - mean)
    return Agreement(float(_cosines(a, b).min()), float(centred.min()) if len(centred) else 1.0, len(a))


def _cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row by row; NaN where a row is zero in one of them only, 1 where both are zero."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (a == b).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: NDArray[np.float64] = np.where(same, 1.0, (a * b).sum(axis=1) / lengths)
    return cosines
