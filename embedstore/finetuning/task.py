"""The rows that train, validate and test; their items; and the head that training starts from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.sequence import SequenceBackbone
from embedstore.backbones.trainable import TrainableBackbone
from embedstore.classify import heads
from embedstore.classify.data import splits
from embedstore.classify.data.class_examples import inner_folds
from embedstore.classify.data.features import Features
from embedstore.classify.data.hash_holdout import hash_holdout_mask
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.errors import FinetuneError, LabelError, NoTextTower
from embedstore.finetuning.dataset import LabeledImageDataset
from embedstore.finetuning.labeled import LabeledDataset, LabeledItem
from embedstore.finetuning.model import ClassificationHead
from embedstore.finetuning.sequence_dataset import LabeledSequenceDataset
from embedstore.finetuning.settings import AugmentationSettings, FinetuneSettings, HeadInit
from embedstore.modality import Modality
from embedstore.space import Space
from embedstore.storage.spaces import RecipeSpace, SpaceRecord
from embedstore.wording import counted

SINGLE_EXAMPLE_C = 1.0  # with one example of a class there is nothing to cross-validate C on
DEFAULT_LOGIT_SCALE = 100.0  # of a text head where the network brings none: CLIP's own


@dataclass(frozen=True)
class FinetuneSplit:
    """Disjoint rows of the features; items of one content or group are in the same part.

    Attributes:
        train: rows to train on.
        val: rows that select the epoch.
        held_out: rows that are not used here; the comparison judges on them.
        held_out_split: name of the held-out split.
        has_val_split: ``val`` is the items' own split, not a part of the training rows.
        leak_count: training rows left out because their content or group is held out.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    held_out: NDArray[np.int64]
    held_out_split: str
    has_val_split: bool
    leak_count: int


def split_rows(data: Features, *, seed: int = 0) -> FinetuneSplit:
    """Split labeled rows as a probe does, and take validation rows from the training side.

    Validation rows are the ``val`` items where ``test`` items are held out, else a fifth of each training class.

    Args:
        data: labeled features.
        seed: random seed of what the items' own splits do not decide.

    Raises:
        LabelError: if items have several labels, a part is empty, or training has fewer than two classes.
    """
    if data.multilabel:
        raise LabelError("fine-tuning needs one label per item; split the column into one column per label")
    if splits.held_out_split(data.splits) is None:  # as a probe: what a probe holds out does not train
        data = NearDuplicateOptions().join(data)
    part = splits.train_test_split(data, seed=seed)
    known = np.isin(data.y.astype(str), np.unique(data.y[part.train].astype(str)))
    train, val = part.train, part.calibration[known[part.calibration]]
    has_val_split = len(val) > 0
    if not has_val_split:
        train, val = hold_out_validation(data, part.train, seed=seed)
    return FinetuneSplit(train, val, part.held_out, part.name, has_val_split=has_val_split, leak_count=part.n_leaks)


