"""Fine-tuning: train a backbone further, embed into the new space, compare it with the old one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from embedstore.classify.data.features import Features
from embedstore.errors import EmbedstoreError, FinetuneError
from embedstore.finetuning.history import AugmentationSheet
from embedstore.finetuning.settings import FinetuneOptions, parse_settings
from embedstore.operations.cutover import Cutover
from embedstore.operations.finetune_result import FinetuneResult
from embedstore.operations.runs import record
from embedstore.pipeline import run as embedding
from embedstore.pipeline.report import EmbedReport
from embedstore.reports.progress import TrainingProgress, embedding_progress, training_progress
from embedstore.sources.store_items import StoreItemsSource
from embedstore.storage import lock
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now

if TYPE_CHECKING:
    from accelerate import Accelerator

    from embedstore.backbones.base import Backbone
    from embedstore.finetuning.publish import FinetuneRequest
    from embedstore.finetuning.run import FinetuneJob

WRITE_WAIT = 60.0  # seconds to wait for another writer once the work is done


class Tuning(Cutover):
    """Operations that train the backbone of a space."""

    def finetune(
        self,
        label: str = "label",
        *,
        space: str | None = None,
        space_name: str | None = None,
        embed: bool = True,
        where: str | None = None,
        wait: float = WRITE_WAIT,
        progress: bool | TrainingProgress | None = None,
        **options: Unpack[FinetuneOptions],
    ) -> FinetuneResult:
        """Train the backbone of a space on a label, and add a checkpoint and a new space.

        By default the head of the probe is fitted first and then everything is trained from there at a low rate
        (LP-FT). A run that was killed resumes; one that has finished is recognized and not trained again. The old
        space is not changed and stays the default; :meth:`use` changes that.

        Under ``accelerate launch`` every process trains, and the first one alone writes, embeds and compares.

        Args:
            label: the column.
            space: name or key of the space whose backbone is trained; None for the default space.
            space_name: name of the new space; None for the old space's name and the label.
            embed: embed all images of the store into the new space, and compare both spaces.
            where: filter on the items.
            wait: seconds to wait for another writer when the results are written.
            progress: True or False shows a progress bar or not; None shows it on a terminal. A function is called
                with the :class:`AugmentationSheet` and with every :class:`TrainingStep` and :class:`Epoch` instead.
            options: fields of :class:`FinetuneSettings` and :class:`AugmentationSettings`.

        Raises:
            FinetuneError: if a setting is unknown or does not fit, or the space has no network that can be trained.
            LabelError: if the labels cannot support a training.
            MissingExtra: if accelerate, matplotlib or, for ``lora``, peft is not installed.
            StoreIOError: if there is not enough disk space; this is checked before training.
            StoreBusy: if another process is doing the same run, or is writing for longer than ``wait``.
        """
        from embedstore.finetuning import task
        from embedstore.finetuning.accelerator import process_rank
        from embedstore.finetuning.publish import FinetuneRequest, require_disk_space

        settings = parse_settings(dict(options))
        request = FinetuneRequest(task.check_tunable(self._storage.space(space)), label, where, settings)
        result = self._find_result(request)
        if process_rank():
            return replace(result or self._train_as_helper(request), is_helper_process=True)
        if result is None:
            result = self._train(request, space_name, wait, progress)
        elif embed:
            require_disk_space(self._storage, request.space)
        return self._embed_and_compare(result, where, wait) if embed else result

    def reembed(self, space: str | None = None, *, wait: float = 0.0, progress: bool | None = None) -> EmbedReport:
        """Embed every image of the store into a space; only missing vectors are computed, and a killed run resumes.

        Args:
            space: name or key; None for the default space.
            wait: seconds to wait for another writer.
            progress: show a progress bar; None shows it on a terminal.

        Raises:
            NoImages: if the store's vectors came without images.
            StoreBusy: if another process is writing for longer than ``wait``.
        """
        row = self._storage.space(space)
        options = embedding.EmbedOptions(runtime=self._runtime, decoder=self._decoder, wait=wait)
        with embedding_progress(show=progress) as callback:
            return embedding.embed_source(
                self._storage,
                StoreItemsSource(self._storage),
                lambda: self._everywhere(row),
                row,
                options=options,
                progress=callback,
            )

    # ---- parts

    def _train(
        self,
        request: FinetuneRequest,
        space_name: str | None,
        wait: float,
        progress: bool | TrainingProgress | None,
    ) -> FinetuneResult:
        """Train, publish the checkpoint, and register the new space."""
        from embedstore.finetuning import plots, publish
        from embedstore.finetuning.run import run_job

        started = utc_now()
        plots.require_matplotlib()
        job, folder = self._job(request)
        folder.mkdir(parents=True, exist_ok=True)
        with lock.writer_lock(folder / "LOCK", f"finetune {request.label}"), _remove_unstarted(folder):
            network = self._load(request.space.recipe)
            publish.require_disk_space(self._storage, request.space, publish.training_bytes(network, request.settings))
            sheet = folder / publish.AUGMENTATION_FILE
            plots.draw_augmentation(job, job.dataset(network), sheet)
            with training_progress(request.settings.epochs, progress) as callback:
                callback(AugmentationSheet(sheet))
                accelerator = _accelerator(request, network)
                trained = run_job(job, self._fresh_backbones(request, network), accelerator, callback)
            tuned = publish.publish_space(self._storage, request, job, trained, self._load)
            with self._storage.writer(f"add space of {request.label}", wait=wait) as writer:
                name = space_name or tuned.name
                writer.add_space(tuned.space, name=name, dtype=tuned.dtype, recipe=tuned.recipe)
            result = self._result(request, self._storage.space(tuned.key))
            accelerator.wait_for_everyone()
        run_settings = {"label": request.label, "where": request.where} | request.settings.to_json()
        record(self._storage, result.record, "finetune", run_settings, result.to_json(), started)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _train_as_helper(self, request: FinetuneRequest) -> FinetuneResult:
        """Train next to the first process, which alone writes, and read its result."""
        from embedstore.finetuning.run import run_job

        job, _ = self._job(request)
        network = self._load(request.space.recipe)
        accelerator = _accelerator(request, network)
        run_job(job, self._fresh_backbones(request, network), accelerator)
        accelerator.wait_for_everyone()
        result = self._find_result(request)
        if result is None:
            raise FinetuneError("the first process of this run has added no space; see its output")
        return result

    def _fresh_backbones(self, request: FinetuneRequest, loaded: Backbone) -> Callable[[], Backbone]:
        """Return a loader of the space's backbone whose first call gives the one that is loaded already."""
        first = [loaded]
        return lambda: first.pop() if first else self._load(request.space.recipe)

    def _job(self, request: FinetuneRequest) -> tuple[FinetuneJob, Path]:
        """Return what is learned, and the folder of its state."""
        from embedstore.finetuning import publish, task
        from embedstore.finetuning.run import FinetuneJob
        from embedstore.storage.queries.finetuning import image_files

        data = self._features(request)
        folder = publish.run_folder(self._storage, request.run_key(data))
        split = task.split_rows(data, seed=request.settings.seed)
        return FinetuneJob(data, split, image_files(self._storage), request.settings, folder), folder

    def _features(self, request: FinetuneRequest) -> Features:
        return self.features(request.label, where=request.where, space=request.space.key)

    def _find_result(self, request: FinetuneRequest) -> FinetuneResult | None:
        """Return the result of the same run, if it was done before and its space still exists."""
        from embedstore.finetuning.publish import find_tuned_space

        tuned = find_tuned_space(self._storage, request, lambda: self._features(request))
        return replace(self._result(request, tuned), already_trained=True) if tuned else None

    def _result(self, request: FinetuneRequest, tuned: SpaceRecord) -> FinetuneResult:
        """Return the result that a checkpoint describes."""
        from embedstore.finetuning import checkpoint
        from embedstore.finetuning.publish import checkpoint_folder

        folder = checkpoint_folder(self._storage, tuned.key)
        run_key = str(checkpoint.read_manifest(folder).get("run", ""))
        training = checkpoint.read_summary(folder)
        return FinetuneResult(tuned, request.space, request.label, request.settings, training, folder, run_key)

    def _embed_and_compare(self, result: FinetuneResult, where: str | None, wait: float) -> FinetuneResult:
        """Embed all images into the new space, and compare it with its parent."""
        report = self.reembed(result.key, wait=wait)
        comparison = self.versus(result.label, result.key, result.parent.key, where=where)
        return replace(result, embed_report=report, comparison=comparison)


def _accelerator(request: FinetuneRequest, network: Backbone) -> Accelerator:
    """Return the accelerator of this process, in the precision of the settings or else of the network."""
    from embedstore.finetuning.accelerator import create_accelerator

    precision = request.settings.precision
    return create_accelerator(network.device, network.precision if precision == "auto" else precision)


@contextmanager
def _remove_unstarted(folder: Path) -> Iterator[None]:
    """Remove the folder of a run that is refused before its first state. Only for the holder of the folder's lock."""
    from embedstore.finetuning import resume_state

    try:
        yield
    except EmbedstoreError:
        if not (folder / resume_state.STATE_FILE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise
