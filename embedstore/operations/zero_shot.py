"""Classifiers made of text alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedstore.classify import registry
from embedstore.classify.data.features import load_features
from embedstore.classify.data.task import require_classes
from embedstore.classify.evaluation import Evaluation, EvaluationSettings, evaluate_zero_shot, text_classifiers
from embedstore.classify.evaluation.slice_report import SliceOptions
from embedstore.classify.registry import HeadRecord
from embedstore.operations.evaluate import Classes, TextOptions, encode_classes
from embedstore.operations.keywords import check_public_methods
from embedstore.operations.session import Session
from embedstore.operations.slices import with_figures
from embedstore.storage.spaces import SpaceRecord


@check_public_methods
@dataclass(frozen=True)
class ZeroShotClassifier:
    """A zero-shot classifier of one space; nothing is fitted.

    Attributes:
        head: the scikit-learn classifier inside.
        space: the space that it classifies.
        session: the store.
        notes: messages for the user, e.g. that a prompt is longer than the network reads.
    """

    head: Any
    space: SpaceRecord
    session: Session
    notes: tuple[str, ...] = ()

    def evaluate(
        self,
        label: str = "label",
        *,
        where: str | None = None,
        by: str | None = None,
        by_metric: str = "accuracy",
    ) -> Evaluation:
        """Evaluate on the labeled items: the held-out ones if the items have a split, else all.

        Args:
            label: a column of the items.
            where: a filter on the items.
            by: also report figures by the values of this column.
            by_metric: the figure that ranks them, ``accuracy`` or ``mean_per_class_recall``.

        Raises:
            LabelError: if no item has a label, or the column ``by`` cannot be split into slices.
            UnknownColumn: if the items lack a column.
            BadOption: if ``by_metric`` is not one of the two, or is given without ``by``.
        """
        slices = SliceOptions(by, by_metric)

        def evaluate() -> Evaluation:
            loaded = load_features(self.session.storage, self.space, label, where=where)
            data = require_classes(loaded, "zero-shot")
            settings = with_figures(self.session, EvaluationSettings(), slices, where)
            return evaluate_zero_shot(self.head, data, settings=settings)

        run = {"label": label, "where": where} | slices.to_record()
        return self.session.recorded("zero_shot", self.space, run, evaluate)

    def save(self, name: str, *, label: str = "label", wait: float = 10.0) -> HeadRecord:
        """Save the classifier under a name, for :meth:`embedstore.Store.predict`.

        Args:
            name: letters, digits, ``_`` and ``-``.
            label: the column that it predicts.
            wait: seconds to wait for another process that is writing.

        Raises:
            BadHead: if the name does not fit.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return registry.save_head(
            self.session.storage,
            self.space,
            name,
            self.head,
            label=label,
            kind="zero_shot",
            metadata={"train": 0},
            wait=wait,
        )


def zero_shot(
    session: Session, classes: Classes, *, text: TextOptions = TextOptions(), space: str | None = None
) -> ZeroShotClassifier:
    """Make a zero-shot classifier; see :meth:`embedstore.Store.zero_shot`."""
    record = session.space(space)
    encoded = encode_classes(session, record, classes, text)
    return ZeroShotClassifier(text_classifiers.make_zero_shot_head(encoded), record, session, encoded.notes)
