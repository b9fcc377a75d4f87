"""Fine-tune a backbone: train, register the new space, embed into it, compare it with the old one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.classify.data.features import Features
from embedstore.classify.data.task import require_classes
from embedstore.errors import EmbedstoreError, FinetuneError
from embedstore.finetuning.history import AugmentationSheet
from embedstore.finetuning.settings import parse_settings
from embedstore.operations import compare_spaces, evaluate, ingest
from embedstore.operations.finetune_result import FinetuneResult
from embedstore.operations.session import Session
from embedstore.reports.progress import Progress, training_progress
from embedstore.storage import lock
from embedstore.storage.spaces import SpaceRecord

if TYPE_CHECKING:
    from accelerate import Accelerator

    from embedstore.backbones.trainable import TrainableBackbone
    from embedstore.finetuning.publish import FinetuneRequest
    from embedstore.finetuning.run import FinetuneJob


def finetune(
    session: Session,
    label: str,
    *,
    space: str | None,
    space_name: str | None,
    embed: bool,
    where: str | None,
    wait: float,
    progress: Progress,
    options: Mapping[str, Any],
) -> FinetuneResult:
    """Fine-tune a backbone; see :meth:`embedstore.Store.finetune`."""
    from embedstore.finetuning import task
    from embedstore.finetuning.accelerator import process_rank
    from embedstore.finetuning.publish import FinetuneRequest, require_disk_space

    settings = parse_settings(dict(options))
    request = FinetuneRequest(task.check_tunable(session.space(space)), label, where, settings)
    task.check_augmentation(request.space.space, settings)
    result = _find_result(session, request)
    if process_rank():
        return replace(result or _train_as_helper(session, request), is_helper_process=True)
    if result is None:
        result = _train(session, request, space_name, wait, progress)
    elif embed:
        require_disk_space(session.storage, request.space)
    return _embed_and_compare(session, result, where, wait, progress) if embed else result


def make_job(session: Session, request: FinetuneRequest) -> tuple[FinetuneJob, Path]:
    """Return what is learned, and the folder of its state."""
    from embedstore.finetuning import publish, task
    from embedstore.finetuning.run import FinetuneJob
    from embedstore.storage.queries.finetuning import image_files

    data = _features(session, request)
    folder = publish.run_folder(session.storage, request.run_key(data))
    split = task.split_rows(data, seed=request.settings.seed)
    return FinetuneJob(data, split, image_files(session.storage), request.settings, folder), folder


def _train(
    session: Session, request: FinetuneRequest, space_name: str | None, wait: float, progress: Progress
) -> FinetuneResult:
    """Train, publish the checkpoint, and register the new space."""
    from embedstore.finetuning import plots

    plots.require_matplotlib()
    job, folder = make_job(session, request)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"label": request.label, "where": request.where} | request.settings.to_json()
    with lock.writer_lock(folder / "LOCK", f"finetune {request.label}", wait=None), _remove_unstarted(folder):
        result = session.recorded(
            "finetune",
            lambda result: result.record,
            settings,
            lambda: _train_and_register(session, request, job, folder, space_name, wait, progress),
        )
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _train_and_register(
    session: Session,
    request: FinetuneRequest,
    job: FinetuneJob,
    folder: Path,
    space_name: str | None,
    wait: float,
    progress: Progress,
) -> FinetuneResult:
    """Train in the folder of the run; then publish the checkpoint and add its space to the catalog."""
    from embedstore.finetuning import plots, publish
    from embedstore.finetuning.dataset import LabeledImageDataset
    from embedstore.finetuning.run import run_job

    storage = session.storage
    network = session.load_any(request.space.recipe)
    publish.require_disk_space(storage, request.space, publish.training_bytes(network, request.settings))
    sheet, dataset = folder / publish.AUGMENTATION_FILE, job.dataset(network)
    if isinstance(dataset, LabeledImageDataset):
        plots.draw_augmentation(job, dataset, sheet)
    with training_progress(request.settings.epochs, progress) as callback:
        if sheet.is_file():
            callback(AugmentationSheet(sheet))
        accelerator = _accelerator(request, network)
        trained = run_job(job, _fresh_backbones(session, request, network), accelerator, callback)
    tuned = publish.publish_space(storage, request, job, trained, session.load_any)
    with storage.writer(f"add space of {request.label}", wait=wait) as writer:
        name = space_name or tuned.name
        writer.add_space(tuned.space, name=name, dtype=tuned.dtype, recipe=tuned.recipe)
    result = _result(session, request, session.space(tuned.key))
    accelerator.wait_for_everyone()
    return result


def _train_as_helper(session: Session, request: FinetuneRequest) -> FinetuneResult:
    """Train next to the first process, which alone writes, and read its result."""
    from embedstore.finetuning.run import run_job

    job, _ = make_job(session, request)
    network = session.load_any(request.space.recipe)
    accelerator = _accelerator(request, network)
    run_job(job, _fresh_backbones(session, request, network), accelerator)
    accelerator.wait_for_everyone()
    result = _find_result(session, request)
    if result is None:
        raise FinetuneError("the first process of this run has added no space; see its output")
    return result


def _fresh_backbones(
    session: Session, request: FinetuneRequest, loaded: TrainableBackbone
) -> Callable[[], TrainableBackbone]:
    """Return a loader of the space's backbone whose first call gives the one that is loaded already."""
    first = [loaded]
    return lambda: first.pop() if first else session.load_any(request.space.recipe)


def _features(session: Session, request: FinetuneRequest) -> Features:
    """Return the labeled rows of a request."""
    loaded = evaluate.features(session, request.label, where=request.where, space=request.space.key)
    return require_classes(loaded, "finetune")


def _find_result(session: Session, request: FinetuneRequest) -> FinetuneResult | None:
    """Return the result of the same run, if it was done before and its space still exists."""
    from embedstore.finetuning.publish import find_tuned_space

    tuned = find_tuned_space(session.storage, request, lambda: _features(session, request))
    return replace(_result(session, request, tuned), already_trained=True) if tuned else None


def _result(session: Session, request: FinetuneRequest, tuned: SpaceRecord) -> FinetuneResult:
    """Return the result that a checkpoint describes."""
    from embedstore.finetuning import checkpoint
    from embedstore.finetuning.publish import checkpoint_folder

    folder = checkpoint_folder(session.storage, tuned.key)
    run_key = str(checkpoint.read_manifest(folder).get("run", ""))
    training = checkpoint.read_summary(folder)
    return FinetuneResult(tuned, request.space, request.label, request.settings, training, folder, run_key)


def _embed_and_compare(
    session: Session, result: FinetuneResult, where: str | None, wait: float, progress: Progress
) -> FinetuneResult:
    """Embed all items into the new space, and compare it with its parent."""
    report = ingest.reembed(session, result.key, wait=wait, progress=None if callable(progress) else progress)
    comparison = compare_spaces.compare(session, result.label, result.key, result.parent.key, where=where, seed=0)
    return replace(result, embed_report=report, comparison=comparison)


def _accelerator(request: FinetuneRequest, network: TrainableBackbone) -> Accelerator:
    """Return the accelerator of this process, in the precision of the settings."""
    from embedstore.backbones.loading import training_precision
    from embedstore.finetuning.accelerator import create_accelerator

    return create_accelerator(network.device, training_precision(request.settings.precision, network))


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
