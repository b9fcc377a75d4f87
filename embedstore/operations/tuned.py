"""What fine-tuning gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.classify.evaluation.compare_spaces import SpaceComparison
from embedstore.finetuning.settings import FinetuneSettings
from embedstore.pipeline.report import EmbedReport


@dataclass(frozen=True)
class FinetuneResult:
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

    space: str
    key: str
    parent_space: str
    label: str
    checkpoint_folder: Path
    settings: FinetuneSettings
    metadata: dict[str, Any]
    has_same_vectors: bool
    embed_report: EmbedReport | None = None
    comparison: SpaceComparison | None = None
    already_trained: bool = False
    is_helper_process: bool = False

    @property
    def notes(self) -> list[str]:
        """What a person must know beside the figures, one sentence each."""
        out, history = [], self.metadata["history"]
        if self.already_trained:
            out.append("this run had been done before: nothing was trained again")
        if self.has_same_vectors:
            out.append(f"the weights are those of {self.parent_space}: the vectors of {self.space} equal its vectors")
        if history["stopped"]:
            out.append(f"stopped: {history['stopped']}; epoch {history['best']} was kept")
        if history["micro"] < min(self.settings.batch_size, self.metadata["train"]):
            out.append(f"gradients were accumulated over parts of {history['micro']} images")
        if self.metadata["refitted"]:
            out.append(
                f"after validation had chosen epoch {self.metadata['epoch']}, the network was trained once more on all "
                f"{self.metadata['refitted']} images up to it"
            )
        if self.metadata["unread"]:
            out.append(f"{self.metadata['unread']} images are gone or have changed since they were embedded: left out")
        first, best = history["epochs"][0]["val"], self.metadata["val_score"]
        if first["accuracy"] > best["accuracy"]:
            out.append(
                f"on validation the old network has {first['accuracy']:.3f}, the tuned one {best['accuracy']:.3f}: it "
                "did not help, or the old network met these images in its own training; the held-out items decide"
            )
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "space": self.space,
            "key": self.key,
            "parent": self.parent_space,
            "label": self.label,
            "folder": str(self.checkpoint_folder),
            "same_vectors": self.has_same_vectors,
            "known": self.already_trained,
            "notes": self.notes,
            **self.metadata,
            "embedded": self.embed_report and self.embed_report.to_json(),
            "comparison": self.comparison and self.comparison.to_json(),
        }
