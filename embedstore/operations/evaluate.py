"""Evaluate heads on cached features: probes, learning curves and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.backbones.runtimes.runtime import Tower
from embedstore.classify import evaluation
from embedstore.classify.data import features as data_features
from embedstore.classify.data.features import Features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
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
from embedstore.classify.evaluation.slice_report import SliceOptions
from embedstore.classify.evaluation.text_classifiers import DEFAULT_LOGIT_SCALE, TextClasses
from embedstore.classify.protocols.knn_protocol import evaluate_knn_protocol
from embedstore.classify.protocols.probe_protocol import evaluate_probe_protocol
from embedstore.classify.protocols.protocol import Protocol, ProtocolOptions, parse_protocol
from embedstore.classify.registry import DEFAULT_WAIT
from embedstore.errors import BadVectors
from embedstore.operations import heads
from embedstore.operations.query_encoder import encoder
from embedstore.operations.session import Session
from embedstore.operations.slices import evaluate_by
from embedstore.operations.text_encoder import TextEncoder
from embedstore.storage.queries import spaces as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.text_form import clean_text

__all__ = [
    "Classes",
    "EvaluationSettings",
    "NearDuplicateOptions",
    "SliceOptions",
    "TextOptions",
    "compare",
    "distinct_labels",
    "encode_classes",
    "evaluate_learning_curve",
    "features",
    "few_shot",
    "few_shot_learning_curve",
    "probe",
    "space_cost",
]

Classes: TypeAlias = "Sequence[str] | Mapping[str, str | Sequence[str]]"


@dataclass(frozen=True)
class TextOptions:
    """How class names become class vectors.

    Attributes:
        templates: a template set, or sentences with ``{}``.
        class_vectors: ``(K, D)`` vectors that were computed elsewhere, instead of the text tower.
        logit_scale: the scale of cosines; by default the model's own, 100 for given vectors.
    """

    templates: str | Sequence[str] = "photo"
    class_vectors: NDArray[Any] | None = None
    logit_scale: float | None = None


def features(
    session: Session,
    label: str = "label",
    *,
    where: str | None = None,
    space: str | None = None,
    separator: str | None = None,
) -> Features:
    """Load features and labels; see :meth:`embedstore.Store.features`."""
    return data_features.load_features(session.storage, session.space(space), label, where=where, separator=separator)


def distinct_labels(session: Session, column: str, *, where: str | None = None, space: str | None = None) -> list[str]:
    """List the labels of a column; see :meth:`embedstore.Store.distinct_labels`."""
    return sorted(set(features(session, column, where=where, space=space).y.tolist()))


def probe(
    session: Session,
    label: str,
    *,
    head: str = "logistic",
    where: str | None = None,
    space: str | None = None,
    separator: str | None = None,
    save_as: str | None = None,
    wait: float = DEFAULT_WAIT,
    head_options: Mapping[str, Any] | None = None,
    settings: EvaluationSettings = EvaluationSettings(),
    slices: SliceOptions = SliceOptions(),
    protocol: str | None = None,
) -> Evaluation:
    """Evaluate a head; see :meth:`embedstore.Store.probe`."""
    record = session.space(space)
    heads.check_name(session, save_as)
    options = dict(head_options or {})
    chosen: Protocol | None = None
    if protocol is not None:
        chosen = parse_protocol(protocol, ProtocolOptions(head, options, settings))

    def evaluate() -> Evaluation:
        data = features(session, label, where=where, space=record.key, separator=separator)
        if chosen:
            return (evaluate_knn_protocol if head == "knn" else evaluate_probe_protocol)(chosen, data, settings)
        return evaluation.evaluate_head(head, data, settings, **options)

    run = {"label": label, "where": where, "save": save_as} | options | recorded_settings(asdict(settings))
    run |= {"protocol": protocol} if protocol else {}
    sliced = evaluate_by(session, slices, where, evaluate)
    return _saved(session, save_as, wait, session.recorded(head, record, run | slices.to_record(), sliced))


def few_shot(
    session: Session,
    label: str,
    classes: Classes | None,
    *,
    head: str,
    shots: int,
    seed: int,
    where: str | None,
    space: str | None,
    save_as: str | None,
    wait: float,
    near_duplicates: NearDuplicateOptions,
    text: TextOptions,
    slices: SliceOptions = SliceOptions(),
) -> Evaluation:
    """Evaluate a few-shot head; see :meth:`embedstore.Store.few_shot`."""
    record = session.space(space)
    heads.check_name(session, save_as)

    def evaluate() -> Evaluation:
        data = features(session, label, where=where, space=record.key)
        encoded = encode_classes(session, record, classes or sorted(set(data.y.tolist())), text)
        settings = EvaluationSettings(
            seed=seed,
            near_duplicates=near_duplicates.policy,
            near_duplicate_threshold=near_duplicates.threshold,
        )
        return text_classifiers.evaluate_few_shot(data, encoded, head=head, shots=shots, settings=settings)

    run = {"label": label, "where": where, "shots": shots, "seed": seed} | slices.to_record()
    sliced = evaluate_by(session, slices, where, evaluate)
    return _saved(session, save_as, wait, session.recorded(head, record, run, sliced))


def _saved(session: Session, name: str | None, wait: float, result: Evaluation) -> Evaluation:
    """Return the evaluation, after its head is saved if it has a name."""
    if name is not None:
        heads.save(session, name, result, wait=wait)
    return result


def few_shot_learning_curve(
    session: Session,
    label: str,
    classes: Classes | None,
    *,
    head: str,
    shots: Sequence[int],
    repeats: int,
    seed: int,
    where: str | None,
    space: str | None,
    near_duplicates: NearDuplicateOptions,
    text: TextOptions,
) -> LearningCurve:
    """Evaluate a few-shot head over shots; see :meth:`embedstore.Store.few_shot_curve`."""
    record = session.space(space)

    def evaluate() -> LearningCurve:
        data = features(session, label, where=where, space=record.key)
        encoded = encode_classes(session, record, classes or sorted(set(data.y.tolist())), text)
        settings = LearningCurveSettings(shots, repeats, seed, near_duplicates)
        return few_shot_curve.few_shot_curve(data, encoded, head=head, settings=settings)

    run = {"label": label, "where": where, "head": head, "labels_per_class": list(shots), "repeats": repeats}
    return session.recorded("learning_curve", record, run, evaluate)


def evaluate_learning_curve(
    session: Session,
    label: str,
    *,
    head: str,
    labels_per_class: Sequence[int],
    repeats: int,
    seed: int,
    where: str | None,
    space: str | None,
    separator: str | None,
    near_duplicates: NearDuplicateOptions,
    head_options: Mapping[str, Any] | None,
) -> LearningCurve:
    """Evaluate a head over numbers of labels; see :meth:`embedstore.Store.learning_curve`."""
    record = session.space(space)

    def evaluate() -> LearningCurve:
        data = features(session, label, where=where, space=record.key, separator=separator)
        settings = LearningCurveSettings(labels_per_class, repeats, seed, near_duplicates)
        return learning_curve.learning_curve(head, data, settings, **(head_options or {}))

    run = {"label": label, "where": where, "head": head, "labels_per_class": list(labels_per_class)}
    return session.recorded("learning_curve", record, run | {"repeats": repeats, "seed": seed}, evaluate)


def compare(
    session: Session,
    label: str,
    *,
    spaces: Sequence[str] | None,
    head_names: Sequence[str],
    labels_per_class: Sequence[int],
    where: str | None,
    separator: str | None,
    settings: EvaluationSettings,
    classes: Classes | None = None,
    text: TextOptions = TextOptions(),
) -> HeadComparison:
    """Compare spaces and heads; see :meth:`embedstore.Store.compare_heads`."""
    records = [session.space(s) for s in spaces] if spaces else _spaces_with_vectors(session)

    def evaluate() -> HeadComparison:
        data = [
            (features(session, label, where=where, space=r.key, separator=separator), space_cost(session, r))
            for r in records
        ]
        words: list[TextClasses] = []
        if set(head_names) & set(text_classifiers.TEXT_HEADS):
            named = classes or sorted({str(y) for features_of_space, _ in data for y in features_of_space.y.tolist()})
            words = [encode_classes(session, r, named, text) for r in records]
        return compare_heads.compare_heads(
            data, heads=head_names, settings=settings, labels_per_class=labels_per_class, text_classes=words
        )

    run = {"label": label, "where": where, "spaces": [r.name for r in records], "heads": list(head_names)}
    run |= {"labels_per_class": list(labels_per_class)} | recorded_settings(asdict(settings))
    return session.recorded("compare_heads", None, run, evaluate)


def encode_classes(session: Session, record: SpaceRecord, classes: Classes, text: TextOptions) -> TextClasses:
    """Return the classes with their vectors in a space."""
    if text.class_vectors is not None:
        vectors = _checked_class_vectors(text.class_vectors)
        return TextClasses(
            [clean_text(str(c)) for c in classes],
            vectors,
            DEFAULT_LOGIT_SCALE if text.logit_scale is None else text.logit_scale,
        )
    text_encoder = TextEncoder(encoder(session, record, Tower.TEXT))
    names, vectors = text_classifiers.encode_classes(text_encoder.encode_texts, classes, text.templates)
    own_scale = text_encoder.encoder.logit_scale or DEFAULT_LOGIT_SCALE
    scale = own_scale if text.logit_scale is None else text.logit_scale
    session.storage.add_notices(text_encoder.notes())
    return TextClasses(names, vectors, scale, text_encoder.notes())


def _checked_class_vectors(class_vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the class vectors as float32.

    Raises:
        BadVectors: if they are not numbers ``(K, D)``, or a row is zero or not finite: it has no direction.
    """
    if class_vectors.ndim != 2 or class_vectors.dtype.kind not in "fiu":
        raise BadVectors(f"class vectors are numbers (K, D), not {class_vectors.dtype} {class_vectors.shape}")
    vectors = unit_rows(class_vectors)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    if len(bad):
        raise BadVectors(
            f"the class vector in row {bad[0]} (counted from 0) is zero or not finite; it has no direction"
        )
    return vectors


def space_cost(session: Session, record: SpaceRecord) -> SpaceCost:
    """Return bytes per vector and the speed of the largest embedding run of a space."""
    return SpaceCost(record.space.dim, record.bytes_per_vector, queries.embedding_speed(session.storage, record.key))


def _spaces_with_vectors(session: Session) -> list[SpaceRecord]:
    """Return the spaces that hold vectors."""
    filled = queries.spaces_with_vectors(session.storage)
    return [s for s in session.storage.spaces() if s.key in filled]
