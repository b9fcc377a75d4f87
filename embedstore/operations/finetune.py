"""Fine-tune a backbone: train, register the new space, embed, compare."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore import finetuning
from embedstore.classify.data.features import Features
from embedstore.errors import EmbedstoreError, StoreIOError
from embedstore.finetuning import FinetuneSettings
from embedstore.operations import compare_spaces, evaluate, ingest
from embedstore.operations.finetune_result import FinetuneResult
from embedstore.operations.session import Session
from embedstore.reports.progress import Progress, training_progress
from embedstore.storage import lock
from embedstore.storage.spaces import RecipeSpace, SpaceRecord
from embedstore.storage.sql import content_hex, decode_path

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.finetuning.run import FinetuneJob, TrainingResult

DISK_SPACE_FACTOR = 1.1  # of what is known to be written; catalog rows and the file system need some more
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What to fine-tune.

    Attributes:
        record: the space whose backbone is trained.
        label: the column to learn.
        where: a filter on the items.
        settings: of the training.
    """

    record: SpaceRecord
    label: str
    where: str | None
    settings: FinetuneSettings


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
    from embedstore.finetuning.accelerator import process_rank

    request = Request(session.space(space), label, where, finetuning.parse_settings(dict(options)))
    result = _earlier_result(session, request)
    if process_rank():
        return replace(result or _train_as_helper(session, request), is_helper_process=True)
    if result is None:
        result = _train(session, request, space_name, wait, progress)
    elif embed:
        _check_disk_space(session, request.record, 0, len(_contents(session)))
    return _embed_and_compare(session, request, result, wait, progress) if embed else result


def make_job(session: Session, request: Request, data: Features) -> FinetuneJob:
    """Return what is to be learned, and the folder of its state."""
    from embedstore.finetuning import task
    from embedstore.finetuning.run import FinetuneJob

    rows = session.storage.sql("SELECT item, uri, path, content::VARCHAR FROM items WHERE content IS NOT NULL")[1]
    files = {item: (decode_path(uri, path), content_hex(content)) for item, uri, path, content in rows}
    folder = session.path / "checkpoints" / f".{_run_key(request, data)}"
    return FinetuneJob(data, task.split_rows(data, seed=request.settings.seed), files, request.settings, folder)


def _train(
    session: Session, request: Request, space_name: str | None, wait: float, progress: Progress
) -> FinetuneResult:
    """Train and register the new space."""
    from embedstore.finetuning import plots, task
    from embedstore.finetuning.accelerator import create_accelerator
    from embedstore.finetuning.run import job_dataset, run_job, save_augmentation_sheet

    record = task.check_tunable(request.record)
    plots.require_matplotlib()
    settings = request.settings
    job = make_job(session, request, _features(session, request))
    folder = _state_folder(job)

    def train() -> FinetuneResult:
        backbone = session.load(record.recipe)
        state_bytes = _state_bytes(backbone) * (2 if settings.refit else 1)
        _check_disk_space(session, record, state_bytes, len(_contents(session)))
        save_augmentation_sheet(job, job_dataset(job, backbone), folder / "augmentation.png")
        logger.info("examples of augmented training images: %s", folder / "augmentation.png")
        precision = backbone.precision if settings.precision == "auto" else settings.precision
        accelerator = create_accelerator(backbone.device, precision)
        with training_progress(settings.epochs, progress) as callback:
            trained = run_job(job, _load_once(session, record, backbone), accelerator, callback)
        result = _register(session, record, request.label, job, trained, space_name, wait)
        accelerator.wait_for_everyone()
        return result

    folder.mkdir(parents=True, exist_ok=True)
    run = {"label": request.label, "where": request.where} | settings.to_json()
    with lock.writer_lock(folder / "LOCK", f"finetune {request.label}"), _removed_if_stateless(folder):
        result = session.recorded("finetune", record, run, train)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _train_as_helper(session: Session, request: Request) -> FinetuneResult:
    """Train next to the first process: write nothing, and read its result."""
    from embedstore.finetuning import task
    from embedstore.finetuning.accelerator import create_accelerator
    from embedstore.finetuning.run import run_job

    record = task.check_tunable(request.record)
    job = make_job(session, request, _features(session, request))
    backbone = session.load(record.recipe)
    precision = backbone.precision if request.settings.precision == "auto" else request.settings.precision
    accelerator = create_accelerator(backbone.device, precision)
    run_job(job, _load_once(session, record, backbone), accelerator)
    accelerator.wait_for_everyone()
    result = _earlier_result(session, request)
    if result is None:
        raise StoreIOError(f"{session.path} has no space of this run: the first process did not register it")
    return result


def _load_once(session: Session, record: RecipeSpace, backbone: Backbone) -> Callable[[], Backbone]:
    """Return a loader that gives the loaded backbone first and loads a new one at each later call."""
    loaded = [backbone]
    return lambda: loaded.pop() if loaded else session.load(record.recipe)


def _features(session: Session, request: Request) -> Features:
    """Return the labelled rows of a request."""
    return evaluate.features(session, request.label, where=request.where, space=request.record.key)


def _run_key(request: Request, data: Features) -> str:
    """Return the key of a run: equal for equal settings, labels and splits."""
    rows = [data.ids.tolist(), data.y.tolist(), data.splits.tolist(), data.groups.tolist()]
    settings = request.settings.to_json() | {"workers": 0}
    facts = {"parent": request.record.key, "label": request.label, "where": request.where}
    return finetuning.run_digest(facts | {"rows": rows, "how": settings})


