"""Tuning: train a backbone further, embed again, compare, cut over, drop."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from embedstore import finetuning
from embedstore.classify.data.features import Features
from embedstore.errors import EmbedstoreError, StoreIOError
from embedstore.finetuning import FinetuneSettings
from embedstore.operations.cutover import Cutover
from embedstore.operations.runs import record
from embedstore.operations.tuned import FinetuneResult
from embedstore.pipeline import run as embedding
from embedstore.pipeline.report import EmbedReport
from embedstore.reports import progress
from embedstore.sources.store_items import StoreItemsSource
from embedstore.storage import lock
from embedstore.storage.catalog import utc_now
from embedstore.storage.storage import SpaceRecord

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.finetuning.run import FinetuneJob, TrainingResult

DISK_SPACE_FACTOR = 1.1  # times what is known to be written: catalog rows, file systems' own needs


class FinetuneOptions(TypedDict, total=False):
    """How to fine-tune; the fields of :class:`embedstore.finetuning.Settings` and ``Augment``."""

    layers: str
    start: str
    average: str
    metric: str
    epochs: int
    patience: int
    lr: float | None
    decay: float
    warmup: float
    weight_decay: float
    smoothing: float
    class_weights: bool
    batch: int
    micro: int | None
    bn: bool
    refit: bool
    alpha: float | None
    rank: int
    seed: int
    precision: str
    workers: int
    crop: float | None
    flip: bool
    rotate: float
    colour: float
    randaugment: int
    jpeg: int
    erase: float
    mixup: float
    cutmix: float


class Tuning(Cutover):
    """Verbs that change what a store's vectors are made with."""

    def finetune(
        self,
        label: str = "label",
        *,
        space: str | None = None,
        name: str | None = None,
        embed: bool = True,
        where: str | None = None,
        show_progress: bool | None = None,
        say: Callable[[str], None] = lambda _: None,
        **options: Unpack[FinetuneOptions],
    ) -> FinetuneResult:
        """Train the backbone of a space on a label: a checkpoint and a new space beside the old one.

        By default the head of the probe is fitted first and then everything is trained from there at a low rate
        (LP-FT). A run that was killed goes on where it was; one that had been finished is recognised. The old space
        is not touched, and stays the current one; :meth:`use` changes that.

        Under ``accelerate launch`` every process trains, and the first one alone writes, embeds and compares.

        Args:
            label: the column. space: whose backbone; by default the current one. where: a filter on the items.
            name: of the new space; by default that of the old one and of the label.
            embed: fill the new space with all images of the store, and set both spaces side by side.
            show_progress: None shows a bar only on a terminal. say: told what a person should see before training.
            options: see :class:`embedstore.finetuning.Settings` and :class:`embedstore.finetuning.Augment`.

        Raises:
            FinetuneError: settings that do not fit. LabelError: labels that cannot support it.
            MissingExtra: accelerate is not installed. StoreIOError: not enough room on the disk, said before training.
            StoreBusy: the same run is going on in another process.
        """
        from embedstore.finetuning.accelerator import process_rank

        chosen = finetuning.parse_settings(dict(options))
        row = self._storage.space(space)
        made = self._known(row, label, where, chosen)
        if process_rank():
            return replace(made or self._helped(row, label, where, chosen), beside=True)
        if made is None:
            made = self._trained(row, label, where, chosen, name, show_progress, say)
        elif embed:
            self._must_have_room(row, 0, len(self._contents()))
        return self._filled(row, made, label, where) if embed else made

    def reembed(self, space: str | None = None, *, wait: float = 0.0, show_progress: bool | None = None) -> EmbedReport:
        """Give every image of the store a vector in a space: only what is missing is computed; resumable.

        Args:
            space: name or key; by default the current one. wait: seconds to wait for another writer.

        Raises:
            NoImages: the store's vectors came without images. StoreBusy: another process is writing.
        """
        row = self._storage.space(space)
        options = embedding.EmbedOptions(runtime=self._runtime, decoder=self._decoder, wait=wait)
        with progress.embedding_progress(show=show_progress) as show:
            return embedding.embed_source(
                self._storage,
                StoreItemsSource(self._storage),
                lambda: self._everywhere(row),
                row,
                options=options,
                progress=show,
            )

    # ---- parts

    def _trained(
        self,
        row: SpaceRecord,
        label: str,
        where: str | None,
        chosen: FinetuneSettings,
        name: str | None,
        show: bool | None,
        say: Callable[[str], None],
    ) -> FinetuneResult:
        """Train and enter the result."""
        from embedstore.finetuning import plots, task
        from embedstore.finetuning.accelerator import create_accelerator
        from embedstore.finetuning.run import job_dataset, run_job, save_augmentation_sheet

        started = utc_now()
        task.check_tunable(row.name, row.space.layer, precomputed=row.recipe is None)
        plots.require_matplotlib()
        data = self.features(label, where=where, space=row.key)
        job = self._job(row, data, label, where, chosen)
        assert row.recipe is not None and job.folder is not None  # noqa: S101, PT018 - checked above
        job.folder.mkdir(parents=True, exist_ok=True)
        with lock.writer_lock(job.folder / "LOCK", f"finetune {label}"), _nothing_left(job.folder):
            network = self._load(row.recipe)
            self._must_have_room(row, _state_bytes(network) * (2 if chosen.refit else 1), len(self._contents()))
            save_augmentation_sheet(job, job_dataset(job, network), job.folder / "augmentation.png")
            say(f"how training images are varied: {job.folder / 'augmentation.png'}")
            precision = network.precision if chosen.precision == "auto" else chosen.precision
            with progress.training_progress(chosen.epochs, show=show) as tell:
                engine_ = create_accelerator(network.device, precision)
                trained = run_job(job, self._afresh(row, network), engine_, tell)
            made = self._entered(row, label, job, trained, name)
            engine_.wait_for_everyone()
        settings = {"label": label, "where": where} | chosen.to_json()
        record(self._storage, self._storage.space(made.key), "finetune", settings, made.to_json(), started)
        shutil.rmtree(job.folder, ignore_errors=True)
        return made

    def _helped(self, row: SpaceRecord, label: str, where: str | None, chosen: FinetuneSettings) -> FinetuneResult:
        """The share of a process that trains beside the first: it writes nothing, and reads what came of it."""
        from embedstore.finetuning import task
        from embedstore.finetuning.accelerator import create_accelerator
        from embedstore.finetuning.run import run_job

        task.check_tunable(row.name, row.space.layer, precomputed=row.recipe is None)
        assert row.recipe is not None  # noqa: S101 - checked above
        job = self._job(row, self.features(label, where=where, space=row.key), label, where, chosen)
        network = self._load(row.recipe)
        beside = create_accelerator(
            network.device, network.precision if chosen.precision == "auto" else chosen.precision
        )
        run_job(job, self._afresh(row, network), beside)
        beside.wait_for_everyone()
        made = self._known(row, label, where, chosen)
        assert made is not None  # noqa: S101 - the first process has entered it
        return made

    def _afresh(self, row: SpaceRecord, network: Backbone) -> Callable[[], Backbone]:
        """The network of a space, newly loaded at each call; the first call gives the one at hand."""
        at_hand, recipe = [network], row.recipe
        assert recipe is not None  # noqa: S101 - _trained has looked
        return lambda: at_hand.pop() if at_hand else self._load(recipe)

    def _job(
        self, row: SpaceRecord, data: Features, label: str, where: str | None, chosen: FinetuneSettings
    ) -> FinetuneJob:
        """What is to be learned, and the folder of its state."""
        from embedstore.finetuning import task
        from embedstore.finetuning.run import FinetuneJob

        parts = task.split_rows(data, seed=chosen.seed)
        found = self._storage.sql("SELECT item, uri, path, content::VARCHAR FROM items WHERE content IS NOT NULL")[1]
        files = {
            item: (uri if path is None else path.decode("utf-8", "surrogateescape"), content.replace("-", ""))
            for item, uri, path, content in found
        }
        folder = self.path / "checkpoints" / f".{self._run_key(row, data, label, where, chosen)}"
        return FinetuneJob(data, parts, files, chosen, folder)

    def _run_key(
        self, row: SpaceRecord, data: Features, label: str, where: str | None, chosen: FinetuneSettings
    ) -> str:
        """The same run, on the same labels and splits, has the same key."""
        rows = [data.ids.tolist(), data.y.tolist(), data.splits.tolist(), data.groups.tolist()]
        said = chosen.to_json() | {"workers": 0}
        return finetuning.run_digest({"parent": row.key, "label": label, "where": where, "rows": rows, "how": said})

    def _entered(
        self, row: SpaceRecord, label: str, job: FinetuneJob, trained: TrainingResult, name: str | None
    ) -> FinetuneResult:
        """The checkpoint in its place, then the space in the catalog."""
        from embedstore.finetuning import checkpoint, plots

        assert job.folder is not None and row.recipe is not None  # noqa: S101, PT018 - as in _trained
        made = job.folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        tuning = trained.trainer.finetune_model
        weights = {n: t.cpu() for n, t in (tuning.initial_state | trained.selection.weights).items()}
        facts = _facts(row, label, trained) | {"run": job.folder.name.removeprefix("."), "how": job.settings.to_json()}
        checkpoint.write_files(made, weights, trained.selection.head, facts)
        plots.draw_curves(trained.history, made / "curves.png")
        shutil.copyfile(job.folder / "augmentation.png", made / "augmentation.png")
        recipe = replace(row.recipe, weights=str(made / checkpoint.WEIGHTS_FILE), random_init=False, parent=row.key)
        space = replace(self._load(recipe).space, licence=row.space.licence, origin=f"fine-tuned from {row.name}")
        folder = self.path / "checkpoints" / space.key
        checkpoint.publish(made, folder)
        recipe = replace(recipe, weights=f"checkpoints/{space.key}/{checkpoint.WEIGHTS_FILE}")
        with self._storage.writer(f"add space of {label}", wait=60.0) as writer:
            writer.add_space(space, name=name or f"{row.name}-{label}", dtype=row.dtype, recipe=recipe)
        added = self._storage.space(space.key)
        same = space.has_same_vectors(row.space)
        return FinetuneResult(added.name, space.key, row.name, label, folder, job.settings, facts, same)

    def _known(self, row: SpaceRecord, label: str, where: str | None, chosen: FinetuneSettings) -> FinetuneResult | None:
        """The result of the same run, if it was done before and its space is still there."""
        from embedstore.finetuning import checkpoint

        tuned = [s for s in self.spaces if s.space.parent == row.key]
        notes = {s.key: checkpoint.read_manifest(self.path / "checkpoints" / s.key) for s in tuned}
        if not any(notes.values()):
            return None
        key = self._run_key(row, self.features(label, where=where, space=row.key), label, where, chosen)
        for s in tuned:
            if notes[s.key].get("run") == key:
                shutil.rmtree(self.path / "checkpoints" / f".{key}", ignore_errors=True)  # of a kill at the very end
                same = s.space.has_same_vectors(row.space)
                folder = self.path / "checkpoints" / s.key
                return FinetuneResult(s.name, s.key, row.name, label, folder, chosen, notes[s.key], same, already_trained=True)
        return None

    def _filled(self, row: SpaceRecord, made: FinetuneResult, label: str, where: str | None) -> FinetuneResult:
        """The new space with its vectors, and compared."""
        report = self.reembed(made.key, wait=60.0)
        return replace(made, embedded=report, versus=self.versus(label, made.key, row.key, where=where))

    def _contents(self) -> list[str]:
        """Every content that an image file stands behind."""
        query = "SELECT DISTINCT content::VARCHAR FROM items JOIN contents USING (content) WHERE present AND bytes > 0"
        return [c for (c,) in self._storage.sql(query)[1]]

    def _must_have_room(self, row: SpaceRecord, state: int, contents: int) -> None:
        """Refuse before the work what the disk cannot hold."""
        from embedstore.finetuning.resume_state import free_bytes

        width = row.space.dim * (2 if row.dtype == "float16" else 4)
        need, there = int(DISK_SPACE_FACTOR * (state + contents * (width + 64))), free_bytes(self.path)
        if need > there:
            raise StoreIOError(
                f"not enough room in {self.path}: {contents:,} vectors and the checkpoint need {need / 1e6:,.1f} MB, "
                f"{there / 1e6:,.1f} MB are free; make room, or drop a space with `embedstore drop-space`"
            )


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """A run that is refused before its first state leaves no folder. Only for who holds the folder's lock."""
    from embedstore.finetuning import resume_state

    try:
        yield
    except EmbedstoreError:
        if not (folder / resume_state.STATE_FILE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _facts(row: SpaceRecord, label: str, trained: TrainingResult) -> dict[str, Any]:
    """What is noted beside the weights."""
    from dataclasses import asdict

    c = trained.selection
    return {
        "parent": row.key,
        "licence": row.space.licence,
        "label": label,
        "classes": list(trained.classes),
        "epoch": c.best_epoch,
        "alpha": c.alpha,
        "val_score": asdict(c.val_score),
        "mixtures": [{"alpha": a, **asdict(s)} for a, s in c.mixtures],
        "history": trained.history.to_json(),
        "train": trained.train,
        "val": trained.val,
        "unread": trained.unreadable,
        "refitted": trained.refit_rows,
        "blocks": trained.blocks,
        "tuned_blocks": trained.tuned_blocks,
        "parameters": trained.trainable_parameters,
        "rate": trained.learning_rate,
        "seconds": round(trained.seconds, 3),
    }


def _state_bytes(network: Any) -> int:
    """What a run may write: the checkpoint, and of the state weights, best, average and two moments, old and new."""
    own = sum(t.numel() * t.element_size() for t in network.module.state_dict().values())
    return int(own * 11)
