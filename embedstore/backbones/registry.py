"""The shipped table of every pre-trained backbone: list them and resolve their names without importing torch.

``tools/backbone_facts.py`` writes ``registry.csv`` from timm and open_clip themselves; a test compares the two.
"""

from __future__ import annotations

import csv
import functools
import os
import re
from dataclasses import asdict, dataclass
from importlib.resources import files

from embedstore.backbones.error_text import join_names
from embedstore.backbones.hf_table import HF_FACTS
from embedstore.errors import UnknownBackbone, did_you_mean
from embedstore.versions import package_version

ALIASES = {
    "clip": "open_clip/ViT-B-32:laion2b_s34b_b79k",
    "dinov2": "timm/vit_small_patch14_dinov2.lvd142m",
    "minilm": "hf/sentence-transformers/all-MiniLM-L6-v2",
    "mobilenetv2": "timm/mobilenetv2_100.ra_in1k",
    "tiny": "embedstore/tiny",
    "vit": "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
LOCAL_DIR_PREFIX = "local-dir:"  # open_clip/local-dir:FOLDER
HF_PREFIX = "hf/"  # hf/REPOSITORY of the hub, or hf/FOLDER
HF_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
FACTORY_PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # module:factory, dots in the module


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """What is known of a backbone before anything is downloaded.

    Attributes:
        name: the name that :func:`embedstore.backbones.load` accepts.
        family: the module of timm that builds it, or ``clip``, ``siglip``, ``coca``.
        parameters: number of parameters of the embedding network, of both towers of a CLIP; 0 if building it needs a
            network connection.
        dim: length of its vectors.
        input_size: ``HxW`` pixels; of texts and sound how much is read at once.
        licence: the license of the weights, as the library states it, or "".
        supports_text: its space can be searched with texts.
    """

    name: str
    family: str
    parameters: int
    dim: int
    input_size: str
    licence: str
    supports_text: bool

    def to_json(self) -> dict[str, str | int | bool]:
        """Return plain values; the key of ``supports_text`` is ``text``, as in ``registry.csv``."""
        values = asdict(self)
        return {**{k: v for k, v in values.items() if k != "supports_text"}, "text": self.supports_text}


# Shipped in the package.
BUNDLED_INFO = BackboneInfo("embedstore/tiny", "clip", 2346329, 256, "64x64", "Apache-2.0", supports_text=True)


def list_backbones(words: str = "") -> list[BackboneInfo]:
    """Return the shipped entries: backbones with pre-trained weights and architectures without.

    Args:
        words: words that must all occur in name or family; case does not matter.
    """
    terms = words.lower().split()
    return [b for b in load_table().backbones if all(t in f"{b.name} {b.family}".lower() for t in terms)]


def weights_licence(name: str) -> str:
    """Return the license of a tag's weights, as the library states it, or ""."""
    return next((b.licence for b in load_table().backbones if b.name == name), "")


def resolve_name(name: str) -> str:
    """Return the full name of a backbone for an alias, a bare timm or open_clip name, or another spelling.

    ``resnet50`` is ``timm/resnet50.<default tag>``. The folder of ``open_clip/local-dir:…`` and ``hf/…`` becomes
    absolute, so that a store finds it from anywhere; ``module:factory`` is returned unchanged.

    Raises:
        UnknownBackbone: when there is nothing of that name; the error lists near names.
    """
    table, name = load_table(), name.strip()
    if full_name := ALIASES.get(name.lower()):
        return full_name
    if name.lower() == BUNDLED_INFO.name:
        return BUNDLED_INFO.name
    library, _, body = name.partition("/")
    if library == "open_clip" and body.startswith(LOCAL_DIR_PREFIX):
        return f"open_clip/{LOCAL_DIR_PREFIX}{_absolute(body.removeprefix(LOCAL_DIR_PREFIX))}"
    if name.startswith(HF_PREFIX):
        return f"{HF_PREFIX}{_hf_name(body)}"
    if library == "timm":
        return table.timm_name(body) or _name_of_other_version(name, "timm")
    if library == "open_clip":
        return table.open_clip_name(body) or _name_of_other_version(name, "open_clip_torch")
    if full_name := table.timm_name(name) or table.open_clip_name(name):
        return full_name
    if FACTORY_PATTERN.fullmatch(name):
        return name
    raise _unknown_error(name)


def _absolute(folder: str) -> str:
    """Return the absolute path of a folder, without following links."""
    return os.path.abspath(os.path.expanduser(folder))  # noqa: PTH100, PTH111 - as typed


def _hf_name(body: str) -> str:
    """Return the absolute path of a model's folder, or the name of a repository of the hub.

    Raises:
        UnknownBackbone: when it is neither.
    """
    folder = _absolute(body)
    if os.path.isdir(folder):  # noqa: PTH112
        return folder
    if not HF_REPOSITORY.fullmatch(body):
        raise UnknownBackbone(
            f"{HF_PREFIX}{body}: there is no folder {folder}, and a repository of the hub has the form OWNER/NAME"
        )
    return body


@dataclass(frozen=True)
class _Table:
    """The shipped table.

    Attributes:
        backbones: every row.
        names: the name by lower-case name.
        defaults: the default full name by lower-case timm architecture.
        versions: the version by package from which the table was generated.
    """

    backbones: tuple[BackboneInfo, ...]
    names: dict[str, str]
    defaults: dict[str, str]
    versions: dict[str, str]

    def timm_name(self, body: str) -> str:
        """Return the full name of ``<architecture>[.tag]``, or "" if it is not in the table."""
        name = f"timm/{body}".lower()
        return self.defaults.get(name, "") or self.names.get(name, "")

    def open_clip_name(self, body: str) -> str:
        """Return the full name of ``<architecture>[:tag]`` as open_clip spells it, or "" if it is not in the table."""
        architecture, colon, tag = body.partition(":")
        architecture = architecture.replace("/", "-").lower()  # open_clip accepts ViT-B/32 for ViT-B-32
        if colon:
            return self.names.get(f"open_clip/{architecture}:{tag.lower().replace('-', '_')}", "")
        bare = self.names.get(f"open_clip/{architecture}", "")
        tagged = next(iter(self._starting_with(f"open_clip/{architecture}:")), "")
        return bare or tagged.partition(":")[0]

    def tags(self, body: str) -> list[str]:
        """Return every tag of the architecture in ``body``."""
        separator = ":" if ":" in body else "."
        start = body.partition(separator)[0].lower().replace("/", "-") + separator
        names = [n for library in ("timm", "open_clip") for n in self._starting_with(f"{library}/{start}")]
        return [name.partition(separator)[2] for name in names]

    def _starting_with(self, start: str) -> list[str]:
        """Return the names that begin with a lower-case text."""
        return [name for lower, name in self.names.items() if lower.startswith(start)]

    def architectures(self) -> list[str]:
        """Return every architecture, without library and tag."""
        bare = (b.name.partition(":" if b.supports_text else ".")[0] for b in self.backbones)
        return list(dict.fromkeys(name.partition("/")[2] for name in bare))


@functools.cache
def load_table() -> _Table:
    """Read the shipped table, once."""
    text = files(__package__).joinpath("registry.csv").read_text(encoding="utf-8")
    heading, _, body = text.partition("\n")
    rows = list(csv.DictReader(body.splitlines()))
    backbones = (BUNDLED_INFO, *(read_row(row) for row in rows), *(BackboneInfo(*facts) for facts in HF_FACTS))
    defaults = {row["name"].partition(".")[0].lower(): row["name"] for row in rows if row["default"]}
    versions = dict(part.strip(" #").rsplit(" ", 1) for part in heading.split(","))
    return _Table(backbones, {b.name.lower(): b.name for b in backbones}, defaults, versions)


def read_row(row: dict[str, str]) -> BackboneInfo:
    """Return the backbone of one row of ``registry.csv``."""
    return BackboneInfo(
        name=row["name"],
        family=row["family"],
        parameters=int(row["parameters"] or 0),
        dim=int(row["dim"]),
        input_size=row["input_size"],
        licence=row["licence"],
        supports_text=bool(row["text"]),
    )


def _name_of_other_version(name: str, package: str) -> str:
    """Return a name that another version of the library may know: the library decides when it loads.

    Raises:
        UnknownBackbone: when the installed version is the one from which the table was generated.
    """
    if package_version(package) in ("", load_table().versions.get(package)):
        raise _unknown_error(name)
    return name


def _unknown_error(name: str) -> UnknownBackbone:
    """Return the error for a name: it lists the tags of its architecture, or near architectures."""
    body = name.partition("/")[2] if name.startswith(("timm/", "open_clip/")) else name
    table = load_table()
    if tags := table.tags(body):
        return UnknownBackbone(f"{name} is not a known pre-trained tag; its tags are {join_names(tags)}")
    hint = did_you_mean(body.partition(":")[0].partition(".")[0], table.architectures())
    return UnknownBackbone(f"unknown backbone {name!r}{hint}; `embedstore backbones [FILTER]` lists them")
