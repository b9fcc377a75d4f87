"""The result of fine-tuning: a new space, its checkpoint, and the comparison with its parent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.classify.evaluation.compare_spaces import SpaceComparison
from embedstore.finetuning.history import TrainingSummary
from embedstore.finetuning.settings import FinetuneSettings
from embedstore.pipeline.report import EmbedReport
from embedstore.storage.spaces import SpaceRecord
from embedstore.tables import OneRow


@dataclass(frozen=True)
class FinetuneResult(OneRow):
    """A fine-tuned space.

    Attributes:
        record: the new space.
        parent: the space whose backbone was trained.
        label: the column that was learned.
        settings: the settings of the run.
        training: facts about the run: epochs, selected epoch, mixture, counts, seconds.
        checkpoint_folder: weights, head, curves and augmentation sheet.
        run_key: key of the run: label, rows and settings.
        already_trained: the same run had been done before; nothing was trained.
        is_helper_process: this process trained next to the first one, which embeds, compares and reports.
        embed_report: the report on embedding into the new space, None without ``embed``.
        comparison: the comparison of the new space with its parent, None without ``embed``.
    """

    record: SpaceRecord
    parent: SpaceRecord
    label: str
    settings: FinetuneSettings
    training: TrainingSummary
    checkpoint_folder: Path
    run_key: str
    already_trained: bool = False
    is_helper_process: bool = False
    embed_report: EmbedReport | None = None
    comparison: SpaceComparison | None = None

    @property
    def space(self) -> str:
        """Name of the new space."""
        return self.record.name

    @property
    def key(self) -> str:
        """Key of the new space."""
        return self.record.key

    @property
    def has_same_vectors(self) -> bool:
        """Whether the weights did not change, so that both spaces hold the same vectors."""
        return self.record.space.has_same_vectors(self.parent.space)

    @property
    def notes(self) -> list[str]:
        """What a person must know next to the figures, one sentence each."""
        out, training, history = [], self.training, self.training.history
        plural = self.record.space.modality.plural
        if self.already_trained:
            out.append("the same run had been done before: nothing was trained again")
        if self.has_same_vectors:
            out.append(f"the weights did not change: the vectors of {self.space} equal those of {self.parent.name}")
        if history.stop_reason:
            out.append(f"stopped: {history.stop_reason}; epoch {history.best_epoch} was kept")
        if history.micro_batch_size < min(self.settings.batch_size, training.train_images):
            out.append(f"gradients were accumulated over micro-batches of {history.micro_batch_size} {plural}")
        if training.refit_rows:
            out.append(
                f"after validation had selected epoch {training.best_epoch}, the network was trained once more on all "
                f"{training.refit_rows} {plural} up to it"
            )
        if training.unreadable:
            out.append(
                f"{training.unreadable} {plural} were left out: they are missing or have changed since they were "
                "embedded"
            )
        before, after = history.epochs[0].val_score.accuracy, training.val_score.accuracy
        if before > after:
            out.append(
                f"on validation the old network has accuracy {before:.3f}, the tuned one {after:.3f}: tuning did not "
                f"help, or the old network met these {plural} in its own training; the held-out ones decide"
            )
        return out

    def to_json(self) -> dict[str, Any]:
        """Return plain values; those about the training have the keys of ``checkpoint.json``."""
        return {
            "space": self.space,
            "key": self.key,
            "folder": str(self.checkpoint_folder),
            "same_vectors": self.has_same_vectors,
            "known": self.already_trained,
            "notes": self.notes,
            "parent": self.parent.key,
            "licence": self.parent.space.licence,
            "label": self.label,
            **self.training.to_json(),
            "run": self.run_key,
            "how": self.settings.to_json(),
            "embedded": self.embed_report and self.embed_report.to_json(),
            "comparison": self.comparison and self.comparison.to_json(),
        }
