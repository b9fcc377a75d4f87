"""A run's place in the store: its key, its disk space, and the checkpoint and space that it adds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from embedstore.backbones.trainable import TrainableBackbone
from embedstore.classify.data.features import Features
from embedstore.errors import StoreIOError
from embedstore.finetuning import checkpoint, plots
from embedstore.finetuning.run import FinetuneJob, TrainingResult
from embedstore.finetuning.settings import FinetuneSettings
from embedstore.space import Recipe
from embedstore.storage.queries import finetuning as queries
from embedstore.storage.spaces import RecipeSpace, SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.wording import counted

DISK_SPACE_FACTOR = 1.1  # times the bytes that are known to be written: catalog rows, the file system's own needs
CATALOG_BYTES = 64  # per vector
STATE_COPIES = 11  # of the network: a checkpoint, and weights, best, average and two moments, of two epochs
AUGMENTATION_FILE, CURVES_FILE = "augmentation.png", "curves.png"


@dataclass(frozen=True)
class FinetuneRequest:
    """What a run trains.

    Attributes:
        space: whose backbone is trained.
        label: the column.
        where: filter on the items, or None.
        settings: the settings of the run.
    """

    space: RecipeSpace
    label: str
    where: str | None
    settings: FinetuneSettings

    def run_key(self, data: Features) -> str:
        """Return 16 hexadecimal digits: the same run on the same labels and splits has the same key."""
        rows = [data.ids.tolist(), data.y.tolist(), data.splits.tolist(), data.groups.tolist()]
        how = self.settings.to_json() | {"workers": 0}  # the number of workers does not change the result
        parts = {"parent": self.space.key, "label": self.label, "where": self.where, "rows": rows, "how": how}
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def checkpoint_folder(storage: Storage, space_key: str) -> Path:
    """Return the folder of a space's checkpoint."""
    return storage.layout.checkpoint_folder(space_key)


def run_folder(storage: Storage, run_key: str) -> Path:
    """Return the folder of a run's resumable state."""
    return storage.layout.root / "checkpoints" / f".{run_key}"


def find_tuned_space(
    storage: Storage, request: FinetuneRequest, load_features: Callable[[], Features]
) -> SpaceRecord | None:
    """Return the space that the same run has added before, if it still exists.

    Args:
        storage: the store.
        request: the run.
        load_features: returns the labeled features; called only where there are checkpoints to compare with.

    Raises:
        StoreDamaged: if a checkpoint's manifest cannot be read.
    """
    children = [s for s in storage.spaces() if s.space.parent == request.space.key]
    runs = {s.key: checkpoint.read_manifest(checkpoint_folder(storage, s.key)).get("run") for s in children}
    if not any(runs.values()):
        return None
    key = request.run_key(load_features())
    tuned = next((s for s in children if runs[s.key] == key), None)
    if tuned is not None:  # a process that was killed at the very end may have left the state
        shutil.rmtree(run_folder(storage, key), ignore_errors=True)
    return tuned


def training_bytes(backbone: TrainableBackbone, settings: FinetuneSettings) -> int:
    """Return the bytes that a run may write: checkpoint and resumable state, twice with ``refit``."""
    weights = sum(t.numel() * t.element_size() for t in backbone.module.state_dict().values())
    return int(weights) * STATE_COPIES * (2 if settings.refit else 1)


def require_disk_space(storage: Storage, space: SpaceRecord, training: int = 0) -> None:
    """Check before the work that the disk can hold it.

    Args:
        storage: the store.
        space: whose vectors are as large as the new ones.
        training: bytes that the training writes.

    Raises:
        StoreIOError: if there is not enough disk space for the training and a vector of every item.
    """
    root = storage.layout.root
    vectors = queries.count_image_contents(storage)
    needed = int(DISK_SPACE_FACTOR * (training + vectors * (space.bytes_per_vector + CATALOG_BYTES)))
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StoreIOError(
            f"not enough disk space in {root}: {counted(vectors, 'vector')} and the checkpoint need "
            f"{needed / 1e6:,.1f} MB, "
            f"{free / 1e6:,.1f} MB are free; free disk space, or drop a space with `embedstore drop-space STORE SPACE`"
        )


def publish_space(
    storage: Storage,
    request: FinetuneRequest,
    job: FinetuneJob,
    result: TrainingResult,
    load: Callable[[Recipe], TrainableBackbone],
) -> RecipeSpace:
    """Put the checkpoint in its place and return its space, which is not registered yet.

    Args:
        storage: the store.
        request: the run.
        job: the job with the folder of its state.
        result: the tuned network.
        load: loads a backbone by its recipe.

    Raises:
        StoreIOError: if the disk is full or fails.
    """
    parent, state = request.space, job.folder or run_folder(storage, request.run_key(job.data))
    temporary = state / "made"
    shutil.rmtree(temporary, ignore_errors=True)
    metadata = {"parent": parent.key, "licence": parent.space.licence, "label": request.label}
    metadata |= result.summary.to_json() | {"run": state.name.removeprefix("."), "how": request.settings.to_json()}
    checkpoint.write_files(temporary, result.weights, result.head, metadata)
    plots.draw_curves(result.summary.history, temporary / CURVES_FILE)
    if (state / AUGMENTATION_FILE).is_file():  # of images
        shutil.copyfile(state / AUGMENTATION_FILE, temporary / AUGMENTATION_FILE)
    weights = str(temporary / checkpoint.WEIGHTS_FILE)
    recipe = replace(parent.recipe, weights=weights, random_init=False, parent=parent.key)
    space = replace(load(recipe).space, licence=parent.space.licence, origin=f"fine-tuned from {parent.name}")
    checkpoint.publish(temporary, checkpoint_folder(storage, space.key))
    recipe = replace(recipe, weights=f"checkpoints/{space.key}/{checkpoint.WEIGHTS_FILE}")
    return replace(parent, name=f"{parent.name}-{request.label}", space=space, recipe=recipe)
