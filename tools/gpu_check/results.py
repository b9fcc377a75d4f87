"""The results of the steps, as one table in Markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class StepResult:
    """What one step found.

    Attributes:
        name: the step.
        verdict: ``ok``, ``FAILED``, or ``skipped``.
        finding: one sentence with the figures.
    """

    name: str
    verdict: str
    finding: str


@dataclass(frozen=True)
class Throughput:
    """The speed of one network with random weights, in images per second.

    Attributes:
        network: its name.
        precision: of the forward passes.
        whole: from files to committed rows.
        network_alone: the network on images that are in memory.
        decode_alone: decoding and resizing on all threads.
        bottleneck: what limited the whole run, by its own report.
    """

    network: str
    precision: str
    whole: float
    network_alone: float
    decode_alone: float
    bottleneck: str

    @property
    def share(self) -> float:
        """The whole run as a share of what the slower of decoding and network allows."""
        return self.whole / min(self.network_alone, self.decode_alone)


@dataclass(frozen=True)
class Report:
    """All results on one device.

    Attributes:
        device: the name of the card, and what it runs with.
        steps: in the order in which they ran.
        throughput: one entry per network.
    """

    device: str
    steps: list[StepResult]
    throughput: list[Throughput]

    @property
    def has_failed(self) -> bool:
        """At least one step failed."""
        return any(step.verdict == "FAILED" for step in self.steps)

    def markdown(self) -> str:
        """Return both tables."""
        lines = [f"### {self.device}", "", "| step | verdict | finding |", "| --- | --- | --- |"]
        lines += [f"| {s.name} | {s.verdict} | {s.finding} |" for s in self.steps]
        lines += ["", "Images per second, random weights:", ""]
        lines += ["| network | precision | files to rows | network alone | decoding alone | share | limited by |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        lines += [
            f"| {t.network} | {t.precision} | {t.whole:,.0f} | {t.network_alone:,.0f} | {t.decode_alone:,.0f} "
            f"| {t.share:.2f} | {t.bottleneck.partition(':')[0]} |"
            for t in self.throughput
        ]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Write ``gpu_check.md`` and ``gpu_check.json`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu_check.md").write_text(self.markdown(), encoding="utf-8")
        values = asdict(self) | {"throughput": [asdict(t) | {"share": t.share} for t in self.throughput]}
        (folder / "gpu_check.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
