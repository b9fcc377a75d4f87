"""Rank labels by how doubtful they are, and find those that are likely wrong, on out-of-fold probabilities."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.class_examples import inner_folds, max_folds, single_examples, smaller_side
from embedstore.classify.data.features import Features
from embedstore.classify.data.labels import label_indicators
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation.fit import out_of_fold_probabilities
from embedstore.classify.evaluation.label_quality import (
    LabelFilter,
    LabelScore,
    calibrated_joint,
    confident_joint,
    flag_labels,
    label_scores,
    other_labels,
)
from embedstore.classify.metrics.shares import accuracy_rows, share_interval
from embedstore.errors import LabelError, did_you_mean
from embedstore.tables import Record, Table

# The share of errors is stated where the head is nearly always certain when it contradicts a label. Elsewhere its own
# errors are among what it contradicts: 0.8% for 0.15% of wrong labels in MNIST's test set, and up to 53 points too many
# in simulations (docs/curation.md).
MOST_CONTRADICTED = 0.25
LEAST_CERTAIN = 0.8  # of the contradicted labels
NEIGHBORS = 20  # that vote beside the head: "20 usually works best" (Caron et al. 2021, section 4.1)


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """An item whose label is doubtful.

    Attributes:
        item: id of the item.
        given_label: its label; None where one of several labels is missing.
        suggested_label: the label that the other items suggest; None where one of several labels is one too many.
        margin: probability of the suggested answer minus that of the given one; higher is more certain.
        score: quality of the given answer in [0, 1], by which the labels are ranked; lower is worse.
        flagged: whether it is among the labels that are likely wrong.
    """

    item: int
    given_label: str | None
    suggested_label: str | None
    margin: float
    score: float
    flagged: bool

    @property
    def description(self) -> str:
        """Return what is doubtful, for the person who reviews the item."""
        if self.suggested_label is None:
            return f"labeled {self.given_label}, does not look like it"
        if self.given_label is None:
            return f"not labeled {self.suggested_label}, looks like it"
        return f"labeled {self.given_label}, looks like {self.suggested_label}"


@dataclass(frozen=True)
class LabelRanking:
    """Labels as arrays ``(N,)``, the most doubtful first.

    Attributes:
        names: the labels.
        items: int64, the items.
        given: int64, the number of the given label in ``names``, -1 where one of several labels is missing.
        suggested: int64, the number of the most probable other label, -1 where one of several labels is one too many.
        margin: float, as in :class:`LabelIssue`.
        score: float, as in :class:`LabelIssue`.
        flagged: bool, as in :class:`LabelIssue`.
    """

    names: tuple[str, ...]
    items: NDArray[np.int64]
    given: NDArray[np.int64]
    suggested: NDArray[np.int64]
    margin: NDArray[np.float64]
    score: NDArray[np.float64]
    flagged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: NDArray[Any] | slice) -> LabelRanking:
        """Return a selection of labels."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "names"}
        return LabelRanking(names=self.names, **arrays)

    def top(self, n: int | None = None) -> list[LabelIssue]:
        """Return the most doubtful labels, whether flagged or not; all of them by default."""
        part = self.take(slice(n))
        columns = (part.items, part.given, part.suggested, part.margin, part.score, part.flagged)
        return [
            LabelIssue(item, self._name(given), self._name(suggested), margin, score, flagged)
            for item, given, suggested, margin, score, flagged in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def _name(self, number: int) -> str | None:
        return self.names[number] if number >= 0 else None


@dataclass(frozen=True)
class LabelErrorReport(Table):
    """Every label that was checked, the most doubtful first.

    Attributes:
        issues: the labels that are likely wrong, in the order of the ranking.
        ranking: all labels with their score, as arrays.
        n_labels: labels that were checked; with several labels per item, yes-or-no answers.
        error_rate: the share of wrong labels among them, estimated from the confident joint; None where the head
            contradicts labels without being certain, so that these may as well be errors of the head, and where the
            estimate is above the limit of ``error_rate_interval``.
        error_rate_interval: 0 and a limit that the share of wrong labels stays below in 95% of samples, if the head's
            own errors do not depend on which labels are wrong.
        skipped_labels: labels that cannot be checked, because they occur in one group only, or in all but one.
        n_confirmed: labels that a person has confirmed, which are not listed.
        notes: what was left out, and what a person should know about the labels, one sentence each.
        ranked_by: the score of the ranking.
        flagged_by: how labels are flagged.
        label: the column.
        head: name of the head that predicted the labels.
        folds: number of folds requested.
        seconds: the duration of the check.
    """

    issues: tuple[LabelIssue, ...]
    ranking: LabelRanking = field(repr=False)
    n_labels: int
    error_rate: float | None
    error_rate_interval: tuple[float, float]
    skipped_labels: tuple[str, ...]
    n_confirmed: int
    notes: tuple[str, ...]
    ranked_by: str
    flagged_by: str
    label: str
    head: str
    folds: int
    seconds: float

    def records(self) -> list[Record]:
        """Return one mapping per issue."""
        return [asdict(i) for i in self.issues]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "label": self.label,
            "head": self.head,
            "rows": self.n_labels,
            "folds": self.folds,
            "error_rate": None if self.error_rate is None else round(self.error_rate, 6),
            "error_rate_interval": [round(end, 6) for end in self.error_rate_interval],
            "unjudged": list(self.skipped_labels),
            "confirmed": self.n_confirmed,
            "notes": list(self.notes),
            "ranked_by": self.ranked_by,
            "flagged_by": self.flagged_by,
            "seconds": round(self.seconds, 3),
            "suspects": [issue_json(i) for i in self.issues],
        }


