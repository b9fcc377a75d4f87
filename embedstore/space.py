"""The space of a vector. Two vectors may be compared only if their spaces have the same key.

A :class:`Recipe` is what a user requested; a :class:`Space` is the result: every fact that changes the numbers,
digested into :attr:`Space.key`. Loading a recipe again must give the same key, or the vectors on disk and the new ones
do not belong together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from embedstore.json_objects import parse_json_object
from embedstore.modality import Modality, SequenceInput, input_facts, parse_input

JsonScalar = str | int | float | bool | None
_SCALARS = (str, int, float, bool, type(None))
ChannelValues = tuple[float, float, float]

MAX_SIDE = 1 << 14  # pixels of a network's input, and MAX_DIM values of a vector: a description from somebody else
MAX_DIM = 1 << 20  # must not claim more memory than any network needs
RANDOM_PREFIX = "random:"  # before the digest of weights that were drawn at random


class Family(StrEnum):
    """The library whose code builds the network."""

    TIMM = "timm"
    OPEN_CLIP = "open_clip"
    TRANSFORMERS = "transformers"
    CUSTOM = "custom"  # the user's own ``module:factory``
    PRECOMPUTED = "precomputed"  # imported vectors; there is no network


class ResizeMode(StrEnum):
    """How an image is resized before the center crop."""

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
    """How an RGB image becomes the network's input; EXIF orientation is applied before.

    Attributes:
        size: ``(height, width)`` of the input, pixels.
        resize: ``(height, width)`` before the center crop, pixels; a square for SHORTEST and LONGEST.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        mode: how the aspect ratio is treated.
        interpolation: the resampling filter.
        fill: gray value of the padding, 0 to 255.
        decoding: settings of decoders by ``FORMAT.OPTION``, sorted; the frame and window of DICOM files, for example.
            A space without any has the key that it had before there were such settings.
    """

    size: tuple[int, int]
    resize: tuple[int, int]
    mean: ChannelValues
    std: ChannelValues
    mode: ResizeMode = ResizeMode.SHORTEST
    interpolation: Interpolation = Interpolation.BICUBIC
    fill: int = 0
    decoding: tuple[tuple[str, str], ...] = ()

    @property
    def decoding_settings(self) -> dict[str, str]:
        """The settings of decoders by ``FORMAT.OPTION``."""
        return dict(self.decoding)

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Preprocess:
        """Return the preprocessing stored as the JSON of ``dataclasses.asdict``.

        Raises:
            ValueError: if a value is out of its bounds.
            KeyError: if a value is missing.
            TypeError: if a value has another type.
        """
        stored = cls(
            size=(int(d["size"][0]), int(d["size"][1])),
            resize=(int(d["resize"][0]), int(d["resize"][1])),
            mean=_triple(d["mean"]),
            std=_triple(d["std"]),
            mode=ResizeMode(d["mode"]),
            interpolation=Interpolation(d["interpolation"]),
            fill=int(d["fill"]),
            decoding=_settings(d.get("decoding", [])),
        )
        if not all(0 < side <= MAX_SIDE for side in (*stored.size, *stored.resize)):
            raise ValueError(f"an input of {stored.size}, resized to {stored.resize} pixels")
        return stored


@dataclass(frozen=True)
class Recipe:
    """How to load a backbone again: what the user requested, stored with the space.

    Attributes:
        backbone: ``timm/<name>[.tag]``, ``open_clip/<arch>:<pretrained>``, ``open_clip/local-dir:<folder>``,
            ``hf/<repository or folder>`` or ``module:factory``.
        weights: a local weights file, or None for the library's own loading.
        args: keyword arguments of the constructor.
        preprocess: overrides of the model's own preprocessing, as the user wrote them.
        layer: where the features are taken; None is the backbone's default.
        pool: how they are pooled; None is the backbone's default.
        random_init: the user requested random weights.
        seed: the seed of the random weights.
        parent: key of the space from which the weights were fine-tuned; ``weights`` is then a path within the store.
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
        """Return canonical JSON."""
        return _canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Return what :meth:`to_json` stored; every value has its type, since the text may be from somebody else.

        Raises:
            ValueError: if the text is not JSON.
            TypeError: if it is not an object, or a value is missing, unknown or of another type.
        """
        recipe = cls(**parse_json_object(text))
        _require_types(recipe, "backbone", str)
        _require_types(recipe, "weights layer pool parent", str, type(None))
        _require_types(recipe, "random_init", bool)
        _require_types(recipe, "seed", int)
        for values in (recipe.args, recipe.preprocess):
            _require_scalars(values)
        return recipe


@dataclass(frozen=True)
class Space:
    """Every fact that changes the numbers of a vector.

    Attributes:
        family: the library that builds the network.
        architecture: its name, without a pre-trained tag: the same weights from another source are the same space.
        weights: ``sha256:…`` over the loaded parameters and buffers, ``random:sha256:…`` for random ones.
        preprocess: the preprocessing of images, the network's own with the user's overrides; None for other inputs and
            for precomputed vectors.
        dim: length of a vector.
        unit: vectors are scaled to length 1 before they are stored.
        layer: where the features are taken, e.g. ``pooled`` or ``projection``.
        pool: how they are pooled, e.g. ``avg``; "" if the layer has its own pooling.
        args: keyword arguments of the constructor.
        activation: ``quick_gelu`` if the architecture is built with it, else "".
        parent: key of the space from which fine-tuning started, or None.
        text: texts can be mapped into this space.
        input: what a network of texts or sound reads; None for images and for precomputed vectors.
        origin: where the weights came from; not part of the key.
        licence: the license of the weights; not part of the key.
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
    input: SequenceInput | None = None
    origin: str = field(default="", compare=False)
    licence: str = field(default="", compare=False)

    @cached_property
    def key(self) -> str:
        """The digest of everything that changes the numbers: 16 hexadecimal digits."""
        facts = self._facts()
        for name in ("origin", "licence", "text"):
            del facts[name]
        return hashlib.sha256(_canonical(facts).encode()).hexdigest()[:16]

    @property
    def modality(self) -> Modality:
        """What the space embeds; precomputed vectors belong to images unless they say otherwise."""
        return Modality.IMAGE if self.input is None else self.input.modality

    @property
    def has_random_weights(self) -> bool:
        """The weights are random: vectors have no learned meaning."""
        return self.weights.startswith(RANDOM_PREFIX)

    def has_same_vectors(self, other: Space) -> bool:
        """Return whether both spaces have the same vectors: they differ at most in their parent and their origin."""

        def bare(space: Space) -> Space:
            return replace(space, parent=None, weights=space.weights.removeprefix(RANDOM_PREFIX))

        return bare(self).key == bare(other).key

    def __hash__(self) -> int:
        return hash(self.key)

    def to_json(self) -> str:
        """Return canonical JSON."""
        return _canonical(self._facts())

    def _facts(self) -> dict[str, Any]:
        """Return plain values; of later facts only those that there are, so that other keys stay as they were."""
        facts = asdict(self)
        if self.input is None:
            del facts["input"]
        else:
            facts["input"] = input_facts(self.input)
        if facts["preprocess"] is not None and not facts["preprocess"]["decoding"]:
            del facts["preprocess"]["decoding"]
        return facts

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Return what :meth:`to_json` stored; every value has its type, since the text may be from somebody else.

        Raises:
            ValueError: if the text is not JSON, or a value is out of its bounds.
            KeyError: if a value is missing.
            TypeError: if it is not an object, or a value is unknown or of another type.
        """
        d = parse_json_object(text)
        p = d["preprocess"]
        try:
            preprocess = None if p is None else Preprocess.from_json(p)
        except (IndexError, AttributeError, OverflowError) as e:
            raise ValueError(f"its preprocessing is {p!r:.80}") from e
        sequence = parse_input(d["input"]) if "input" in d else None
        space = cls(**{**d, "family": Family(d["family"]), "preprocess": preprocess, "input": sequence})
        _require_types(space, "architecture weights layer pool activation origin licence", str)
        _require_types(space, "parent", str, type(None))
        _require_types(space, "dim", int)
        _require_types(space, "unit text", bool)
        _require_scalars(space.args)
        if not 0 < space.dim <= MAX_DIM:
            raise ValueError(f"vectors of {space.dim} values")
        return space


def override_preprocess(preprocess: Preprocess, overrides: dict[str, JsonScalar]) -> Preprocess:
    """Return the model's own preprocessing with the user's overrides.

    Args:
        preprocess: the model's own preprocessing.
        overrides: any of ``size``, ``resize`` (pixels), ``crop_pct``, ``mean``, ``std`` (one number, or three separated
            by commas), ``mode``, ``interpolation``, ``fill``. ``size`` alone keeps the ratio of resize to size. Names
            with a dot are settings of decoders, ``FORMAT.OPTION``.

    Raises:
        ValueError: when a name is unknown or a value does not parse.
    """
    decoding = decoding_overrides(overrides)
    overrides = {name: value for name, value in overrides.items() if "." not in name}
    if unknown := sorted(set(overrides) - {"size", "crop_pct", *_PREPROCESS_PARSERS}):
        names = sorted({"size", "crop_pct", *_PREPROCESS_PARSERS})
        raise ValueError(f"unknown preprocessing {', '.join(unknown)}; use {', '.join(names)}")
    out = replace(preprocess, decoding=tuple(sorted((dict(preprocess.decoding) | decoding).items())))
    if "size" in overrides:
        h, w = _pair(overrides["size"])
        scale = preprocess.resize[0] / preprocess.size[0]
        out = replace(out, size=(h, w), resize=(int(h * scale), int(w * scale)))
    if "crop_pct" in overrides:
        pct = float(str(overrides["crop_pct"]))
        if not 0 < pct <= 1:
            raise ValueError(f"crop_pct must be in (0, 1], not {pct}")
        out = replace(out, resize=(int(out.size[0] / pct), int(out.size[1] / pct)))
    parsed = {name: parse(overrides[name]) for name, parse in _PREPROCESS_PARSERS.items() if name in overrides}
    return replace(out, **parsed)


def decoding_overrides(overrides: Mapping[str, JsonScalar]) -> dict[str, str]:
    """Return the settings of decoders among overrides of the preprocessing: those whose names have a dot."""
    return {name.lower(): str(value) for name, value in overrides.items() if "." in name}


def _settings(value: Any) -> tuple[tuple[str, str], ...]:
    """Return stored settings of decoders; they may be from somebody else."""
    settings = tuple(tuple(pair) for pair in value)
    if not all(len(pair) == 2 and all(type(part) is str for part in pair) for pair in settings):
        raise ValueError(f"settings of decoders {value!r:.80}")
    return tuple((name, setting) for name, setting in settings)


def _numbers(value: Any) -> list[float]:
    """Return the numbers of a scalar, a sequence or a string with commas."""
    if isinstance(value, list | tuple):
        return [float(v) for v in value]
    return [float(v) for v in str(value).strip("()[] ").split(",")]


def _triple(value: Any) -> ChannelValues:
    """Return three numbers; a single number is repeated."""
    v = _numbers(value)
    if len(v) not in (1, 3):
        raise ValueError(f"expected one number or three, not {value!r}")
    return (v[0], v[0], v[0]) if len(v) == 1 else (v[0], v[1], v[2])


def _pair(value: Any) -> tuple[int, int]:
    """Return ``(height, width)``; a single number is both."""
    v = [int(x) for x in _numbers(str(value).lower().replace("x", ",") if isinstance(value, str) else value)]
    if len(v) not in (1, 2) or min(v) < 1:
        raise ValueError(f"expected a positive size such as 224 or 224x224, not {value!r}")
    return (v[0], v[-1])


_PREPROCESS_PARSERS: dict[str, Callable[[Any], Any]] = {
    "resize": _pair,
    "mean": _triple,
    "std": _triple,
    "mode": lambda value: ResizeMode(str(value)),
    "interpolation": lambda value: Interpolation(str(value)),
    "fill": lambda value: int(str(value)),
}


def _require_types(value: object, names: str, *kinds: type) -> None:
    """Require that attributes have one of some types; a bool is no number."""
    for name in names.split():
        if type(getattr(value, name)) not in kinds:
            raise TypeError(f"{name} is {getattr(value, name)!r:.40}")


def _require_scalars(values: object) -> None:
    """Require a table of plain values by name."""
    if type(values) is not dict or not all(type(v) in _SCALARS for v in values.values()):
        raise TypeError(f"{values!r:.40} are not plain values by name")


def _canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
