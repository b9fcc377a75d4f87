"""What a vector means. Two vectors may be compared only if their spaces have one key.

A :class:`Recipe` is what a person asked for; a :class:`Space` is what they got: every fact that changes the
numbers, digested into :attr:`Space.key`. Loading a recipe again must give the same key, or the vectors on disk
and the new ones do not belong together.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

JsonScalar = str | int | float | bool | None
ChannelValues = tuple[float, float, float]

RANDOM_PREFIX = "random:"  # of the digest of weights that were drawn at random


class Family(StrEnum):
    """Whose code builds the network."""

    TIMM = "timm"
    OPEN_CLIP = "open_clip"
    CUSTOM = "custom"  # the user's own ``module:factory``
    PRECOMPUTED = "precomputed"  # vectors brought from elsewhere; there is no network


class ResizeMode(StrEnum):
    """How an image is brought to the size from which the centre is cropped."""

    SHORTEST = "shortest"  # keep the aspect ratio, the shorter side meets the target
    LONGEST = "longest"  # keep the aspect ratio, the longer side meets it; pad the rest with ``fill``
    SQUASH = "squash"  # ignore the aspect ratio


class Interpolation(StrEnum):
    """Pillow's resampling filters."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


@dataclass(frozen=True)
class Preprocess:
    """From an RGB image to the network's input; EXIF orientation has been applied before.

    Attributes:
        size: ``(height, width)`` of the input, pixels.
        resize: ``(height, width)`` to resize to before the centre crop; for SHORTEST and LONGEST a square.
        mode, interpolation: how to resize.
        mean, std: per channel, on pixels scaled to [0, 1].
        fill: grey value 0-255 of padding.
    """

    size: tuple[int, int]
    resize: tuple[int, int]
    mean: ChannelValues
    std: ChannelValues
    mode: ResizeMode = ResizeMode.SHORTEST
    interpolation: Interpolation = Interpolation.BICUBIC
    fill: int = 0

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Preprocess:
        """The inverse of ``dataclasses.asdict`` through JSON."""
        return cls(
            size=(int(d["size"][0]), int(d["size"][1])),
            resize=(int(d["resize"][0]), int(d["resize"][1])),
            mean=_triple(d["mean"]),
            std=_triple(d["std"]),
            mode=ResizeMode(d["mode"]),
            interpolation=Interpolation(d["interpolation"]),
            fill=int(d["fill"]),
        )