def issue_json(issue: LabelIssue) -> dict[str, Any]:
    """Return plain values."""
    return {
        "item": issue.item,
        "given": issue.given_label,
        "suggested": issue.suggested_label,
        "margin": round(issue.margin, 6),
        "score": round(issue.score, 6),
        "flagged": issue.flagged,
    }


@dataclass(frozen=True)
class LabelErrorSettings:
    """How labels are checked.

    Attributes:
        head: name of the head whose out-of-fold probabilities count.
        folds: number of folds; a small class lowers it.
        seed: the random seed of the folds and of the head.
        ranked_by: the score that ranks the labels, one of :class:`LabelScore`.
        flagged_by: how labels are flagged as wrong, one of :class:`LabelFilter`.
        near_duplicates: how they are found; no item is judged by a head that was fitted on its copies.
    """

    head: str = "logistic"
    folds: int = 5
    seed: int = 0
    ranked_by: str = LabelScore.SELF_CONFIDENCE.value
    flagged_by: str = LabelFilter.CONFIDENT_LEARNING.value
    near_duplicates: NearDuplicateOptions = field(default_factory=NearDuplicateOptions)

    def __post_init__(self) -> None:
        for name, value, kinds in (
            ("ranked_by", self.ranked_by, [s.value for s in LabelScore]),
            ("flagged_by", self.flagged_by, [f.value for f in LabelFilter]),
        ):
            if value not in kinds:
                raise LabelError(f"{name} must be {', '.join(kinds)}, not {value!r}{did_you_mean(str(value), kinds)}")


@dataclass(frozen=True)
class _Check:
    """A ranking of labels, and what tells how many are wrong.

    Attributes:
        ranking: the labels.
        n_wrong: how many the confident joint expects to be wrong.
        contradicted: bool ``(N,)``, labels that are not the most probable one, in the order of the rows.
        skipped_labels: labels that cannot be checked.
    """

    ranking: LabelRanking
    n_wrong: float
    contradicted: NDArray[np.bool_]
    skipped_labels: tuple[str, ...] = ()

    def error_rate(self, most: float) -> float | None:
        """Return the estimated share of wrong labels, None where the head cannot know it.

        Args:
            most: the share that is not exceeded. A joint that expects more than that counts labels that the head finds
                right: those of rare labels, whose probabilities are all low.
        """
        n_labels, n_contradicted = len(self.contradicted), int(self.contradicted.sum())
        is_certain = self.n_wrong >= LEAST_CERTAIN * n_contradicted and n_contradicted <= MOST_CONTRADICTED * n_labels
        share = self.n_wrong / n_labels
        return share if share <= most and is_certain else None