def hold_out_validation(
    data: Features, rows: NDArray[np.int64], *, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return four fifths of every class to train on, and a fifth to validate with.

    Args:
        data: labeled features.
        rows: the rows to divide.
        seed: random seed.

    Raises:
        LabelError: if no class has two separate rows, or one class is left to train on.
    """
    away = hash_holdout_mask(data.y[rows], data.groups[rows], seed=seed, purpose="val")
    away = np.isin(data.groups[rows], data.groups[rows][away])
    train, val = rows[~away], rows[away]
    if not len(val) or not len(train):
        raise LabelError(
            f"no validation rows: {counted(len(rows), 'training item is', 'training items are')} too few to hold out "
            "a fifth of each class; label "
            "more, or give items `split = 'val'` next to `train` and `test`"
        )
    if len(np.unique(data.y[train].astype(str))) < 2:
        raise LabelError("training is left with one class after validation rows are held out; label more items")
    return train, val


def make_dataset(
    data: Features,
    files: Mapping[int, tuple[str, str]],
    classes: Sequence[str],
    backbone: TrainableBackbone,
    settings: FinetuneSettings,
) -> LabeledDataset:
    """Return every row as the backbone reads it.

    Args:
        data: labeled rows.
        files: path and content hash by item.
        classes: the classes in order; a label that is not among them gets number -1.
        backbone: whose inputs are prepared.
        settings: the settings with the augmentation.

    Raises:
        FinetuneError: if the settings augment items that are no images, or the space has no preprocessing.
    """
    number = {c: i for i, c in enumerate(classes)}
    samples = [
        LabeledItem(*files[item], number.get(str(label), -1))
        for item, label in zip(data.ids.tolist(), data.y.tolist(), strict=True)
    ]
    if isinstance(backbone, SequenceBackbone):
        check_augmentation(backbone.space, settings)
        return LabeledSequenceDataset(samples, backbone)
    if backbone.space.preprocess is None:
        raise FinetuneError(f"space {backbone.space.key} has no preprocessing of images, so its backbone is not tuned")
    return LabeledImageDataset(samples, backbone.space.preprocess, settings.augment)


def check_augmentation(space: Space, settings: FinetuneSettings) -> None:
    """Check that a run over texts or sound states no augmentation, which is of images.

    Raises:
        FinetuneError: if it does.
    """
    stated, usual = asdict(settings.augment), asdict(AugmentationSettings())
    changed = [name for name, value in stated.items() if value != usual[name]]
    if changed and space.modality is not Modality.IMAGE:
        raise FinetuneError(
            f"{', '.join(changed)} augments images, and this space is of {space.modality.plural}; leave it out"
        )


def readable_rows(dataset: LabeledDataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows whose item can be read and has the bytes that were embedded."""
    return np.array([r for r in rows.tolist() if dataset.is_readable(r)], dtype=np.int64)


def initial_head(
    data: Features,
    rows: NDArray[np.int64],
    classes: Sequence[str],
    settings: FinetuneSettings,
    backbone: TrainableBackbone,
) -> ClassificationHead:
    """Return the head that training starts from, from the cached features of its rows.

    Args:
        data: labeled features.
        rows: training rows.
        classes: the classes in the order of the head.
        settings: the settings with ``head_init``.
        backbone: whose text encoder makes a text head.

    Raises:
        NoTextTower: if ``head_init`` is text and the network has no text encoder.
        LabelError: if the labels cannot support a logistic regression.
    """
    X, y = data.X[rows], data.y[rows].astype(str)
    feature_rms = float(np.sqrt(np.mean(np.square(X, dtype=np.float64)))) or 1.0
    weight = np.zeros((len(classes), X.shape[1]), np.float32)
    bias = np.zeros(len(classes), np.float32)
    if settings.head_init is HeadInit.PROBE:
        weight, bias = _probe_weights(X, y, data.groups[rows], settings)
    elif settings.head_init is HeadInit.TEXT:
        if not backbone.space.text:
            raise NoTextTower("head_init text needs a network with a text encoder, such as CLIP; use head_init probe")
        templates = heads.build_prompts(list(classes), "photo" if backbone.space.modality is Modality.IMAGE else ["{}"])
        weight = _text_weights(backbone.encode_texts, templates, backbone.logit_scale or DEFAULT_LOGIT_SCALE)
    return ClassificationHead(weight, bias, feature_rms)


def _probe_weights(
    X: NDArray[np.float32], y: NDArray[np.str_], groups: NDArray[np.int64], settings: FinetuneSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights ``(K, D)`` and biases ``(K,)`` of a logistic regression."""
    n_folds = inner_folds(y.astype(object), groups)
    options: dict[str, Any] = {"cv": n_folds} if n_folds else {"C": SINGLE_EXAMPLE_C}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")  # few labels of many classes
        probe = heads.make_head("logistic", random_state=settings.seed, **options).fit(X, y, groups=groups)
    weight, bias = np.asarray(probe.coef_, np.float32), np.asarray(probe.intercept_, np.float32)
    if len(weight) == 1:  # two classes: one row becomes two opposite ones
        halves = np.array([[-0.5], [0.5]], np.float32)
        weight, bias = halves * weight, halves[:, 0] * bias
    return weight, bias


def _text_weights(
    encode: Callable[[list[str]], NDArray[np.float32]], prompts: Mapping[str, Sequence[str]], scale: float
) -> NDArray[np.float32]:
    """Return the text vectors of the class names, times the network's logit scale."""
    return np.asarray(heads.encode_class_vectors(encode, prompts), np.float32) * scale


def check_tunable(space: SpaceRecord) -> RecipeSpace:
    """Return the space if its backbone can be fine-tuned.

    Raises:
        FinetuneError: if the vectors are precomputed, or taken before a projection that a tuned network no longer has.
    """
    if not isinstance(space, RecipeSpace):
        raise FinetuneError(
            f"space {space.name} holds precomputed vectors: there is no network to tune; embed the items with a "
            "backbone first: `embedstore embed STORE SOURCE --backbone NAME`"
        )
    if space.space.layer == "before-projection":
        raise FinetuneError(
            f"space {space.name} takes features before the projection, which a tuned network no longer has; tune the "
            "space of the same backbone without --layer"
        )
    return space
