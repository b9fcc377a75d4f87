"""What fine-tuning gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.classify.evaluation.compare_spaces import SpaceComparison
from embedstore.finetuning.settings import FinetuneSettings
from embedstore.pipeline.report import EmbedReport


@dataclass(frozen=True)
class Tuned:
    """A tuned space.

    Attributes:
        name, key: of the new space. parent: name of the old one. label: what was learned.
        folder: the checkpoint: weights, head, curves, contact sheet. settings: of the run.
        facts: what ``checkpoint.json`` says of the run: history, best epoch, mixture, counts, seconds.
        same: the weights were not changed: the new space gives the vectors of its parent.
        embedded: what re-embedding did, None where it was not asked for. versus: old and new side by side.
        known: the same run had been done before; nothing was trained.
        beside: this process trained beside the first one, which embeds, compares and reports.
    """

    name: str
    key: str
    parent: str
    label: str
    folder: Path
    settings: FinetuneSettings
    facts: dict[str, Any]
    same: bool
    embedded: EmbedReport | None = None
    versus: SpaceComparison | None = None
    known: bool = False
    beside: bool = False

    @property
    def notes(self) -> list[str]:
        """What a person must know beside the figures, one sentence each."""
        out, history = [], self.facts["history"]
        if self.known:
            out.append("this run had been done before: nothing was trained again")
        if self.same:
            out.append(f"the weights are those of {self.parent}: the vectors of {self.name} equal its vectors")
        if history["stopped"]:
            out.append(f"stopped: {history['stopped']}; epoch {history['best']} was kept")
        if history["micro"] < min(self.settings.batch, self.facts["train"]):
            out.append(f"gradients were accumulated over parts of {history['micro']} images")
        if self.facts["refitted"]:
            out.append(
                f"after validation had chosen epoch {self.facts['epoch']}, the network was trained once more on all "
                f"{self.facts['refitted']} images up to it"
            )
        if self.facts["unread"]:
            out.append(f"{self.facts['unread']} images are gone or have changed since they were embedded: left out")
        first, best = history["epochs"][0]["val"], self.facts["val_score"]
        if first["accuracy"] > best["accuracy"]:
            out.append(
                f"on validation the old network has {first['accuracy']:.3f}, the tuned one {best['accuracy']:.3f}: it "
                "did not help, or the old network met these images in its own training; the held-out items decide"
            )
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "space": self.name,
            "key": self.key,
            "parent": self.parent,
            "label": self.label,
            "folder": str(self.folder),
            "same_vectors": self.same,
            "known": self.known,
            "notes": self.notes,
            **self.facts,
            "embedded": self.embedded and self.embedded.to_json(),
            "comparison": self.versus and self.versus.to_json(),
        }
