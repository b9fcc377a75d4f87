"""Judging: features, probes, neighbours, words as classifiers, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import Tower
from embedstore.classify import evaluation, registry
from embedstore.classify.data.features import Features, load_features
from embedstore.classify.evaluation import (
    Evaluation,
    EvaluationSettings,
    compare_heads,
    few_shot_curve,
    learning_curve,
    text_classifiers,
)
from embedstore.classify.evaluation.compare_heads import HeadComparison, SpaceCost
from embedstore.classify.evaluation.learning_curve import LearningCurve, LearningCurveSettings
from embedstore.classify.evaluation.settings import recorded_settings
from embedstore.classify.evaluation.text_classifiers import DEFAULT_LOGIT_SCALE, TextClasses
from embedstore.operations.heads import Keeping
from embedstore.operations.query_encoder import Encoding
from embedstore.operations.runs import record
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now
from embedstore.storage.storage import Storage


class HowOptions(TypedDict, total=False):
    """How a head is judged; see :class:`How`."""

    folds: int
    seed: int
    near_duplicate_threshold: float | None
    drop_near_duplicates: bool
    calibrate: str | None
    abstain_precision: float | None
    conformal_alpha: float | None


class Draws(TypedDict, total=False):
    """How a learning curve draws its labels; see ``learning_curve``."""

    labels_per_class: Sequence[int]
    repeats: int
    seed: int


class WordOptions(TypedDict, total=False):
    """Words and how they become vectors; see :meth:`Judging.zero_shot`."""

    templates: str | Sequence[str]
    class_vectors: NDArray[Any] | None
    logit_scale: float | None


class Judging(Keeping, Encoding):
    """Verbs that classify."""

    def features(
        self,
        label: str = "label",
        *,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
    ) -> Features:
        """X, y, ids and groups of the labelled items; see :class:`embedstore.classify.data.features.Features`."""
        return load_features(self._storage, self._storage.space(space), label, where=where, separator=separator)

    def probe(
        self,
        label: str = "label",
        *,
        head: str = "logistic",
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
        save: str | None = None,
        options: Mapping[str, Any] | None = None,
        **how: Unpack[HowOptions],
    ) -> Evaluation:
        """A head on the frozen features, judged on held-out items; by default logistic regression, C chosen by CV.

        Args:
            label: a column of the items; a list column has several labels an item.
            head: ``logistic``, ``knn``, ``prototype``, ``lda``, ``svm``, ``ridge`` or ``mlp``.
            where: a filter. space: name or key. separator: cut the label's text into several labels.
            save: keep the fitted head under this name; after folds it is one more, fitted on all rows.
            options: of the head's constructor, e.g. ``{"k": 20}``.
            how: as :class:`embedstore.classify.evaluation.EvaluationSettings`.

        Raises:
            UnknownColumn, BadFilter, LabelError, UnknownHead, BadHead: as their names say.
        """
        row = self._storage.space(space)
        started = utc_now()
        data = self.features(label, where=where, space=row.key, separator=separator)
        result = evaluation.evaluate_head(head, data, EvaluationSettings(**how), **(options or {}))
        settings = {"where": where, "save": save} | dict(options or {}) | recorded_settings(how)
        record(self._storage, row, head, {"label": label} | settings, result.to_json(), started)
        if save:
            self.save_head(save, result)
        return result

    def knn(
        self,
        label: str = "label",
        *,
        k: int = 5,
        weights: str = "softmax",
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
        save: str | None = None,
        **how: Unpack[HowOptions],
    ) -> Evaluation:
        """K nearest neighbours by cosine, judged on held-out items; weights ``softmax``, ``uniform``, ``distance``."""
        options = {"k": k, "weights": weights}
        return self.probe(
            label, head="knn", where=where, space=space, separator=separator, save=save, options=options, **how
        )

    def zero_shot(
        self,
        classes: Sequence[str] | Mapping[str, str | Sequence[str]],
        *,
        templates: str | Sequence[str] = "photo",
        space: str | None = None,
        class_vectors: NDArray[Any] | None = None,
        logit_scale: float | None = None,
    ) -> ZeroShot:
        """A classifier made of words alone.

        Args:
            classes: names, or prompts by class.
            templates: the sentences around a name: ``photo`` ("a photo of a {}."), ``name``, ``simple``, ``imagenet``,
                or sentences with ``{}``.
            space: name or key; by default the current one.
            class_vectors: the words' vectors ``(K, D)`` where they were computed elsewhere; then no text tower is
                needed and templates are not used. logit_scale: of them; 100 unless said.

        Raises:
            NoTextTower: the space knows images only.
            LabelError: fewer than two classes.
        """
        row = self._storage.space(space)
        said: WordOptions = {"templates": templates, "class_vectors": class_vectors, "logit_scale": logit_scale}
        return ZeroShot(self._storage, row, text_classifiers.make_zero_shot_head(self._words(row, classes, **said)))

    def few_shot(
        self,
        label: str = "label",
        classes: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        *,
        head: str = "tip-adapter",
        shots: int = 16,
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        save: str | None = None,
        **said: Unpack[WordOptions],
    ) -> Evaluation:
        """Words and a few labelled images a class together, in a space with a text tower.

        Hyper-parameters are tuned on the ``val`` split where ``test`` judges, else on shots held out for it; never
        on the rows that judge. With 0 shots it is zero-shot.

        Args:
            label: the column. classes: as for :meth:`zero_shot`; by default the labels.
            head: ``tip-adapter``, ``tip-adapter-f`` (its keys trained) or ``blend``.
            shots: labelled images a class, drawn by the seed from the training side. where: a filter.
            space: name or key. save: keep it under this name.
            said: templates, class_vectors and logit_scale, as for :meth:`zero_shot`.

        Raises:
            NoTextTower, LabelError, UnknownHead: as their names say.
        """
        row = self._storage.space(space)
        started = utc_now()
        data = self.features(label, where=where, space=row.key)
        text = self._words(row, classes or sorted(set(data.y.tolist())), **said)
        result = text_classifiers.evaluate_few_shot(data, text, head=head, shots=shots, seed=seed)
        settings = {"label": label, "where": where, "shots": shots, "seed": seed}
        record(self._storage, row, head, settings, result.to_json(), started)
        if save:
            self.save_head(save, result)
        return result

    def few_shot_curve(
        self,
        label: str = "label",
        classes: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        *,
        head: str = "tip-adapter",
        shots: Sequence[int] = learning_curve.DEFAULT_LABELS_PER_CLASS,
        repeats: int = learning_curve.DEFAULT_REPEATS,
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        **said: Unpack[WordOptions],
    ) -> LearningCurve:
        """How many labelled images beside the words: accuracy over shots a class; arguments as :meth:`few_shot`."""
        row = self._storage.space(space)
        started = utc_now()
        data = self.features(label, where=where, space=row.key)
        text = self._words(row, classes or sorted(set(data.y.tolist())), **said)
        budgets = LearningCurveSettings(shots, repeats, seed)
        result = few_shot_curve.few_shot_curve(data, text, head=head, settings=budgets)
        settings = {"label": label, "where": where, "head": head, "budgets": list(shots), "seeds": repeats}
        record(self._storage, row, "curve", settings, result.to_json(), started)
        return result

    def curve(
        self,
        label: str = "label",
        *,
        head: str = "logistic",
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
        options: Mapping[str, Any] | None = None,
        **draws: Unpack[Draws],
    ) -> LearningCurve:
        """How many labels a head needs: accuracy over labels a class, mean and spread over several draws.

        Of several labels an item (a list column, or text cut at ``separator``) it is the mean average precision.

        Args:
            label, head, where, space, separator, options: as for :meth:`probe`.
            draws: labels_per_class, repeats (draws each), seed (of the first draw and of the split).
        """
        row = self._storage.space(space)
        started = utc_now()
        data = self.features(label, where=where, space=row.key, separator=separator)
        result = learning_curve.learning_curve(head, data, LearningCurveSettings(**draws), **(options or {}))
        settings = {"label": label, "where": where, "head": head} | recorded_settings(draws)
        record(self._storage, row, "curve", settings, result.to_json(), started)
        return result

    def compare(
        self,
        label: str = "label",
        *,
        spaces: Sequence[str] | None = None,
        heads: Sequence[str] = compare_heads.DEFAULT_HEADS,
        labels_per_class: Sequence[int] = (),
        where: str | None = None,
        separator: str | None = None,
        **how: Unpack[HowOptions],
    ) -> HeadComparison:
        """Spaces and heads side by side on one split: which backbone, which head, how many labels, and is it luck?

        Args:
            label: the column. spaces: names or keys; by default every space that has vectors. heads: by name.
            budgets: labels a class, e.g. ``(1, 4, 16)``: each contestant's learning curve beside its figures.
            where: a filter. separator: as for :meth:`probe`. how: see :class:`How`.

        Raises:
            SpaceNotFound, LabelError, UnknownHead: as their names say.
        """
        started = utc_now()
        rows = [self._storage.space(s) for s in spaces] if spaces else self._with_vectors()
        result = compare_heads.compare_heads(
            [(self.features(label, where=where, space=row.key, separator=separator), self._cost(row)) for row in rows],
            heads=heads,
            settings=EvaluationSettings(**how),
            labels_per_class=labels_per_class,
        )
        names = [row.name for row in rows]
        asked: dict[str, Any] = {"label": label, "where": where, "spaces": names, "heads": list(heads)}
        settings = asked | {"budgets": list(labels_per_class)} | recorded_settings(how)
        record(self._storage, None, "compare", settings, result.to_json(), started)
        return result

    def labels(self, column: str = "label", *, where: str | None = None, space: str | None = None) -> list[str]:
        """The different labels of the items that have a vector."""
        return sorted(set(self.features(column, where=where, space=space).y.tolist()))

    def _words(
        self,
        row: SpaceRecord,
        classes: Sequence[str] | Mapping[str, str | Sequence[str]],
        **said: Unpack[WordOptions],
    ) -> TextClasses:
        """Class names, their vectors in this space, and the scale of their logits."""
        scale, given = said.get("logit_scale"), said.get("class_vectors")
        if given is not None:
            return TextClasses(list(classes), np.asarray(given, dtype=np.float32), scale or DEFAULT_LOGIT_SCALE)
        network = self._encoder(row, Tower.TEXT)
        names, vectors = text_classifiers.encode_classes(network.encode_texts, classes, said.get("templates", "photo"))
        return TextClasses(names, vectors, scale or network.logit_scale or DEFAULT_LOGIT_SCALE)

    def _with_vectors(self) -> list[SpaceRecord]:
        """The spaces that hold something."""
        held = {r[0] for r in self._storage.sql("SELECT DISTINCT space FROM shards")[1]}
        return [s for s in self._storage.spaces() if s.key in held]

    def _cost(self, row: SpaceRecord) -> SpaceCost:
        """Bytes of a vector, and the speed of the largest embedding run."""
        found = self._storage.sql(
            "SELECT (result->>'images_per_second')::DOUBLE FROM runs WHERE verb = 'embed' AND space = ? "
            "AND (result->>'embedded')::BIGINT > 0 ORDER BY (result->>'embedded')::BIGINT DESC, run DESC LIMIT 1",
            [row.key],
        )[1]
        return SpaceCost(row.space.dim, row.bytes_per_vector, found[0][0] if found else None)


class ZeroShot:
    """A classifier made of words; nothing is fitted.

    Args:
        storage, space: what it classifies. head: :class:`embedstore.classify.heads.ZeroShotHead`.
    """

    def __init__(self, storage: Storage, space: SpaceRecord, head: Any) -> None:
        self.head = head
        self._storage, self._space = storage, space

    def evaluate(self, label: str = "label", *, where: str | None = None) -> Evaluation:
        """Judge it on the items that have a label: the held-out ones where the items have a split, else all."""
        started = utc_now()
        data = load_features(self._storage, self._space, label, where=where)
        result = evaluation.evaluate_zero_shot(self.head, data)
        settings = {"label": label, "where": where}
        record(self._storage, self._space, "zero_shot", settings, result.to_json(), started)
        return result

    def save(self, name: str, *, label: str = "label") -> registry.HeadRecord:
        """Keep it under a name, for :meth:`embedstore.store.Store.predict`."""
        return registry.save_head(
            self._storage, self._space, name, self.head, label=label, kind="zero_shot", metadata={"train": 0}
        )
