"""Advice before work: what tuning may be worth on a label, and the figures that say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.text_classifiers import sample_per_class
from embedstore.errors import EmbedstoreError, ImageError
from embedstore.finetuning import parse_settings
from embedstore.finetuning.advice import DomainDifference, FinetuningAdvice, advise
from embedstore.media.image import decode, preprocess
from embedstore.operations.finetune import FinetuneOptions, Tuning
from embedstore.operations.runs import record
from embedstore.storage.catalog import utc_now
from embedstore.storage.storage import SpaceRecord

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.finetuning.strategies import StrategyComparison, StrategyResult


class Advising(Tuning):
    """Verbs that look before tuning."""

    def advise(
        self, label: str = "label", *, space: str | None = None, where: str | None = None, seed: int = 0
    ) -> FinetuningAdvice:
        """Which of four strategies fits: frozen features, a new head, tuning the last layers, tuning all.

        Reads the number of labels a class, the probe on held-out and on training items, what the last doubling of the
        labels gave, and how far at most 256 images are from the network's own statistics. Networks without BatchNorm
        are compared with themselves at random weights instead.

        Args:
            label: the column. space: name or key; by default the current one. where: a filter. seed: of the split.

        Raises:
            LabelError: the labels cannot support a probe.
        """
        row = self._storage.space(space)
        started = utc_now()
        data = self.features(label, where=where, space=row.key)
        found = advise(data, label, self._domain(row, data, seed), seed=seed)
        settings = {"label": label, "where": where, "seed": seed}
        record(self._storage, row, "advise", settings, found.to_json(), started)
        return found

    def lore(
        self,
        label: str = "label",
        *,
        budgets: Sequence[int] = (10, 50),
        last: str = "last-2",
        png: str | Path | None = None,
        where: str | None = None,
        space: str | None = None,
        tell: Callable[[StrategyResult], None] = lambda _: None,
        **options: Unpack[FinetuneOptions],
    ) -> StrategyComparison:
        """From scratch, frozen probe, last layers and all layers, over labels a class, on the same held-out items.

        Nothing of it is kept but the run. Every cell is a training of its own: this takes long.

        Args:
            label: the column. budgets: labels a class; all labels come last. last: which layers "last layers" are.
            png: where to draw it. where: a filter. space: name or key. tell: called after each cell.
            options: of every training, as for :meth:`finetune`.

        Raises:
            FinetuneError, LabelError, MissingExtra: as for :meth:`finetune`.
        """
        from embedstore.finetuning import plots, task
        from embedstore.finetuning.strategies import compare_strategies, draw_plot

        row = self._storage.space(space)
        started = utc_now()
        task.check_tunable(row.name, row.space.layer, precomputed=row.recipe is None)
        plots.require_matplotlib()
        recipe = row.recipe
        assert recipe is not None  # noqa: S101 - checked above
        data = self.features(label, where=where, space=row.key)
        job = self._job(row, data, label, where, parse_settings(dict(options)))
        bare = replace(recipe, weights=None, random_init=True, parent=None)
        found = compare_strategies(
            job,
            label,
            lambda new: self._load(bare if new else recipe),
            sample_per_class,
            budgets=budgets,
            last_layers=last,
            progress=tell,
        )
        if png is not None:
            draw_plot(found, Path(png))
        said = {"label": label, "where": where, "budgets": list(budgets), "last": last} | dict(options)
        record(self._storage, row, "lore", said, found.to_json(), started)
        return found

    def _domain(self, row: SpaceRecord, data: Features, seed: int) -> DomainDifference:
        """How foreign the images are to the network of a space."""
        from embedstore.finetuning.domain_shift import MAX_IMAGES, measure_domain_shift

        if row.recipe is None or row.space.preprocess is None or row.space.random:
            return DomainDifference("unknown", None, 0)
        drawn = np.sort(np.random.default_rng(seed).permutation(len(data))[:MAX_IMAGES])
        rows, pixels, damaged = self._pixels(row, data, drawn)
        if not len(rows):
            return DomainDifference("unknown", None, 0)
        network = self.backbone(row.key)
        found = measure_domain_shift(network, pixels)
        if found is not None:
            return DomainDifference("batchnorm", found.distance, found.images, damaged)
        lift = self._lift(row, network, data.take(rows), pixels, seed)
        return DomainDifference("twin" if lift is not None else "unknown", lift, len(rows), damaged)

    def _pixels(
        self, row: SpaceRecord, data: Features, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], float]:
        """Some rows as embedding prepares them, and the share that compression damaged; the unreadable are left out."""
        from embedstore.finetuning.jpeg_quality import has_visible_artifacts

        p = row.space.preprocess
        assert p is not None  # noqa: S101 - _domain has looked
        uris = self.uris(data.ids[rows].tolist())
        kept, pixels, poor = [], [], 0
        for r in rows.tolist():
            try:
                file = decode.read_file(uris[int(data.ids[r])])
                image = decode.open_image(file)[0]
            except ImageError:
                continue
            kept.append(r)
            poor += has_visible_artifacts(file, image.size, p)
            pixels.append(preprocess.resize_and_crop(image, p))
        stacked = np.stack(pixels) if pixels else np.empty((0, 3, *p.size), np.uint8)
        return np.array(kept, dtype=np.int64), stacked, poor / max(1, len(kept))

    def _lift(
        self, row: SpaceRecord, network: Backbone, data: Features, pixels: NDArray[np.uint8], seed: int
    ) -> float | None:
        """Two-fold accuracy of class means on these images, above the same network's with random weights."""
        from embedstore.classify.evaluation import EvaluationSettings, evaluate_head

        assert row.recipe is not None  # noqa: S101 - _domain has looked
        try:
            twin = self._load(replace(row.recipe, weights=None, random_init=True, parent=None))
            own, random = (
                evaluate_head(
                    "prototype",
                    replace(data, X=b.encode_images(pixels)),
                    "label",
                    EvaluationSettings(folds=2, seed=seed, near=0),
                )
                for b in (network, twin)
            )
        except EmbedstoreError:  # too few of a class among these, or a network that cannot be made at random
            return None
        return own.accuracy - random.accuracy
