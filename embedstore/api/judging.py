"""Judging: features, probes, neighbours, words as classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from embedstore import evaluate
from embedstore.api.base import Face
from embedstore.evaluate import Evaluation
from embedstore.features import Features, features
from embedstore.store.catalog import utc_now
from embedstore.store.storage import SpaceRow, Storage


class Judging(Face):
    """Verbs that classify."""

    def features(self, label: str = "label", *, where: str | None = None, space: str | None = None) -> Features:
        """X, y, ids and groups of the labelled items; see :class:`embedstore.features.Features`."""
        return features(self._storage, self._storage.space(space), label, where=where)

    def probe(self, label: str = "label", *, where: str | None = None, space: str | None = None) -> Evaluation:
        """Logistic regression on the frozen features, C by cross-validation, judged on held-out items."""
        return self._judge("logistic", label, where, space)

    def knn(
        self, label: str = "label", *, k: int = 5, where: str | None = None, space: str | None = None
    ) -> Evaluation:
        """K nearest neighbours by cosine, judged on held-out items."""
        return self._judge("knn", label, where, space, k=k)

    def zero_shot(
        self,
        classes: Sequence[str] | Mapping[str, str | Sequence[str]],
        *,
        templates: str = "photo",
        space: str | None = None,
    ) -> ZeroShot:
        """A classifier made of words alone.

        Args:
            classes: names, or prompts by class.
            templates: the sentences around a name: ``photo`` ("a photo of a {}."), ``name``, ``simple``, ``imagenet``.
            space: name or key; by default the current one.

        Raises:
            NoTextTower: the space knows images only.
            LabelError: fewer than two classes.
        """
        row = self._storage.space(space)
        network = self._text_backbone(row)
        head = evaluate.zero_shot_head(
            network.encode_texts, classes, logit_scale=network.logit_scale, templates=templates
        )
        return ZeroShot(self._storage, row, head)

    def labels(self, column: str = "label", *, where: str | None = None, space: str | None = None) -> list[str]:
        """The different labels of the items that have a vector."""
        return sorted(set(self.features(column, where=where, space=space).y.tolist()))

    def _judge(self, head: str, label: str, where: str | None, space: str | None, **options: Any) -> Evaluation:
        """Fit a head on one side of a split and judge it on the other; kept as a run."""
        row = self._storage.space(space)
        started = utc_now()
        result = evaluate.judge(head, self.features(label, where=where, space=row.key), label, **options)
        _record(self._storage, row, result, {"where": where} | options, started)
        return result


class ZeroShot:
    """A classifier made of words; nothing is fitted.

    Args:
        storage, space: what it classifies. head: :class:`embedstore.heads.ZeroShot`.
    """

    def __init__(self, storage: Storage, space: SpaceRow, head: Any) -> None:
        self.head = head
        self._storage, self._space = storage, space

    def evaluate(self, label: str = "label", *, where: str | None = None) -> Evaluation:
        """Judge it on the items that have a label: the held-out ones where the items have a split, else all."""
        started = utc_now()
        data = features(self._storage, self._space, label, where=where)
        result = evaluate.judge_zero_shot(self.head, data, label)
        _record(self._storage, self._space, result, {"where": where}, started)
        return result


def _record(storage: Storage, space: SpaceRow, e: Evaluation, settings: dict[str, Any], started: datetime) -> None:
    """Keep an evaluation as a run."""
    with storage.writing(f"record {e.head} {e.label}", wait=10.0) as writer:
        writer.record_run(e.head, space.key, {"label": e.label} | settings, e.to_json(), started)
