"""Advice before fine-tuning: what it may be worth on a label, and a comparison of training strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import sample_per_class
from embedstore.errors import EmbedstoreError, ImageError
from embedstore.finetuning import advice, parse_settings
from embedstore.finetuning.advice import DomainDifference, FinetuningAdvice
from embedstore.media.image import decode, preprocess
from embedstore.operations import evaluate, finetune
from embedstore.operations.session import Session
from embedstore.sources.local_files import read_item
from embedstore.space import Preprocess, Recipe
from embedstore.storage.queries import items
from embedstore.storage.spaces import RecipeSpace, SpaceRecord

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.finetuning.strategies import StrategyComparison


def advise(session: Session, label: str, *, space: str | None, where: str | None, seed: int) -> FinetuningAdvice:
    """Recommend a strategy; see :meth:`embedstore.Store.advise`."""
    record = session.space(space)

    def measure() -> FinetuningAdvice:
        data = evaluate.features(session, label, where=where, space=record.key)
        return advice.advise(data, label, _domain_difference(session, record, data, seed), seed=seed)

    return session.recorded("advise", record, {"label": label, "where": where, "seed": seed}, measure)


def compare_strategies(
    session: Session,
    label: str,
    *,
    labels_per_class: Sequence[int],
    last_layers: str,
    plot_path: str | Path | None,
    where: str | None,
    space: str | None,
    progress: Any,
    options: Mapping[str, Any],
) -> StrategyComparison:
    """Train with every strategy; see :meth:`embedstore.Store.compare_strategies`."""
    from embedstore.finetuning import plots, strategies, task

    record = session.space(space)
    recipe = task.check_tunable(record).recipe
    plots.require_matplotlib()
    random_recipe = _random_weights(recipe)

    def train() -> StrategyComparison:
        data = evaluate.features(session, label, where=where, space=record.key)
        request = finetune.Request(record, label, where, parse_settings(dict(options)))
        return strategies.compare_strategies(
            finetune.make_job(session, request, data),
            label,
            lambda from_scratch: session.load(random_recipe if from_scratch else recipe),
            sample_per_class,
            budgets=labels_per_class,
            last_layers=last_layers,
            progress=progress,
        )

    settings = {"label": label, "where": where, "labels_per_class": list(labels_per_class), "last_layers": last_layers}
    result = session.recorded("compare_strategies", record, settings | dict(options), train)
    if plot_path is not None:
        strategies.draw_plot(result, Path(plot_path))
    return result


def _domain_difference(session: Session, record: SpaceRecord, data: Features, seed: int) -> DomainDifference:
    """Measure how far the images are from the data that the backbone was trained on."""
    from embedstore.finetuning.domain_shift import MAX_IMAGES, measure_domain_shift

    p = record.space.preprocess
    if not isinstance(record, RecipeSpace) or p is None or record.space.has_random_weights:
        return DomainDifference("unknown", None, 0)
    sample = np.sort(np.random.default_rng(seed).permutation(len(data))[:MAX_IMAGES])
    rows, pixels, damaged = _sample_pixels(session, p, data, sample)
    if not len(rows):
        return DomainDifference("unknown", None, 0)
    backbone = session.backbone(record.key)
    shift = measure_domain_shift(backbone, pixels)
    if shift is not None:
        return DomainDifference("batchnorm", shift.distance, shift.images, damaged)
    lift = _lift_over_random(session, record.recipe, backbone, data.take(rows), pixels, seed)
    return DomainDifference("twin" if lift is not None else "unknown", lift, len(rows), damaged)


def _sample_pixels(
    session: Session, p: Preprocess, data: Features, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], float]:
    """Return the readable rows, their preprocessed images, and the share with visible JPEG artifacts."""
    from embedstore.finetuning.jpeg_quality import has_visible_artifacts

    files = items.item_files(session.storage, data.ids[rows].tolist())
    readable, pixels, damaged = [], [], 0
    for row in rows.tolist():
        try:
            file = read_item(*files[int(data.ids[row])])
            image = decode.open_image(file)[0]
        except ImageError:
            continue
        readable.append(row)
        damaged += has_visible_artifacts(file, image.size, p)
        pixels.append(preprocess.resize_and_crop(image, p))
    stacked = np.stack(pixels) if pixels else np.empty((0, 3, *p.size), np.uint8)
    return np.array(readable, dtype=np.int64), stacked, damaged / max(1, len(readable))


def _lift_over_random(
    session: Session, recipe: Recipe, backbone: Backbone, data: Features, pixels: NDArray[np.uint8], seed: int
) -> float | None:
    """Return the two-fold accuracy of class means above the same network's with random weights."""
    from embedstore.classify.evaluation import EvaluationSettings, evaluate_head

    settings = EvaluationSettings(folds=2, seed=seed, near_duplicate_threshold=0)
    try:
        own, random = (
            evaluate_head("prototype", replace(data, X=b.encode_images(pixels)), settings)
            for b in (backbone, session.load(_random_weights(recipe)))
        )
    except EmbedstoreError:  # too few images per class, or a network that cannot have random weights
        return None
    return own.accuracy - random.accuracy


def _random_weights(recipe: Recipe) -> Recipe:
    """Return the recipe of the same network with random weights."""
    return replace(recipe, weights=None, random_init=True, parent=None)
