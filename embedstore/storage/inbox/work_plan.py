"""The plan of an embedding run in parts: what a worker needs to know, in files that it reads without the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from embedstore.errors import BadBackbone, StoreDamaged
from embedstore.space import Recipe, Space
from embedstore.storage.shard import DTYPES
from embedstore.storage.spaces import RecipeSpace

FORMAT = 1
MAX_PART_FILES = 1 << 16  # of one part: a worker and the writer hold the vectors of one part in memory
MAX_PARTS = 10_000_000
_UNITS = ("file", "row", "item")  # what a scan finds, as the sources call it


@dataclass(frozen=True)
class PlannedPart:
    """One part of a plan.

    Attributes:
        files: how many files it has.
        xxh3: the XXH3-128 of its list.
    """

    files: int
    xxh3: str


@dataclass(frozen=True)
class PlannedSource:
    """What the plan's source said.

    Attributes:
        description: one line.
        overrides_metadata: whether its label, split and group replace those that the store holds.
        covers: whether items that it did not find are gone.
        columns: the names of the user's own columns.
    """

    description: str
    overrides_metadata: bool
    covers: bool
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkPlan:
    """A plan of parts.

    Attributes:
        id: unique, 32 hexadecimal digits.
        space: the space that is filled; its recipe says how to load the backbone.
        source: what was planned.
        parts: the parts; the first one has number 1.
        shared_files: the XXH3-128 of the other files of the plan, by name.
        counts: what the scan found.
        engine: ``plan-parts``, or the engine that made the plan and replaces it.
        created: ISO 8601, UTC.
    """

    id: str
    space: RecipeSpace
    source: PlannedSource
    parts: tuple[PlannedPart, ...]
    shared_files: Mapping[str, str]
    counts: Mapping[str, Any]
    engine: str = "plan-parts"
    created: str = ""

    @property
    def files(self) -> int:
        """How many files all parts have."""
        return sum(part.files for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, from which :func:`parse_plan` makes the plan again."""
        space = self.space
        return {
            "format": FORMAT,
            "plan": self.id,
            "created": self.created or datetime.now(UTC).isoformat(timespec="seconds"),
            "engine": self.engine,
            "space": {
                "name": space.name,
                "dtype": space.dtype,
                "facts": space.space.to_json(),
                "recipe": space.recipe.to_json(),
            },
            "source": asdict(self.source),
            "files": dict(self.shared_files),
            "counts": dict(self.counts),
            "parts": [[part.files, part.xxh3] for part in self.parts],
        }


def parse_plan(values: Mapping[str, Any], where: str, space_key: str) -> WorkPlan:
    """Return the plan that a file holds, whose values may be anybody's.

    Args:
        values: the JSON object.
        where: the file, for messages.
        space_key: the key of the space whose inbox the file is in.

    Raises:
        StoreDamaged: if a value is not one that embedstore writes.
    """
    try:
        return _parse(values, space_key)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, BadBackbone) as e:
        raise StoreDamaged(
            f"{where} is not a plan of parts ({type(e).__name__}: {e!s:.80}); "
            "run `embedstore plan-parts STORE SOURCE --replace`"
        ) from e


def _parse(values: Mapping[str, Any], space_key: str) -> WorkPlan:
    """Return the plan of JSON values; raise ValueError, KeyError or TypeError if they are not those of one."""
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']!r:.20}")
    given, source = values["space"], values["source"]
    space = Space.from_json(given["facts"])
    if space.key != space_key or given["dtype"] not in DTYPES:
        raise ValueError("it belongs to another space")
    parts = tuple(PlannedPart(_count(files, MAX_PART_FILES), _digest(xxh3)) for files, xxh3 in values["parts"])
    if not 0 < len(parts) <= MAX_PARTS:
        raise ValueError("it has no parts")
    record = RecipeSpace(
        _text(given["name"]), space, given["dtype"], False, datetime.now(UTC), Recipe.from_json(given["recipe"])
    )
    columns = tuple(_text(name) for name in source["columns"])
    return WorkPlan(
        id=_digest(values["plan"]),
        space=record,
        source=PlannedSource(
            _text(source["description"]), bool(source["overrides_metadata"]), bool(source["covers"]), columns
        ),
        parts=parts,
        shared_files={_text(name): _digest(xxh3) for name, xxh3 in values["files"].items()},
        counts=_counts(values["counts"]),
        engine=_text(values["engine"]),
        created=_text(values["created"]),
    )


def _count(value: Any, most: int) -> int:
    """Return a number of files."""
    if type(value) is not int or not 0 < value <= most:
        raise ValueError(f"a part of {value!r:.20} files")
    return value


def _counts(values: Any) -> dict[str, Any]:
    """Return the counts of a scan: numbers, numbers by kind, and what is counted, which the first plans do not say."""
    unit = _text(values.get("unit", "file"))
    if unit not in _UNITS:
        raise ValueError(f"{unit!r:.20} is nothing that a scan finds")
    for value in [value for name, value in values.items() if name != "unit"]:
        numbers = value.values() if isinstance(value, dict) else [value]
        if any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a count that is no number")
    return {**values, "unit": unit}


def _text(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value


def _digest(value: Any) -> str:
    """Return 32 hexadecimal digits."""
    if len(_text(value)) != 32 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{value!r:.40} is not a digest")
    return str(value)


def split_evenly(files: int, parts: int) -> Sequence[int]:
    """Return the sizes of the parts: they differ by one file at most, and no part is empty."""
    parts = min(parts, files)
    return [files // parts + (n < files % parts) for n in range(parts)]
