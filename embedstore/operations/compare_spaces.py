"""Compare two spaces of a store on the same held-out items."""

from __future__ import annotations

import numpy as np

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import select_shared_items
from embedstore.classify.data.task import require_classes
from embedstore.classify.evaluation import Evaluation, compare_spaces, evaluate_fitted
from embedstore.classify.evaluation.compare_spaces import PairedEvaluation, SpaceComparison, SpaceComparisonCost
from embedstore.errors import LabelError
from embedstore.operations import evaluate, zero_shot
from embedstore.operations.session import Session
from embedstore.storage.spaces import SpaceRecord


def compare(
    session: Session, label: str, space: str | None, baseline: str | None, *, where: str | None, seed: int
) -> SpaceComparison:
    """Compare two spaces; see :meth:`embedstore.Store.compare_spaces`."""
    new = session.space(space) if space else _latest_finetuned(session)
    old = session.space(baseline or new.space.parent)
    settings = {"label": label, "where": where, "baseline": old.key, "seed": seed}
    return session.recorded("compare_spaces", new, settings, lambda: _compare(session, label, new, old, where, seed))


def _compare(
    session: Session, label: str, new: SpaceRecord, old: SpaceRecord, where: str | None, seed: int
) -> SpaceComparison:
    """Evaluate the same heads in both spaces."""
    old_data, new_data = select_shared_items(
        [
            require_classes(evaluate.features(session, label, where=where, space=s.key), "compare-spaces")
            for s in (old, new)
        ]
    )
    pairs = compare_spaces.evaluate_in_both_spaces(old_data, new_data, seed=seed)
    pairs += _finetuned_head(session, pairs[0].baseline, new_data, new) + _zero_shot(session, old, new, label, where)
    return SpaceComparison.from_evaluations(
        pairs, has_same_vectors=new.space.has_same_vectors(old.space), cost=_costs(session, old, new)
    )


def _latest_finetuned(session: Session) -> SpaceRecord:
    """Return the fine-tuned space that was made last."""
    tuned = [s for s in session.storage.spaces() if s.space.parent]
    if not tuned:
        raise LabelError(f"{session.path} has no fine-tuned space; `embedstore finetune STORE LABEL` makes one")
    return tuned[-1]


def _finetuned_head(
    session: Session, baseline: Evaluation, data: Features, record: SpaceRecord
) -> list[PairedEvaluation]:
    """Pair the head that was trained with the backbone with the probe of the baseline."""
    from embedstore.finetuning import checkpoint, head

    folder = session.path / "checkpoints" / record.key
    manifest = checkpoint.read_manifest(folder)
    if manifest.get("label") != data.label:
        return []
    weight, bias = checkpoint.read_head(folder)
    own = head.LinearHead(weight, bias, manifest["classes"])
    held_out = data.take(np.flatnonzero(np.isin(data.ids, baseline.held_out_predictions.ids)))
    evaluation = evaluate_fitted(own, held_out, head="own head", split=baseline.split)
    name = "old probe, own head of the tuned network"
    return [compare_spaces.pair_evaluations(name, baseline, evaluation)]


def _zero_shot(
    session: Session, old: SpaceRecord, new: SpaceRecord, label: str, where: str | None
) -> list[PairedEvaluation]:
    """Pair the zero-shot classifiers of both spaces if both have a text tower."""
    if not (old.space.text and new.space.text):
        return []
    names = evaluate.distinct_labels(session, label, where=where, space=new.key)
    evaluations = [zero_shot.zero_shot(session, names, space=s.key).evaluate(label, where=where) for s in (old, new)]
    try:
        return [compare_spaces.pair_evaluations("zero-shot", *evaluations)]
    except LabelError:  # the new space is not embedded completely: the items differ
        return []


def _costs(session: Session, old: SpaceRecord, new: SpaceRecord) -> SpaceComparisonCost:
    """Return training seconds and embedding speeds."""
    from embedstore.finetuning import checkpoint

    manifest = checkpoint.read_manifest(session.path / "checkpoints" / new.key)
    return SpaceComparisonCost(
        training_seconds=manifest.get("seconds"),
        old_images_per_second=evaluate.space_cost(session, old).images_per_second,
        new_images_per_second=evaluate.space_cost(session, new).images_per_second,
    )
