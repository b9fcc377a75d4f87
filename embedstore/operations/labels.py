"""Find label errors, and suggest what to label next."""

from __future__ import annotations

from embedstore.classify.data.features import Features, load_features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation import active_learning, fit, label_errors
from embedstore.classify.evaluation.active_learning import LabelSuggestions
from embedstore.classify.evaluation.label_errors import LabelErrorReport
from embedstore.errors import LabelError
from embedstore.operations.session import Session
from embedstore.storage.queries.features import absent_condition
from embedstore.storage.vector_stream import open_vector_stream


def find_label_errors(
    session: Session,
    label: str,
    *,
    head: str,
    folds: int,
    seed: int,
    where: str | None,
    space: str | None,
    separator: str | None,
    near_duplicates: NearDuplicateOptions,
) -> LabelErrorReport:
    """Find labels that are probably wrong; see :meth:`embedstore.Store.label_errors`."""
    record = session.space(space)
    settings = {"label": label, "head": head, "folds": folds, "seed": seed, "where": where, "separator": separator}

    def find() -> LabelErrorReport:
        data = load_features(session.storage, record, label, where=where, separator=separator)
        return label_errors.label_errors(data, head=head, n_folds=folds, seed=seed, near_duplicates=near_duplicates)

    return session.recorded("label_errors", record, settings, find)


def suggest_labels(
    session: Session,
    label: str,
    *,
    k: int,
    head: str,
    seed: int,
    where: str | None,
    space: str | None,
    separator: str | None,
) -> LabelSuggestions:
    """Suggest items to label next; see :meth:`embedstore.Store.suggest_labels`."""
    record = session.space(space)
    data = NearDuplicateOptions().join(load_features(session.storage, record, label, separator=separator))
    if len(_classes(data)) < 2:
        raise LabelError(f"suggest-labels needs labeled items of at least two classes in column {label!r}")
    estimator = fit.fit_head_to_few(head, data, seed=seed)
    with open_vector_stream(session.storage, record, where, extra_condition=absent_condition(label)) as stream:
        return active_learning.suggest_labels(estimator, stream.iter_blocks(), label, k=k, head=head)


def _classes(data: Features) -> set[str]:
    """Return the classes of single or several labels per item."""
    return {name for y in data.y.tolist() for name in (y if data.multilabel else (y,))}
