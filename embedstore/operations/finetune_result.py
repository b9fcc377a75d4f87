"""The result of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.classify.evaluation.compare_spaces import SpaceComparison
from embedstore.finetuning.settings import FinetuneSettings
from embedstore.pipeline.report import EmbedReport


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned space.

    Attributes:
        space: name of the new space.
        key: key of the new space.
        parent_space: name of the space that it was tuned from.
        label: the column that was learned.
        checkpoint_folder: weights, head, training curves and a sheet of augmented images.
        settings: the settings of the run.
        metadata: what ``checkpoint.json`` records: history, best epoch, mixture, counts, seconds.
        has_same_vectors: whether the weights did not change, so that the vectors equal the parent's.
        embed_report: the result of embedding into the new space, None if that was not requested.
        comparison: both spaces compared on the same held-out items, None if nothing was embedded.
        already_trained: whether the same run had been done before, so that nothing was trained.
        is_helper_process: whether this process trained next to the first one, which embeds, compares and reports.
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
        """Return one sentence per fact that the figures do not show."""
        out, history = [], self.metadata["history"]
        if self.already_trained:
            out.append("the same run was done before: nothing was trained again")
        if self.has_same_vectors:
            out.append(f"the weights are those of {self.parent_space}: the vectors of {self.space} equal its vectors")
        if history["stopped"]:
            out.append(f"stopped: {history['stopped']}; epoch {history['best']} was kept")
        if history["micro"] < min(self.settings.batch, self.metadata["train"]):
            out.append(f"gradients were accumulated over parts of {history['micro']} images")
        if self.metadata["refitted"]:
            out.append(
                f"after validation had chosen epoch {self.metadata['epoch']}, the network was trained once more on all "
                f"{self.metadata['refitted']} images up to it"
            )
        if self.metadata["unread"]:
            out.append(
                f"{self.metadata['unread']} images were left out: their files are gone or have changed since they were "
                "embedded"
            )
        first, best = history["epochs"][0]["val"], self.metadata["val_score"]
        if first["accuracy"] > best["accuracy"]:
            out.append(
                f"on validation the old network has {first['accuracy']:.3f}, the tuned one {best['accuracy']:.3f}: it "
                "did not help, or the old network met these images in its own training; the held-out items decide"
            )
        return out

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
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