def _register(
    session: Session,
    record: RecipeSpace,
    label: str,
    job: FinetuneJob,
    trained: TrainingResult,
    space_name: str | None,
    wait: float,
) -> FinetuneResult:
    """Publish the checkpoint, then add the space to the catalog."""
    from embedstore.finetuning import checkpoint, plots

    state_folder = _state_folder(job)
    made = state_folder / "made"
    shutil.rmtree(made, ignore_errors=True)
    model = trained.trainer.finetune_model
    weights = {n: t.cpu() for n, t in (model.initial_state | trained.selection.weights).items()}
    metadata = _checkpoint_metadata(record, label, trained)
    metadata |= {"run": state_folder.name.removeprefix("."), "how": job.settings.to_json()}
    checkpoint.write_files(made, weights, trained.selection.head, metadata)
    plots.draw_curves(trained.history, made / "curves.png")
    shutil.copyfile(state_folder / "augmentation.png", made / "augmentation.png")
    recipe = replace(record.recipe, weights=str(made / checkpoint.WEIGHTS_FILE), random_init=False, parent=record.key)
    space = replace(session.load(recipe).space, licence=record.space.licence, origin=f"fine-tuned from {record.name}")
    folder = session.path / "checkpoints" / space.key
    checkpoint.publish(made, folder)
    recipe = replace(recipe, weights=f"checkpoints/{space.key}/{checkpoint.WEIGHTS_FILE}")
    with session.storage.writer(f"add space of {label}", wait=wait) as writer:
        writer.add_space(space, name=space_name or f"{record.name}-{label}", dtype=record.dtype, recipe=recipe)
    return FinetuneResult(
        session.space(space.key).name,
        space.key,
        record.name,
        label,
        folder,
        job.settings,
        metadata,
        space.has_same_vectors(record.space),
    )


def _earlier_result(session: Session, request: Request) -> FinetuneResult | None:
    """Return the result of the same run if it was done before and its space still exists."""
    from embedstore.finetuning import checkpoint

    record, checkpoints = request.record, session.path / "checkpoints"
    tuned = [s for s in session.storage.spaces() if s.space.parent == record.key]
    manifests = {s.key: checkpoint.read_manifest(checkpoints / s.key) for s in tuned}
    if not any(manifests.values()):
        return None
    key = _run_key(request, _features(session, request))
    for s in tuned:
        if manifests[s.key].get("run") == key:
            shutil.rmtree(checkpoints / f".{key}", ignore_errors=True)  # left by a kill after the space was added
            return FinetuneResult(
                s.name,
                s.key,
                record.name,
                request.label,
                checkpoints / s.key,
                request.settings,
                manifests[s.key],
                s.space.has_same_vectors(record.space),
                already_trained=True,
            )
    return None


def _embed_and_compare(
    session: Session, request: Request, result: FinetuneResult, wait: float, progress: Progress
) -> FinetuneResult:
    """Embed the images into the new space, and compare both spaces."""
    report = ingest.reembed(session, result.key, wait=wait, progress=progress)
    comparison = compare_spaces.compare(
        session, request.label, result.key, request.record.key, where=request.where, seed=0
    )
    return replace(result, embed_report=report, comparison=comparison)


def _contents(session: Session) -> list[str]:
    """Return every content that came from an image file."""
    query = "SELECT DISTINCT content::VARCHAR FROM items JOIN contents USING (content) WHERE present AND bytes > 0"
    return [c for (c,) in session.storage.sql(query)[1]]


def _check_disk_space(session: Session, record: SpaceRecord, state_bytes: int, contents: int) -> None:
    """Refuse before the work what the disk cannot hold."""
    from embedstore.finetuning.resume_state import free_bytes

    need = int(DISK_SPACE_FACTOR * (state_bytes + contents * (record.bytes_per_vector + 64)))
    free = free_bytes(session.path)
    if need > free:
        raise StoreIOError(
            f"not enough room in {session.path}: {contents:,} vectors and the checkpoint need {need / 1e6:,.1f} MB, "
            f"{free / 1e6:,.1f} MB are free; make room, or drop a space with `embedstore drop-space`"
        )


@contextmanager
def _removed_if_stateless(folder: Path) -> Iterator[None]:
    """Remove the folder of a run that fails before its first saved state. The caller holds the folder's lock."""
    from embedstore.finetuning import resume_state

    try:
        yield
    except EmbedstoreError:
        if not (folder / resume_state.STATE_FILE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _state_folder(job: FinetuneJob) -> Path:
    """Return the folder of a job's state."""
    if job.folder is None:
        raise ValueError("this job has no folder for its state")
    return job.folder


def _checkpoint_metadata(record: RecipeSpace, label: str, trained: TrainingResult) -> dict[str, Any]:
    """Return what ``checkpoint.json`` records next to the weights."""
    c = trained.selection
    return {
        "parent": record.key,
        "licence": record.space.licence,
        "label": label,
        "classes": list(trained.classes),
        "epoch": c.epoch,
        "alpha": c.alpha,
        "val_score": asdict(c.val),
        "mixtures": [{"alpha": a, **asdict(s)} for a, s in c.line],
        "history": trained.history.to_json(),
        "train": trained.train,
        "val": trained.val,
        "unread": trained.unread,
        "refitted": trained.refitted,
        "blocks": trained.blocks,
        "tuned_blocks": trained.tuned,
        "parameters": trained.parameters,
        "rate": trained.rate,
        "seconds": round(trained.seconds, 3),
    }


def _state_bytes(backbone: Any) -> int:
    """Return the bytes a run may write: checkpoint, weights, best, average and two moments, old and new."""
    weights = sum(t.numel() * t.element_size() for t in backbone.module.state_dict().values())
    return int(weights * 11)
