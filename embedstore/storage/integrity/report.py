"""What a verification finds, and the report assembled from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Self

from embedstore.wording import counted

REPAIR_CURE = "run `embedstore repair STORE`"


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        file: path relative to the store, or the uri of an image.
        location: the block, table or rows in the file; "" where the whole file is meant.
        problem: what is wrong with it.
        cure: what a person can do.
    """

    file: str
    location: str
    problem: str
    cure: str = REPAIR_CURE

    def __str__(self) -> str:
        place = f" ({self.location})" if self.location else ""
        return f"{self.file}{place}: {self.problem}; {self.cure}"

    def to_json(self) -> dict[str, str]:
        """Return plain values."""
        return {"file": self.file, "where": self.location, "what": self.problem, "cure": self.cure}


@dataclass(frozen=True)
class Unread:
    """A file that could not be read now: it was not compared, and may be whole.

    Attributes:
        file: path relative to the store.
        problem: why it could not be read, and what a person can do.
    """

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"

    def to_json(self) -> dict[str, str]:
        """Return plain values."""
        return {"file": self.file, "what": self.problem}


@dataclass(frozen=True)
class Checked:
    """How much was read and compared.

    Attributes:
        tables: tables of the catalog that could be read.
        rows: rows in them.
        shards: vector files.
        vectors: vectors in them.
        bytes: size of the vector files.
        sidecars: descriptions of indexes, checkpoints and heads.
        images: image files.
    """

    tables: int = 0
    rows: int = 0
    shards: int = 0
    vectors: int = 0
    bytes: int = 0
    sidecars: int = 0
    images: int = 0

    def __add__(self, other: Checked) -> Checked:
        return Checked(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class ChangedImage:
    """An image whose file was edited, moved or removed since it was embedded; this is no damage.

    Attributes:
        uri: the item's uri.
    """

    uri: str


Finding = Damage | Unread | Checked | ChangedImage


@dataclass(frozen=True, slots=True)
class CheckProgress:
    """The progress of a check.

    Attributes:
        unit: ``vectors`` (counted in bytes) or ``images``.
        done: how many were checked.
        total: how many there are.
    """

    unit: str
    done: int
    total: int


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        damage: everything that is wrong.
        notices: what was repaired when the store was opened, one sentence each.
        checked: how much was read.
        changed_images: uris of images that were edited or removed since they were embedded.
        unread: files that could not be read now, so that nothing is known about them.
    """

    damage: list[Damage]
    notices: list[str]
    checked: Checked
    changed_images: list[str]
    unread: list[Unread]

    @classmethod
    def from_findings(cls, findings: Iterable[Finding], notices: Sequence[str]) -> Self:
        """Assemble the findings of every check.

        Args:
            findings: what the checks yielded.
            notices: what was repaired when the store was opened.

        Returns:
            The report.
        """
        found = list(findings)
        return cls(
            damage=[f for f in found if isinstance(f, Damage)],
            notices=list(notices),
            checked=sum((f for f in found if isinstance(f, Checked)), Checked()),
            changed_images=[f.uri for f in found if isinstance(f, ChangedImage)],
            unread=[f for f in found if isinstance(f, Unread)],
        )

    @property
    def ok(self) -> bool:
        """True where everything was read and nothing is damaged."""
        return not self.damage and not self.unread

    def summary(self) -> str:
        """Return one line for a person."""
        c, changed = self.checked, len(self.changed_images)
        images = f", {counted(c.images, 'image')} ({changed:,} changed or gone)" if c.images else ""
        verdict = f"{len(self.damage)} damaged" if self.damage else "no damage"
        verdict += f", but {len(self.unread)} could not be read" if self.unread else ""
        return (
            f"{counted(c.tables, 'table')} with {counted(c.rows, 'row')}, {counted(c.shards, 'vector file')} with "
            f"{counted(c.vectors, 'vector')} "
            f"({c.bytes:,} bytes), {counted(c.sidecars, 'other file')}{images}: {verdict}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "ok": self.ok,
            "damage": [d.to_json() for d in self.damage],
            "unread": [u.to_json() for u in self.unread],
            "notices": self.notices,
            **asdict(self.checked),
            "changed_images": self.changed_images,
        }
