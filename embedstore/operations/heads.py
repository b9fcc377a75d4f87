"""Save, load and delete heads, and predict with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedstore.classify import registry
from embedstore.classify.evaluation import Evaluation, ProbeResult
from embedstore.classify.head_folder import HeadFolder
from embedstore.classify.registry import HeadRecord
from embedstore.operations.results import PredictionSummary
from embedstore.operations.session import Session
from embedstore.storage.disk_errors import output_errors


def saved_heads(session: Session) -> list[HeadRecord]:
    """List the saved heads; see :attr:`embedstore.Store.heads`."""
    return registry.list_heads(session.storage)


def load(session: Session, name: str, *, space: str | None = None) -> Any:
    """Load a head; see :meth:`embedstore.Store.head`."""
    record = session.space(space) if space else None
    return registry.load_head(session.storage, name, space=record)[1]


def check_name(session: Session, name: str | None) -> None:
    """Check the name of a head before the work that makes it; None is no name.

    Raises:
        BadHead: if the name does not fit.
    """
    if name is not None:
        HeadFolder(session.path, name)


def save(session: Session, name: str, evaluation: ProbeResult, *, wait: float = registry.DEFAULT_WAIT) -> HeadRecord:
    """Save the head of an evaluation; see :meth:`embedstore.Store.save_head`."""
    metadata = (
        _figures(evaluation)
        | {
            "split": evaluation.split,
            "train": evaluation.n_train,
            "held_out": evaluation.n_held_out,
        }
        | evaluation.hyperparameters
    )
    return registry.save_head(
        session.storage,
        session.space(evaluation.space or None),
        name,
        evaluation.estimator,
        label=evaluation.label,
        kind=evaluation.head,
        metadata=metadata,
        wait=wait,
    )


def _figures(evaluation: ProbeResult) -> dict[str, Any]:
    """Return the figures that stand for a saved head."""
    if isinstance(evaluation, Evaluation):
        return {"accuracy": evaluation.accuracy}
    main = evaluation.main_metric
    return {"task": evaluation.task.value, main.value: evaluation.report[main], "mae": evaluation.report["mae"]}


def delete(session: Session, name: str, *, wait: float) -> None:
    """Delete a head and its predictions; see :meth:`embedstore.Store.delete_head`."""
    registry.drop_head(session.storage, name, wait=wait)


def predict(session: Session, head: str, *, where: str | None, space: str | None, wait: float) -> PredictionSummary:
    """Predict items and write the table ``predictions``; see :meth:`embedstore.Store.predict`."""
    record = session.space(space) if space else None
    counts = registry.write_predictions(session.storage, head, where=where, space=record, wait=wait)
    return PredictionSummary(**counts)


def export(session: Session, name: str, path: Path) -> Path:
    """Write a linear head to a file; see :meth:`embedstore.Store.export_head`."""
    with output_errors(path):
        return registry.export_head(session.storage, name, path)