def label_errors(
    data: Features, settings: LabelErrorSettings | None = None, *, confirmed: NDArray[np.int64] | None = None
) -> LabelErrorReport:
    """Rank all labels by how much the other items contradict them, and flag those that are likely wrong.

    Args:
        data: labeled rows.
        settings: the head, the score and the filter.
        confirmed: items whose label a person has confirmed; they train the head and are not listed.

    Raises:
        LabelError: when a class has too few items, or none of several labels can be checked.
        UnknownHead: when no head has this name.
    """
    start, settings = time.perf_counter(), settings or LabelErrorSettings()
    data, single = _without_single_examples(settings.near_duplicates.join(data))
    names = sorted({name for row in data.y.tolist() for name in (row if data.multilabel else (row,))})
    proba = predict_labels(data, names, settings)
    check = (_check_labels_one_by_one if data.multilabel else _check_classes)(data, names, proba, settings)
    groups = np.tile(data.groups, len(check.contradicted) // max(len(data.groups), 1))
    limit_wrong = share_interval(accuracy_rows(check.contradicted, groups))[1]
    ranking = check.ranking
    n_labels = len(ranking)
    if confirmed is not None:
        ranking = ranking.take(~np.isin(ranking.items, confirmed))
    return LabelErrorReport(
        issues=tuple(ranking.take(ranking.flagged).top()),
        ranking=ranking,
        n_labels=n_labels,
        error_rate=check.error_rate(limit_wrong),
        error_rate_interval=(0.0, limit_wrong),
        skipped_labels=(*single, *check.skipped_labels),
        n_confirmed=n_labels - len(ranking),
        ranked_by=settings.ranked_by,
        notes=data.notes,
        flagged_by=settings.flagged_by,
        label=data.label,
        head=settings.head,
        folds=settings.folds,
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True)
class LabelProbabilities:
    """Out-of-fold probabilities ``(N, K)``, which every score can rank.

    Attributes:
        head: those of the head, which flag and suggest.
        votes: the shares of the nearest items with each label; None where only the head ranks.
    """

    head: NDArray[np.float32]
    votes: NDArray[np.float32] | None = None

    def for_score(self, score: LabelScore) -> NDArray[np.float32]:
        """Return those that rank: of the head, or the mean with the votes of the neighbors."""
        if self.votes is None or score is not LabelScore.NEIGHBORS:
            return self.head
        return np.asarray((self.head + self.votes) / 2, dtype=np.float32)

    def column(self, number: int) -> LabelProbabilities:
        """Return the probabilities of no and yes for one label."""
        votes = None if self.votes is None else _no_and_yes(self.votes[:, number])
        return LabelProbabilities(_no_and_yes(self.head[:, number]), votes)


def _no_and_yes(yes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([1 - yes, yes], axis=1)


def _without_single_examples(data: Features) -> tuple[Features, list[str]]:
    """Return the rows of classes that other items can contradict, and the classes of one example."""
    if data.multilabel or not inner_folds(data.y, data.groups):
        return data, []
    single = single_examples(data.y, data.groups)
    return data.take(np.flatnonzero(~np.isin(data.y.astype(str), single))), single


def predict_labels(data: Features, names: list[str], settings: LabelErrorSettings) -> LabelProbabilities:
    """Predict every item by heads that were not fitted on it or on its copies."""
    limit = settings.folds
    n_folds = limit if data.multilabel else max_folds(data.y, data.groups, limit=limit)
    head = out_of_fold_probabilities(data, names, head=settings.head, n_folds=n_folds, seed=settings.seed)
    if settings.ranked_by != LabelScore.NEIGHBORS:
        return LabelProbabilities(head)
    votes = out_of_fold_probabilities(
        data, names, head="knn", n_folds=n_folds, seed=settings.seed, options={"k": NEIGHBORS}
    )
    return LabelProbabilities(head, votes)


def _check_classes(data: Features, names: list[str], proba: LabelProbabilities, settings: LabelErrorSettings) -> _Check:
    """Check the one label of every item."""
    given = np.searchsorted(np.array(names), data.y.astype(str))
    return _rank(tuple(names), data.ids, given, proba, settings)


def _check_labels_one_by_one(
    data: Features, names: list[str], proba: LabelProbabilities, settings: LabelErrorSettings
) -> _Check:
    """Check every label of every item as a yes-or-no answer."""
    indicators = label_indicators(data.y, names)
    checks, skipped = [], []
    for number, (name, positive) in enumerate(zip(names, indicators.T, strict=True)):
        if smaller_side(positive, data.groups) < 2:
            skipped.append(name)
            continue
        check = _rank(("no", "yes"), data.ids, positive.astype(np.int64), proba.column(number), settings)
        present = check.ranking.given == 1
        ranking = replace(
            check.ranking,
            names=tuple(names),
            given=np.where(present, number, -1),
            suggested=np.where(present, -1, number),
        )
        checks.append(_Check(ranking, check.n_wrong, check.contradicted))
    if not checks:
        raise LabelError(
            f"no label of {data.label!r} can be checked: each occurs in one group of items only, or in all but one; "
            "label more items"
        )
    merged = _merge(tuple(names), [c.ranking for c in checks])
    contradicted = np.concatenate([c.contradicted for c in checks])
    return _Check(merged, sum(c.n_wrong for c in checks), contradicted, tuple(skipped))


def _rank(
    names: tuple[str, ...],
    items: NDArray[np.int64],
    given: NDArray[np.int64],
    probabilities: LabelProbabilities,
    settings: LabelErrorSettings,
) -> _Check:
    """Rank given labels, and suggest the most probable other one."""
    proba = probabilities.head
    kind = LabelScore(settings.ranked_by)
    score = label_scores(given, probabilities.for_score(kind), kind)
    others = other_labels(given, proba)
    suggested = others.argmax(axis=1)
    rows = np.arange(len(given))
    margin = others[rows, suggested] - proba[rows, given]
    flagged = flag_labels(given, proba, LabelFilter(settings.flagged_by))
    joint = calibrated_joint(confident_joint(given, proba)[1], given)
    ranking = LabelRanking(names, items, given, suggested, margin, score, flagged)
    contradicted = proba.argmax(axis=1) != given
    return _Check(ranking.take(np.lexsort((items, score))), float(joint.sum() - np.trace(joint)), contradicted)


def _merge(names: tuple[str, ...], rankings: list[LabelRanking]) -> LabelRanking:
    """Merge the rankings of several labels into one."""
    empty = np.zeros(0, np.int64)
    none = LabelRanking(names, empty, empty, empty, empty.astype(float), empty.astype(float), empty.astype(bool))
    columns = {
        f.name: np.concatenate([getattr(r, f.name) for r in [none, *rankings]])
        for f in fields(LabelRanking)
        if f.name != "names"
    }
    merged = LabelRanking(names=names, **columns)
    return merged.take(np.lexsort((merged.items, merged.score)))
