"""Evaluate heads on cached features: probes, learning curves and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.backbones.runtimes.runtime import Tower
from embedstore.classify import evaluation
from embedstore.classify.data import features as data_features
from embedstore.classify.data.features import Features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.data.task import AUTO, Task, require_classes, with_task
from embedstore.classify.evaluation import (
    Evaluation,
    EvaluationSettings,
    ProbeResult,
    compare_heads,
    few_shot_curve,
    learning_curve,
    text_classifiers,
)
from embedstore.classify.evaluation.compare_heads import HeadComparison, SpaceCost
from embedstore.classify.evaluation.learning_curve import (
    DEFAULT_LABELS_PER_CLASS,
    LearningCurve,
    LearningCurveSettings,
)
from embedstore.classify.evaluation.regression.compare import DEFAULT_HEADS as NUMERIC_HEADS
from embedstore.classify.evaluation.regression.compare import RegressionComparison, compare_numeric_heads
from embedstore.classify.evaluation.regression.curve import DEFAULT_LABELS, numeric_learning_curve
from embedstore.classify.evaluation.regression.holdout import DEFAULT_HEAD as NUMERIC_HEAD
from embedstore.classify.evaluation.regression.holdout import evaluate_numeric_head
from embedstore.classify.evaluation.settings import recorded_settings
from embedstore.classify.evaluation.slice_report import SliceOptions
from embedstore.classify.evaluation.text_classifiers import DEFAULT_LOGIT_SCALE, TextClasses
from embedstore.classify.protocols.knn_protocol import evaluate_knn_protocol
from embedstore.classify.protocols.mteb_protocol import evaluate_mteb_protocol
from embedstore.classify.protocols.probe_protocol import evaluate_probe_protocol
from embedstore.classify.protocols.protocol import SOUND_PROTOCOLS, Protocol, ProtocolOptions, parse_protocol
from embedstore.classify.protocols.sound_protocols import SOUND_HEAD, evaluate_sound_protocol
from embedstore.classify.registry import DEFAULT_WAIT
from embedstore.errors import BadOption, BadVectors
from embedstore.operations import heads
from embedstore.operations.label_conflicts import note_label_conflicts
from embedstore.operations.query_encoder import encoder
from embedstore.operations.session import Session
from embedstore.operations.slices import with_figures
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

DEFAULT_HEAD = "logistic"
Result = TypeVar("Result", bound=ProbeResult)
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
    weight: str | None = None,
) -> Features:
    """Load features and labels; see :meth:`embedstore.Store.features`."""
    return data_features.load_features(
        session.storage, session.space(space), label, where=where, separator=separator, weight=weight
    )


def distinct_labels(session: Session, column: str, *, where: str | None = None, space: str | None = None) -> list[str]:
    """List the labels of a column; see :meth:`embedstore.Store.distinct_labels`."""
    return sorted(set(features(session, column, where=where, space=space).y.tolist()))


def probe(
    session: Session,
    label: str,
    *,
    head: str | None = None,
    task: str = AUTO,
    weight: str | None = None,
    weighted_metrics: bool = False,
    where: str | None = None,
    space: str | None = None,
    separator: str | None = None,
    save_as: str | None = None,
    wait: float = DEFAULT_WAIT,
    head_options: Mapping[str, Any] | None = None,
    settings: EvaluationSettings = EvaluationSettings(),
    slices: SliceOptions = SliceOptions(),
    protocol: str | None = None,
) -> ProbeResult:
    """Evaluate a head; see :meth:`embedstore.Store.probe`."""
    record = session.space(space)
    heads.check_name(session, save_as)
    options = dict(head_options or {})
    if weighted_metrics and weight is None:
        raise BadOption("weighted_metrics weighs the held-out items: give weight, a column, or leave it out")
    chosen: Protocol | None = None
    if protocol is not None:
        given = ProtocolOptions(head or DEFAULT_HEAD, options, settings, task=task, weight=weight)
        chosen = parse_protocol(protocol, given)
    if separator is None:
        note_label_conflicts(session, label)
    loaded = features(session, label, where=where, space=record.key, separator=separator, weight=weight)
    data = _with_classes(loaded, task, protocol) if protocol is not None else with_task(loaded, task)
    name = head or (NUMERIC_HEAD if data.is_numeric else DEFAULT_HEAD)
    if chosen in SOUND_PROTOCOLS:
        name = SOUND_HEAD

    def evaluate() -> ProbeResult:
        used = with_figures(session, settings, slices, where, weighted=weighted_metrics)
        if chosen is not None:
            if chosen is Protocol.MTEB:
                return evaluate_mteb_protocol(data, used)
            if chosen in SOUND_PROTOCOLS:
                return evaluate_sound_protocol(chosen, data, used)
            return (evaluate_knn_protocol if name == "knn" else evaluate_probe_protocol)(chosen, data, used)
        return (evaluate_numeric_head if data.is_numeric else evaluation.evaluate_head)(name, data, used, **options)

    run = {"label": label, "where": where, "save": save_as} | options | recorded_settings(asdict(settings))
    run |= {"weighted_metrics": True} if weighted_metrics else {}
    run |= ({} if task == AUTO else {"task": task}) | ({} if weight is None else {"weight": weight})
    run |= {} if protocol is None else {"protocol": protocol}
    return _saved(session, save_as, wait, session.recorded(name, record, run | slices.to_record(), evaluate))


def _with_classes(data: Features, task: str, protocol: str) -> Features:
    """Return the rows of a protocol, all of which classify; numbers are classes only if ``task`` says so."""
    return with_task(require_classes(data, f"protocol {protocol}") if task == AUTO else data, Task.CLASSIFICATION)


def neighbor_options(k: int | None, weights: str | None, protocol: str | None) -> dict[str, Any]:
    """Return the options of the head ``knn``; a protocol has its own, beside which only given options count."""
    defaults = {"k": 5, "weights": "softmax"} if protocol is None else {}
    return defaults | {name: v for name, v in (("k", k), ("weights", weights)) if v is not None}


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
        data = require_classes(features(session, label, where=where, space=record.key), "few-shot")
        encoded = encode_classes(session, record, classes or sorted(set(data.y.tolist())), text)
        settings = EvaluationSettings(
            seed=seed,
            near_duplicates=near_duplicates.policy,
            near_duplicate_threshold=near_duplicates.threshold,
        )
        used = with_figures(session, settings, slices, where)
        return text_classifiers.evaluate_few_shot(data, encoded, head=head, shots=shots, settings=used)

    run = {"label": label, "where": where, "shots": shots, "seed": seed} | slices.to_record()
    return _saved(session, save_as, wait, session.recorded(head, record, run, evaluate))


def _saved(session: Session, name: str | None, wait: float, result: Result) -> Result:
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
        data = require_classes(features(session, label, where=where, space=record.key), "few-shot")
        encoded = encode_classes(session, record, classes or sorted(set(data.y.tolist())), text)
        settings = LearningCurveSettings(shots, repeats, seed, near_duplicates)
        return few_shot_curve.few_shot_curve(data, encoded, head=head, settings=settings)

    run = {"label": label, "where": where, "head": head, "labels_per_class": list(shots), "repeats": repeats}
    return session.recorded("learning_curve", record, run, evaluate)


def evaluate_learning_curve(
    session: Session,
    label: str,
    *,
    head: str | None,
    task: str,
    labels_per_class: Sequence[int] | None,
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

    data = with_task(features(session, label, where=where, space=record.key, separator=separator), task)
    name = head or (NUMERIC_HEAD if data.is_numeric else DEFAULT_HEAD)
    default = DEFAULT_LABELS if data.is_numeric else DEFAULT_LABELS_PER_CLASS
    budgets = default if labels_per_class is None else labels_per_class

    def evaluate() -> LearningCurve:
        settings = LearningCurveSettings(budgets, repeats, seed, near_duplicates)
        evaluate_curve = numeric_learning_curve if data.is_numeric else learning_curve.learning_curve
        return evaluate_curve(name, data, settings, **(head_options or {}))

    run = {"label": label, "where": where, "head": name, "labels_per_class": list(budgets)}
    return session.recorded("learning_curve", record, run | {"repeats": repeats, "seed": seed}, evaluate)


def compare(
    session: Session,
    label: str,
    *,
    spaces: Sequence[str] | None,
    head_names: Sequence[str] | None,
    task: str = AUTO,
    labels_per_class: Sequence[int],
    where: str | None,
    separator: str | None,
    settings: EvaluationSettings,
    classes: Classes | None = None,
    text: TextOptions = TextOptions(),
) -> HeadComparison | RegressionComparison:
    """Compare spaces and heads; see :meth:`embedstore.Store.compare_heads`."""
    records = [session.space(s) for s in spaces] if spaces else _spaces_with_vectors(session)

    data = [
        (
            with_task(features(session, label, where=where, space=r.key, separator=separator), task),
            space_cost(session, r),
        )
        for r in records
    ]
    is_numeric = any(features_of_space.is_numeric for features_of_space, _ in data)
    if head_names is None:
        head_names = NUMERIC_HEADS if is_numeric else compare_heads.DEFAULT_HEADS

    def evaluate() -> HeadComparison | RegressionComparison:
        words: list[TextClasses] = []
        if is_numeric:
            return _compare_numbers(data, head_names, settings, labels_per_class)
        if set(head_names) & set(text_classifiers.TEXT_HEADS):
            named = classes or sorted({str(y) for features_of_space, _ in data for y in features_of_space.y.tolist()})
            words = [encode_classes(session, r, named, text) for r in records]
        return compare_heads.compare_heads(
            data, heads=head_names, settings=settings, labels_per_class=labels_per_class, text_classes=words
        )

    run = {"label": label, "where": where, "spaces": [r.name for r in records], "heads": list(head_names)}
    run |= {"labels_per_class": list(labels_per_class)} | recorded_settings(asdict(settings))
    return session.recorded("compare_heads", None, run, evaluate)


def _compare_numbers(
    data: Sequence[tuple[Features, SpaceCost]],
    head_names: Sequence[str],
    settings: EvaluationSettings,
    labels_per_class: Sequence[int],
) -> RegressionComparison:
    """Compare heads that predict numbers; all spaces hold numbers, also one whose items alone would be classes."""
    if labels_per_class:
        raise BadOption(
            "a comparison of heads for numbers has no learning curves; leave out labels_per_class, and use "
            "learning-curve for one head"
        )
    task = next(d.task for d, _ in data if d.is_numeric)
    numeric = [(with_task(d, task.value) if not d.is_numeric else d, cost) for d, cost in data]
    return compare_numeric_heads(numeric, heads=head_names, settings=settings)


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
