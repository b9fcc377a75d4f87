"""The report of an embedding run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embedstore.backbones.runtimes.runtime import Agreement
from embedstore.modality import Modality
from embedstore.pipeline.commit import CommitTotals
from embedstore.pipeline.encoder import RunEncoder
from embedstore.pipeline.plan import PlanCounts
from embedstore.pipeline.stage_times import StageTimes
from embedstore.sources.skip_rules import skipped_summary
from embedstore.tables import OneRow
from embedstore.wording import counted, per_second

# The keys of the stored reports (table ``runs``) that differ from the attributes.
_JSON_KEYS = {
    "scanned": "found",
    "failures_by_reason": "failed",
    "folded_batchnorms": "folded",
    "runtime_agreement": "agreement",
    "decoder_agreement": "parity",
    "stage_times": "stages",
}
_AGREEMENTS = ("precision_agreement", "runtime_agreement", "decoder_agreement")


@dataclass(frozen=True)
class EmbedReport(OneRow):
    """What a run did; every scanned file is in exactly one of the next five counts.

    Attributes:
        scanned: files that the source contains; rows, of a table whose rows hold the items.
        embedded: files whose content got a new vector.
        reused: files whose content had a vector already.
        unchanged: files that were not read, because size and mtime are as before.
        failures_by_reason: files that failed in this run.
        known_failures: files that failed before and have not changed since; they were not tried again.
        renamed: files among the above that are known items under a new name.
        missing: items whose file does not exist any more.
        skipped: files and folders that the scan left out: litter, hidden names, files of other kinds, exclusions.
        skipped_by_kind: how many of each kind.
        commits: how many commits were made.
        seconds: wall time of the run.
        images_per_second: files read per second of the embedding stages, of whatever modality.
        device: where the backbone ran.
        precision: the precision of the backbone.
        precision_agreement: how closely its vectors agree with those in fp32 on this run's images; None for fp32.
        batch_size: items in one batch at the end of the run.
        runtime: the runtime of the backbone.
        folded_batchnorms: batch normalizations that were folded into convolutions.
        runtime_agreement: how closely the runtime's vectors agree with the eager network's on this run's images; None
            for eager.
        decoder: what turned ordinary files into pixels; ``text`` and ``audio`` for other modalities.
        decoder_agreement: how closely its vectors agree with those by Pillow on this run's images; None for Pillow.
        stage_times: where the time went, see :class:`~embedstore.pipeline.stage_times.StageTimes`.
        bottleneck: one line that says which stage limits the speed.
        space: the space's name.
        notices: what a person should know, one sentence each.
        unit: what is scanned, ``file`` or ``row``.
    """

    scanned: int = 0
    embedded: int = 0
    reused: int = 0
    unchanged: int = 0
    failures_by_reason: dict[str, int] = field(default_factory=dict)
    known_failures: int = 0
    renamed: int = 0
    missing: int = 0
    skipped: int = 0
    skipped_by_kind: dict[str, int] = field(default_factory=dict)
    commits: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    device: str = ""
    precision: str = ""
    precision_agreement: Agreement | None = None
    batch_size: int = 0
    runtime: str = ""
    folded_batchnorms: int = 0
    runtime_agreement: Agreement | None = None
    decoder: str = ""
    decoder_agreement: Agreement | None = None
    stage_times: dict[str, Any] = field(default_factory=dict)
    bottleneck: str = ""
    space: str = ""
    notices: list[str] = field(default_factory=list)
    unit: str = "file"

    @property
    def failures(self) -> int:
        """The number of files that failed in this run."""
        return sum(self.failures_by_reason.values())

    @property
    def failed_entirely(self) -> bool:
        """Whether every file of the source failed, now or in an earlier run."""
        return self.failures + self.known_failures > 0 and not (self.embedded or self.reused or self.unchanged)

    @property
    def _unit(self) -> str:
        """What a person calls the items."""
        return Modality(self.decoder).plural if self.decoder in tuple(Modality) else Modality.IMAGE.plural

    def summary(self) -> str:
        """Return one line for a person."""
        parts = [f"{self.embedded:,} embedded"]
        optional = (
            (self.reused, "with known content"),
            (self.unchanged, "unchanged"),
            (self.renamed, "renamed"),
            (self.missing, "missing now"),
            (self.known_failures, "failed before"),
        )
        parts += [f"{n:,} {what}" for n, what in optional if n]
        if self.failures:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(self.failures_by_reason.items()))
            parts.append(f"{self.failures:,} failed ({reasons})")
        if self.skipped_by_kind:
            parts.append(skipped_summary(self.skipped_by_kind))
        rate = per_second(self.images_per_second, self._unit)
        speed = f", {rate} on {self.device} ({self.runtime})" if self.embedded else ""
        return f"{counted(self.scanned, self.unit)}: {', '.join(parts)} in {self.seconds:.1f} s{speed}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, under the keys of the table ``runs``."""
        agreements = {name: a.to_json() for name in _AGREEMENTS if (a := getattr(self, name)) is not None}
        values = {_JSON_KEYS.get(name, name): value for name, value in (asdict(self) | agreements).items()}
        return values | {"failures": self.failures}


@dataclass(frozen=True)
class EncodingResult:
    """What the stages read, decode and forward did.

    Attributes:
        encoder: what turned files into vectors.
        times: the times of the stages.
        batch_size: images per forward pass at the end.
        files: files that were read.
    """

    encoder: RunEncoder
    times: StageTimes
    batch_size: int
    files: int

    def facts(self) -> dict[str, Any]:
        """Return the attributes of the report."""
        return {
            "images_per_second": round(self.files / self.times.seconds, 1),
            "device": self.encoder.device,
            "batch_size": self.batch_size,
            "runtime": self.encoder.runtime,
            **encoder_facts(self.encoder.facts()),
            "stage_times": self.times.to_json(),
            "bottleneck": self.times.bottleneck(),
        }


def encoder_facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes of the report from the plain values that an encoder gives, maybe in another process."""
    agreements = {name: Agreement.from_json(values[name]) for name in _AGREEMENTS if values.get(name)}
    return {**values, **agreements}


def build_report(
    counts: PlanCounts, totals: CommitTotals, encoding: EncodingResult | None, **facts: Any
) -> EmbedReport:
    """Return the report of a run.

    Args:
        counts: the counts of the plan, by name.
        totals: the totals of the commits.
        encoding: None if no file had to be read.
        facts: the other attributes of the report.
    """
    return EmbedReport(
        scanned=counts.scanned,
        unit=counts.unit,
        unchanged=counts.unchanged,
        skipped=sum(counts.skipped.values()),
        skipped_by_kind=counts.skipped,
        known_failures=counts.known_failures,
        embedded=totals.embedded,
        reused=totals.reused,
        renamed=totals.renamed,
        failures_by_reason=dict(totals.failures),
        commits=totals.commits,
        **(encoding.facts() if encoding else {}),
        **facts,
    )
