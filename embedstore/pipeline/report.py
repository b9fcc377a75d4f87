"""What a run says of itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class EmbedReport:
    """What a run did; every file found is in exactly one of the first five counts.

    Attributes:
        embedded: files whose content got a new vector. reused: files whose content had one already.
        unchanged: not even read: size and mtime as before. failed: by reason, in this run.
        known_failures: failed before, unchanged since, not tried again.
        renamed: of the above, recognised under a new name. missing: items whose file is no longer there.
        found: files. seconds: wall time. images_per_second: files read per second of the embedding stage.
        runtime: that the backbone ran in. folded: batch normalisations that were folded into it.
        agreement: its least cosine to eager on this run's own images.
        decoder: what made pixels of ordinary files. parity: its least cosine to Pillow, likewise, where it is another.
        stages: where the time went, see :class:`~embedstore.pipeline.stage_times.Spent`. bottleneck: what that says.
    """

    found: int = 0
    embedded: int = 0
    reused: int = 0
    unchanged: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    known_failures: int = 0
    renamed: int = 0
    missing: int = 0
    skipped: int = 0
    commits: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    device: str = ""
    precision: str = ""
    batch_size: int = 0
    runtime: str = ""
    folded: int = 0
    agreement: dict[str, float] | None = None
    decoder: str = ""
    parity: dict[str, float] | None = None
    stages: dict[str, Any] = field(default_factory=dict)
    bottleneck: str = ""
    space: str = ""
    notices: list[str] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """How many files failed in this run."""
        return sum(self.failed.values())

    def summary(self) -> str:
        """One line for a person."""
        parts = [f"{self.embedded:,} embedded"]
        optional = (
            (self.reused, "with known content"),
            (self.unchanged, "unchanged"),
            (self.renamed, "renamed"),
            (self.missing, "missing now"),
            (self.known_failures, "failed before"),
        )
        parts += [f"{n:,} {what}" for n, what in optional if n]
        if self.failed:
            parts.append(f"{self.failures:,} failed ({', '.join(f'{n} {r}' for r, n in sorted(self.failed.items()))})")
        speed = f", {self.images_per_second:,.0f} images/s on {self.device} ({self.runtime})" if self.embedded else ""
        return f"{self.found:,} files: {', '.join(parts)} in {self.seconds:.1f} s{speed}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"failures": self.failures}