@dataclass(frozen=True)
class Recipe:
    """How to get a backbone again: what the person asked for, kept with the space.

    Attributes:
        backbone: ``timm/<name>[.tag]``, ``open_clip/<arch>:<pretrained>``, ``open_clip/local-dir:<folder>`` or
            ``module:factory``.
        weights: a local weights file, or None for the library's own loading.
        args: keyword arguments of the constructor.
        preprocess: overrides of the model's own preprocessing, as given.
        layer, pool: which features; None is the backbone's default.
        random_init: random weights were asked for by name.
        seed: of the random weights.
        parent: key of the space that the weights were fine-tuned from; its file lies in the store (a relative path).
    """

    backbone: str
    weights: str | None = None
    args: dict[str, JsonScalar] = field(default_factory=dict)
    preprocess: dict[str, JsonScalar] = field(default_factory=dict)
    layer: str | None = None
    pool: str | None = None
    random_init: bool = False
    seed: int = 0
    parent: str | None = None

    def to_json(self) -> str:
        """Canonical JSON."""
        return _canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The inverse of :meth:`to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Space:
    """Every fact that changes the numbers of a vector.

    Attributes:
        family, architecture, args: the code that builds the network. The architecture has no pre-trained tag:
            the same weights by another road are the same space.
        weights: ``sha256:…`` over the loaded parameters and buffers, ``random:sha256:…`` where they were drawn.
        activation: where it is a choice apart from the architecture (``quick_gelu``), else "".
        preprocess: the network's own, with the user's overrides; None for precomputed vectors.
        layer, pool: where the features are taken, e.g. ``("pooled", "avg")``, ``("projection", "")``.
        dim: length of a vector. unit: vectors are scaled to length 1 before storing.
        parent: key of the space that fine-tuning started from, or None.
        text: a text tower maps words into this same space.
        origin, licence: where the weights came from; not part of the key.
    """

    family: Family
    architecture: str
    weights: str
    preprocess: Preprocess | None
    dim: int
    unit: bool
    layer: str = ""
    pool: str = ""
    args: dict[str, JsonScalar] = field(default_factory=dict)
    activation: str = ""
    parent: str | None = None
    text: bool = False
    origin: str = field(default="", compare=False)
    licence: str = field(default="", compare=False)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits: the digest of everything that changes the numbers."""
        facts = asdict(self)
        for name in ("origin", "licence", "text"):
            del facts[name]
        return hashlib.sha256(_canonical(facts).encode()).hexdigest()[:16]

    @property
    def has_random_weights(self) -> bool:
        """The weights are random: vectors carry no learned meaning."""
        return self.weights.startswith(RANDOM_PREFIX)

    def has_same_vectors(self, other: Space) -> bool:
        """Whether both give the same vectors: they differ in nothing but where they come from."""

        def bare(space: Space) -> Space:
            return replace(space, parent=None, weights=space.weights.removeprefix(RANDOM_PREFIX))

        return bare(self).key == bare(other).key

    def __hash__(self) -> int:
        return hash(self.key)

    def to_json(self) -> str:
        """Canonical JSON."""
        return _canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Space:
        """The inverse of :meth:`to_json`."""
        d = json.loads(text)
        p = d["preprocess"]
        return cls(**{**d, "family": Family(d["family"]), "preprocess": p and Preprocess.from_json(p)})


def override_preprocess(preprocess: Preprocess, overrides: dict[str, JsonScalar]) -> Preprocess:
    """The model's own preprocessing with a person's explicit changes.

    Args:
        own: what the model's configuration says.
        overrides: any of ``size``, ``resize`` (pixels), ``crop_pct``, ``mean``, ``std`` (one number or three with
            commas), ``mode``, ``interpolation``, ``fill``. ``size`` alone keeps the ratio of resize to size.

    Raises:
        ValueError: an unknown name or a value that does not parse.
    """
    known = {"size", "resize", "crop_pct", "mean", "std", "mode", "interpolation", "fill"}
    unknown = set(overrides) - known
    if unknown:
        raise ValueError(f"unknown preprocessing {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    out = preprocess
    if "size" in overrides:
        h, w = _pair(overrides["size"])
        scale = preprocess.resize[0] / preprocess.size[0]
        out = replace(out, size=(h, w), resize=(int(h * scale), int(w * scale)))
    if "crop_pct" in overrides:
        pct = float(str(overrides["crop_pct"]))
        if not 0 < pct <= 1:
            raise ValueError(f"crop_pct must be in (0, 1], not {pct}")
        out = replace(out, resize=(int(out.size[0] / pct), int(out.size[1] / pct)))
    if "resize" in overrides:
        out = replace(out, resize=_pair(overrides["resize"]))
    if "mean" in overrides:
        out = replace(out, mean=_triple(overrides["mean"]))
    if "std" in overrides:
        out = replace(out, std=_triple(overrides["std"]))
    if "mode" in overrides:
        out = replace(out, mode=ResizeMode(str(overrides["mode"])))
    if "interpolation" in overrides:
        out = replace(out, interpolation=Interpolation(str(overrides["interpolation"])))
    if "fill" in overrides:
        out = replace(out, fill=int(str(overrides["fill"])))
    return out


def _numbers(value: Any) -> list[float]:
    """Numbers of a scalar, a sequence or a string with commas."""
    if isinstance(value, list | tuple):
        return [float(v) for v in value]
    return [float(v) for v in str(value).strip("()[] ").split(",")]


def _triple(value: Any) -> ChannelValues:
    """Three numbers; one number stands for three."""
    v = _numbers(value)
    if len(v) not in (1, 3):
        raise ValueError(f"expected one number or three, not {value!r}")
    return (v[0], v[0], v[0]) if len(v) == 1 else (v[0], v[1], v[2])


def _pair(value: Any) -> tuple[int, int]:
    """``(height, width)``; one number stands for both."""
    v = [int(x) for x in _numbers(str(value).lower().replace("x", ",") if isinstance(value, str) else value)]
    if len(v) not in (1, 2) or min(v) < 1:
        raise ValueError(f"expected a positive size such as 224 or 224x224, not {value!r}")
    return (v[0], v[-1])


def _canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
