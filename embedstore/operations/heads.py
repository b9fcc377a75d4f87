"""Keeping: heads in the store, their predictions, and what they say about the labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from embedstore.classify import registry
from embedstore.classify.data.features import load_features
from embedstore.classify.evaluation import Evaluation, active_learning, fit, label_errors
from embedstore.classify.evaluation.active_learning import LabelSuggestions
from embedstore.classify.evaluation.label_errors import LabelErrorReport
from embedstore.classify.registry import HeadRecord
from embedstore.errors import LabelError
from embedstore.operations.runs import record
from embedstore.operations.session import Face
from embedstore.reports import contact_sheet
from embedstore.reports.item_images import read_item_images
from embedstore.storage.sql import quote_identifier, utc_now
from embedstore.storage.vector_stream import open_vector_stream
from embedstore.types import Hit


class Keeping(Face):
    """Verbs that keep classifiers and let them speak."""

    @property
    def heads(self) -> list[HeadRecord]:
        """Every head that is kept, oldest first."""
        return registry.list_heads(self._storage)

    def head(self, name: str, *, space: str | None = None) -> Any:
        """A kept head as a fitted scikit-learn classifier.

        Raises:
            UnknownHead: no such name. SpaceMismatch: of another space. StoreDamaged: not the files that were saved.
        """
        row = self._storage.space(space) if space else None
        return registry.load_head(self._storage, name, space=row)[1]

    def save_head(self, name: str, evaluation: Evaluation) -> HeadRecord:
        """Keep the head of an evaluation, bound to its space, label and classes; one of that name is replaced.

        Raises:
            BadHead: the name does not fit, or the head cannot be stored without pickle.
        """
        facts = {
            "accuracy": evaluation.accuracy,
            "split": evaluation.split,
            "train": evaluation.n_train,
            "held_out": evaluation.n_held_out,
        } | evaluation.hyperparameters
        return registry.save_head(
            self._storage,
            self._storage.space(evaluation.space or None),
            name,
            evaluation.estimator,
            label=evaluation.label,
            kind=evaluation.head,
            metadata=facts,
        )

    def forget_head(self, name: str) -> None:
        """Remove a head and its predictions."""
        registry.drop_head(self._storage, name)

    def predict(self, head: str, *, where: str | None = None, space: str | None = None) -> dict[str, Any]:
        """Write a kept head's class and probability for every matching item into the table ``predictions``.

        From then on ``pred.NAME`` (the class) and ``pred.NAME.score`` can stand in every filter.

        Args:
            head: its name. where: a filter; ``"pred.NAME is null"`` takes what is new or changed since.
            space: a space that the head must be of; by default its own.

        Returns:
            ``{"head", "items", "contents", "labels": {class: items}, "seconds"}``.

        Raises:
            UnknownHead, SpaceMismatch, StoreDamaged: as :meth:`head`. BadFilter, UnknownColumn: the filter.
        """
        row = self._storage.space(space) if space else None
        return registry.write_predictions(self._storage, head, where=where, space=row)

    def export_head(self, name: str, path: str | Path) -> Path:
        """Write a linear head as ``.npz`` (weights, intercepts, classes) or ``.onnx``.

        Raises:
            BadHead: not linear, or another suffix. MissingExtra: onnx is not installed.
        """
        return registry.export_head(self._storage, name, Path(path))

    def suspects(
        self,
        label: str = "label",
        *,
        head: str = "logistic",
        folds: int = 5,
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
    ) -> LabelErrorReport:
        """Items whose label is likely wrong, the surest first: confident learning on out-of-fold probabilities.

        Args:
            label, head, where, space, separator: as for ``probe``. folds, seed: of the cross-validation.

        Raises:
            LabelError: too few items a class.
        """
        row = self._storage.space(space)
        started = utc_now()
        found = label_errors.label_errors(
            load_features(self._storage, row, label, where=where, separator=separator),
            head=head,
            n_folds=folds,
            seed=seed,
        )
        settings = {"label": label, "head": head, "folds": folds, "seed": seed, "where": where, "separator": separator}
        record(self._storage, row, "suspects", settings, found.to_json(), started)
        return found

    def suggest(
        self,
        label: str = "label",
        *,
        k: int = 20,
        head: str = "logistic",
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
    ) -> LabelSuggestions:
        """What to label next: k items without a label that the head is unsure of and that differ from each other.

        Args:
            label: the column; every item that has one teaches. k: items wanted. head: by name. seed: of it.
            where: a filter on the items to choose from. separator: cut the label's text into several labels.

        Raises:
            LabelError: fewer than two classes have a label yet.
        """
        row = self._storage.space(space)
        data = load_features(self._storage, row, label, separator=separator)
        if len({name for y in data.y.tolist() for name in (y if data.multilabel else (y,))}) < 2:
            raise LabelError(f"suggest needs items of at least two classes in {label!r}")
        estimator = fit.fit_head_to_few(head, data, seed=seed)
        empty = f"nullif(trim({quote_identifier(label)}::VARCHAR), '') IS NULL"
        with open_vector_stream(self._storage, row, where, extra_condition=empty) as stream:
            return active_learning.suggest_labels(estimator, stream.iter_blocks(), label, k=k, head=head)

    def uris(self, items: Sequence[int]) -> dict[int, str]:
        """Where items are, by their ids."""
        if not items:
            return {}
        rows = self._storage.sql("SELECT item, uri FROM items WHERE list_contains(?, item)", [list(items)])[1]
        return dict(rows)

    def sheet(self, cells: Sequence[tuple[int, float, str]], title: str) -> str:
        """A contact sheet as one self-contained HTML page: ``(item, score, what stands below it)`` in order."""
        uris = self.uris([item for item, _, _ in cells])
        hits = [Hit(i, score, item, uris.get(item, ""), word, None) for i, (item, score, word) in enumerate(cells, 1)]
        return contact_sheet.contact_sheet_html(hits, title, partial(read_item_images, self._storage))
