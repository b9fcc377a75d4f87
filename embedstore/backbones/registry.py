"""Shipped facts on every pre-trained backbone: found, listed and spelt right without importing torch.

``registry.csv`` is written by ``tools/backbone_facts.py`` from timm and open_clip themselves; a test compares the two.
"""

from __future__ import annotations

import csv
import functools
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from embedstore.backbones.error_text import join_names
from embedstore.errors import UnknownBackbone, did_you_mean

ALIASES = {
    "clip": "open_clip/ViT-B-32:laion2b_s34b_b79k",
    "dinov2": "timm/vit_small_patch14_dinov2.lvd142m",
    "mobilenetv2": "timm/mobilenetv2_100.ra_in1k",
    "tiny": "embedstore/tiny",
    "vit": "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
LOCAL_DIR_PREFIX = "open_clip/local-dir:"
FACTORY_PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # module:factory, dots in the module


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """What is known of a backbone before anything is downloaded.

    Attributes:
        name: as :func:`embedstore.backbones.load` takes it.
        family: the module of timm that builds it, or ``clip``, ``siglip``, ``coca``.
        parameters: of the embedding network, both towers of a CLIP; 0 where building it needs a network connection.
        dim: length of its vectors. input_size: ``HxW`` pixels.
        licence: of the weights, as the library states it, or "".
        text: words can be searched in its space.
    """

    name: str
    family: str
    parameters: int
    dim: int
    input_size: str
    licence: str
    text: bool


BUNDLED_INFO = BackboneInfo(
    "embedstore/tiny", "clip", 2346329, 256, "64x64", "Apache-2.0", text=True
)  # shipped in the package


def list_backbones(words: str = "") -> list[BackboneInfo]:
    """The shipped facts on backbones that have pre-trained weights, or are known by name alone.

    Args:
        words: that must all occur in name or family; case does not matter.
    """
    wanted = words.lower().split()
    return [f for f in _table().facts if all(w in f"{f.name} {f.family}".lower() for w in wanted)]


def weights_licence(name: str) -> str:
    """The licence of a tag's weights, as the library states it, or ""."""
    return next((f.licence for f in _table().facts if f.name == name), "")


def resolve_name(name: str) -> str:
    """The full name of a backbone: an alias, a bare timm or open_clip name, or a full name spelt right.

    ``resnet50`` is ``timm/resnet50.<default tag>``. The folder of ``open_clip/local-dir:…`` becomes absolute, so that
    a store finds it from anywhere; ``module:factory`` is returned as it is.

    Raises:
        UnknownBackbone: nothing of that name; lists near ones.
    """
    known, given = _table(), name.strip()
    if full := ALIASES.get(given.lower()):
        return full
    if given.lower() == BUNDLED_INFO.name:
        return BUNDLED_INFO.name
    if given.startswith(LOCAL_DIR_PREFIX):
        return LOCAL_DIR_PREFIX + os.path.abspath(os.path.expanduser(given.removeprefix(LOCAL_DIR_PREFIX)))  # noqa: PTH100, PTH111 - no links
    prefix, _, body = given.partition("/")
    if prefix == "timm":
        return known.timm(body) or _not_shipped(given, "timm")
    if prefix == "open_clip":
        return known.open_clip(body) or _not_shipped(given, "open_clip_torch")
    if full := known.timm(given) or known.open_clip(given):
        return full
    if FACTORY_PATTERN.fullmatch(given):
        return given
    raise _unknown(given)


@dataclass(frozen=True)
class _Table:
    """The shipped table and its two ways in."""

    facts: tuple[BackboneInfo, ...]
    names: dict[str, str]  # lower-case name -> name
    defaults: dict[str, str]  # lower-case timm architecture -> its default full name
    versions: dict[str, str]

    def timm(self, body: str) -> str:
        """The full name of ``<architecture>[.tag]``, "" if it is not in the table."""
        name = f"timm/{body}".lower()
        return self.defaults.get(name, "") or self.names.get(name, "")

    def open_clip(self, body: str) -> str:
        """The full name of ``<architecture>[:tag]``, as open_clip spells it, "" if it is not in the table."""
        architecture, colon, tag = body.partition(":")
        architecture = architecture.replace("/", "-").lower()  # open_clip takes ViT-B/32 for ViT-B-32
        if colon:
            return self.names.get(f"open_clip/{architecture}:{tag.lower().replace('-', '_')}", "")
        bare = self.names.get(f"open_clip/{architecture}", "")
        tagged = (full for low, full in self.names.items() if low.startswith(f"open_clip/{architecture}:"))
        return bare or next(tagged, "").partition(":")[0]

    def tags(self, body: str) -> list[str]:
        """Every tag of the architecture in ``body``."""
        cut = ":" if ":" in body else "."
        start = body.partition(cut)[0].lower().replace("/", "-") + cut
        lows = (f"{library}/{start}" for library in ("timm", "open_clip"))
        return [full.partition(cut)[2] for low in lows for full in self._starting(low)]

    def _starting(self, start: str) -> list[str]:
        return [full for low, full in self.names.items() if low.startswith(start)]

    def architectures(self) -> dict[str, str]:
        """Every architecture without library and tag -> with its library."""
        bare = (f.name.partition(":")[0] if f.text else f.name.partition(".")[0] for f in self.facts)
        return {name.partition("/")[2]: name for name in bare}


@functools.cache
def _table() -> _Table:
    """The shipped table, read once."""
    text = files(__package__).joinpath("registry.csv").read_text(encoding="utf-8")
    head, _, body = text.partition("\n")
    rows = list(csv.DictReader(body.splitlines()))
    facts = (BUNDLED_INFO, *(_fact(row) for row in rows))
    defaults = {row["name"].partition(".")[0].lower(): row["name"] for row in rows if row["default"]}
    versions = dict(part.strip(" #").rsplit(" ", 1) for part in head.split(","))
    return _Table(facts, {f.name.lower(): f.name for f in facts}, defaults, versions)


def _fact(row: dict[str, str]) -> BackboneInfo:
    """One row of the table."""
    return BackboneInfo(
        name=row["name"],
        family=row["family"],
        parameters=int(row["parameters"] or 0),
        dim=int(row["dim"]),
        input_size=row["input_size"],
        licence=row["licence"],
        text=bool(row["text"]),
    )


def _not_shipped(name: str, package: str) -> str:
    """A name that another version of the library may know; the library itself is asked when it is loaded.

    Raises:
        UnknownBackbone: the table was made from the very version that is installed.
    """
    try:
        same = version(package) == _table().versions.get(package)
    except PackageNotFoundError:
        same = True
    if same:
        raise _unknown(name)
    return name


def _unknown(name: str) -> UnknownBackbone:
    """The error for a name: the tags of its architecture, or near architectures."""
    body = name.partition("/")[2] if name.startswith(("timm/", "open_clip/")) else name
    if tags := _table().tags(body):
        return UnknownBackbone(f"{name} is not a known pre-trained tag; its tags are {join_names(tags)}")
    architectures = _table().architectures()
    hint = did_you_mean(body.partition(":")[0].partition(".")[0], architectures)
    return UnknownBackbone(f"unknown backbone {name!r}{hint}; `embedstore backbones [FILTER]` lists them")
