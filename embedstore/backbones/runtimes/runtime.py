"""The runtimes of a network - PyTorch eager or compiled, onnxruntime - and the test that two of them agree.

The runtime is not part of a space: the vectors of every runtime agree within :data:`MIN_COSINE`. This is measured on
the user's own images before a runtime is used, and a runtime that is further off is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadOption, MissingExtra, NoTextTower
from embedstore.space import Space

MIN_COSINE = 0.9999  # of a row to the eager one, plain and centered
MIN_SPREAD = 1e-3  # of a vector's length: a row nearer to the mean row than this has no direction of its own


class Runtime(StrEnum):
    """The values of ``--runtime``."""

    AUTO = "auto"  # onnx on the CPU in fp32, else eager
    EAGER = "eager"
    ONNX = "onnx"
    COMPILE = "compile"


class Tower(StrEnum):
    """One half of a network that maps images and texts into one space."""

    IMAGE = "image"
    TEXT = "text"


class ImageEncoder(Protocol):
    """An encoder of prepared images, whatever runs it."""

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Embed uint8 ``(B, 3, H, W)`` to float32 ``(B, D)``."""


class Encoder(Protocol):
    """What a search needs of a backbone, with torch or without it."""

    space: Space
    logit_scale: float | None

    def encode_images(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed uint8 ``(B, 3, H, W)`` to float32 ``(B, D)``."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts to float32 ``(T, D)``, rows of length 1."""

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return the texts whose ends are ignored because they are too long."""


def parse_runtime(value: str) -> Runtime:
    """Return the runtime of that name.

    Raises:
        BadOption: when there is no runtime of that name.
    """
    try:
        return Runtime(value)
    except ValueError:
        raise BadOption(f"unknown runtime {value!r}; use one of {', '.join(Runtime)}") from None


def has_onnxruntime() -> bool:
    """Return whether onnxruntime is installed."""
    return find_spec("onnxruntime") is not None


def has_onnx_export() -> bool:
    """Return whether the packages that export networks and run them are installed."""
    return has_onnxruntime() and find_spec("onnx") is not None


def require_onnx_export() -> None:
    """Check that the packages of ``--runtime onnx`` are installed.

    Raises:
        MissingExtra: when they are not.
    """
    if not has_onnx_export():
        raise MissingExtra(
            "--runtime onnx needs the packages onnx and onnxruntime: pip install onnx onnxruntime; "
            "or leave --runtime out"
        )


def no_text_tower(space: Space) -> NoTextTower:
    """Return the error for texts in a space of images only."""
    return NoTextTower(
        f"{space.architecture} ({space.layer or 'vectors'}) has no text tower; "
        "texts need a network of texts and images, e.g. `--backbone clip`; `embedstore backbones --text` lists them"
    )


@dataclass(frozen=True)
class Agreement:
    """How closely two runtimes agree on some rows.

    Attributes:
        min_cosine: the smallest cosine of a row to the reference.
        centered_cosine: the same after the reference's mean row is subtracted from both, which leaves what
            distinguishes the images.
        rows: the number of rows compared.
    """

    min_cosine: float
    centered_cosine: float
    rows: int

    @property
    def is_close(self) -> bool:
        """The two belong to one space. NaN does not."""
        return self.min_cosine >= MIN_COSINE and self.centered_cosine >= MIN_COSINE

    def __str__(self) -> str:
        return f"least cosine {self.min_cosine:.6f}, centered {self.centered_cosine:.6f} over {self.rows} rows"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, under the names that are stored in ``tower.json`` and in the record of a run."""
        return {"cosine": self.min_cosine, "centred": self.centered_cosine, "rows": self.rows}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Agreement:
        """Return the agreement stored by :meth:`to_json`."""
        return cls(values["cosine"], values["centred"], values["rows"])


def compare_vectors(reference: NDArray[np.float32], other: NDArray[np.float32]) -> Agreement:
    """Compare the vectors that two runtimes computed for one batch.

    Args:
        reference: float32 ``(B, D)``, B at least 1.
        other: float32 ``(B, D)``.
    """
    a, b = reference.astype(np.float64), other.astype(np.float64)
    mean = a.mean(axis=0)
    has_direction = np.linalg.norm(a - mean, axis=1) > MIN_SPREAD * np.linalg.norm(a, axis=1)
    centered = _row_cosines(a[has_direction] - mean, b[has_direction] - mean)
    return Agreement(float(_row_cosines(a, b).min()), float(centered.min()) if len(centered) else 1.0, len(a))


def _row_cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows: NaN if only one of them is zero, 1 if both are."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    is_equal = (a == b).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: NDArray[np.float64] = np.where(is_equal, 1.0, (a * b).sum(axis=1) / lengths)
    return cosines
