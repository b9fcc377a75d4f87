"""Advice before fine-tuning: what it may gain on a label, and the measured comparison of training strategies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import sample_per_class
from embedstore.finetuning.advice import DomainDifference, FinetuningAdvice, advise
from embedstore.finetuning.settings import FinetuneOptions, parse_settings, stored_keys
from embedstore.operations.finetune import Tuning
from embedstore.operations.runs import record
from embedstore.space import Recipe
from embedstore.storage.queries.finetuning import image_files
from embedstore.storage.spaces import RecipeSpace, SpaceRecord
from embedstore.storage.sql import utc_now

if TYPE_CHECKING:
    from embedstore.finetuning.strategies import StrategyComparison, StrategyResult


class Advising(Tuning):
    """Operations that measure before fine-tuning."""

    def advise(
        self, label: str = "label", *, space: str | None = None, where: str | None = None, seed: int = 0
    ) -> FinetuningAdvice:
        """Recommend one of four strategies: frozen features, a new head, tuning the last layers, tuning all layers.

        The advice reads the number of labels per class, the probe on held-out and on training items, what the last
        doubling of the labels gained, and how far at most 256 images are from the network's BatchNorm statistics.
        Networks without BatchNorm are compared with themselves at random weights instead.

        Args:
            label: the column.
            space: name or key; None for the default space.
            where: filter on the items.
            seed: random seed of the sampled images and of the learning curve.

        Raises:
            LabelError: if the labels cannot support a probe.
        """
        row = self._storage.space(space)
        started = utc_now()
        data = self.features(label, where=where, space=row.key)
        advice = advise(data, label, self._domain(row, data, seed), seed=seed)
        settings = {"label": label, "where": where, "seed": seed}
        record(self._storage, row, "advise", settings, advice.to_json(), started)
        return advice

    def lore(
        self,
        label: str = "label",
        *,
        labels_per_class: Sequence[int] = (10, 50),
        last_layers: str = "last-2",
        plot_path: str | Path | None = None,
        where: str | None = None,
        space: str | None = None,
        progress: Callable[[StrategyResult], None] = lambda _: None,
        **options: Unpack[FinetuneOptions],
    ) -> StrategyComparison:
        """Compare training strategies on your own data, all on the same held-out items.

        The same network is trained from scratch, as a frozen probe, with its last layers and whole, on growing numbers
        of labels per class. Only the run is recorded; no checkpoint is kept. Every result is a training of its own, so
        this takes long.

        Args:
            label: the column.
            labels_per_class: numbers of labels to draw; all labels come last.
            last_layers: layers of the strategy "last layers".
            plot_path: PNG file to draw the comparison to.
            where: filter on the items.
            space: name or key; None for the default space.
            progress: called with each :class:`StrategyResult`.
            options: of every training, as for :meth:`finetune`.

        Raises:
            FinetuneError: if a setting is unknown or does not fit, or the space has no network that can be trained.
            LabelError: if the labels cannot support a training.
            MissingExtra: if accelerate, matplotlib or, for ``lora``, peft is not installed.
        """
        from embedstore.finetuning import plots, task
        from embedstore.finetuning.publish import FinetuneRequest
        from embedstore.finetuning.strategies import StrategyPlan, compare_strategies

        started = utc_now()
        row = task.check_tunable(self._storage.space(space))
        plots.require_matplotlib()
        job, _ = self._job(FinetuneRequest(row, label, where, parse_settings(dict(options))))
        plan = StrategyPlan(
            job,
            lambda random: self._load(_random_twin(row.recipe) if random else row.recipe),
            sample_per_class,
            labels_per_class,
            last_layers,
        )
        comparison = compare_strategies(plan, label, progress)
        if plot_path is not None:
            plots.draw_comparison(comparison, Path(plot_path))
        settings = {"label": label, "where": where, "budgets": list(labels_per_class), "last": last_layers}
        record(self._storage, row, "lore", settings | stored_keys(dict(options)), comparison.to_json(), started)
        return comparison

    def _domain(self, row: SpaceRecord, data: Features, seed: int) -> DomainDifference:
        """Measure how different the images are from those that the network was trained on."""
        from embedstore.finetuning.domain_difference import UNKNOWN, DomainImages, measure_domain

        if not isinstance(row, RecipeSpace):
            return UNKNOWN
        images = DomainImages(data, lambda items: image_files(self._storage, items), seed)
        twin = _random_twin(row.recipe)
        return measure_domain(row.space, images, lambda: self.backbone(row.key), lambda: self._load(twin))


def _random_twin(recipe: Recipe) -> Recipe:
    """Return the recipe of the same network with random weights."""
    return replace(recipe, weights=None, random_init=True, parent=None)
