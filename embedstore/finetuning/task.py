"""What is learned from, what chooses, what judges; and the classifier to begin with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.base import Backbone
from embedstore.classify import heads
from embedstore.classify.data import splits
from embedstore.classify.data.features import Features
from embedstore.errors import FinetuneError, LabelError, NoTextTower
from embedstore.finetuning.dataset import LabeledImage, LabeledImageDataset
from embedstore.finetuning.model import ClassificationHead
from embedstore.finetuning.settings import FinetuneSettings, HeadInit
from embedstore.space import Preprocess
from embedstore.storage.spaces import RecipeSpace, SpaceRecord

SINGLE_EXAMPLE_C = 1.0  # with one example of a class nothing can choose C


@dataclass(frozen=True)
class FinetuneSplit:
    """Rows of the features: disjoint, and nothing that belongs together stands in two of them.

    Attributes:
        train, val, held: rows. Training learns, ``val`` chooses, ``held`` is not looked at here.
        split: name of the held-out side. own_val: ``val`` is the items' own split and not taken from training.
        leaks: training rows left out because their content or group is held out.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    held_out: NDArray[np.int64]
    split: str
    has_val_split: bool
    leaks: int


def split_rows(data: Features, *, seed: int = 0) -> FinetuneSplit:
    """The items' own split where they have one. Validation is their ``val`` rows where ``test`` judges; else a fifth
    of each class of the training rows.

    Raises:
        LabelError: a side is empty, or training has fewer than two classes; several labels an item.
    """  # noqa: D205
    if data.multilabel:
        raise LabelError("fine-tuning wants one label an item; cut the column into one a label")
    part = splits.split_rows(data.y, data.groups, data.splits, seed=seed)
    known = np.isin(data.y.astype(str), np.unique(data.y[part.train].astype(str)))
    spare = part.calibration[known[part.calibration]]
    if len(spare):
        return FinetuneSplit(part.train, spare, part.held_out, part.name, has_val_split=True, leaks=part.n_leaks)
    train, val = hold_out_validation(data, part.train, seed=seed)
    return FinetuneSplit(train, val, part.held_out, part.name, has_val_split=False, leaks=part.n_leaks)


def hold_out_validation(
    data: Features, rows: NDArray[np.int64], *, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Some rows as two: four fifths of every class to learn from, a fifth to choose by.

    Raises:
        LabelError: no class has two separate rows, or learning would be left with one class.
    """
    away = splits.hash_holdout_mask(data.y[rows], data.groups[rows], seed=seed)
    away = np.isin(data.groups[rows], data.groups[rows][away])
    train, val = rows[~away], rows[away]
    if not len(val) or not len(train):
        raise LabelError(
            f"no validation rows: {len(rows)} training items are too few to hold a fifth of each class out; label "
            "more, or give items `split = 'val'` beside `train` and `test`"
        )
    if len(np.unique(data.y[train].astype(str))) < 2:
        raise LabelError("training is left with one class after validation rows are held out; label more items")
    return train, val


def make_dataset(
    data: Features,
    files: Mapping[int, tuple[str, str]],
    classes: Sequence[str],
    preprocess: Preprocess,
    settings: FinetuneSettings,
) -> LabeledImageDataset:
    """Every row as an image.

    Args:
        data: labelled rows. files: path and content digest by item. classes: in order; others get number -1.
    """
    number = {c: i for i, c in enumerate(classes)}
    samples = [
        LabeledImage(*files[item], number.get(str(label), -1))
        for item, label in zip(data.ids.tolist(), data.y.tolist(), strict=True)
    ]
    return LabeledImageDataset(samples, preprocess, settings.augment)


def readable_rows(dataset: LabeledImageDataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows whose file is there and has the bytes that were embedded."""
    return np.array([r for r in rows.tolist() if dataset.is_readable(r)], dtype=np.int64)


def initial_head(
    data: Features, rows: NDArray[np.int64], classes: Sequence[str], settings: FinetuneSettings, backbone: Backbone
) -> ClassificationHead:
    """The classifier that training begins with, from the cached features of its rows.

    Raises:
        NoTextTower, LabelError: it cannot be made.
    """
    X, y = data.X[rows], data.y[rows].astype(str)
    size = float(np.sqrt(np.mean(np.square(X, dtype=np.float64)))) or 1.0
    if settings.start is HeadInit.RANDOM:
        zeros = np.zeros((len(classes), X.shape[1]), np.float32)
        return ClassificationHead(zeros, np.zeros(len(classes), np.float32), size)
    if settings.start is HeadInit.TEXT:
        if not backbone.space.text:
            raise NoTextTower("start text needs a network that understands words, such as a CLIP; use start probe")
        return ClassificationHead(
            _words(backbone.encode_texts, classes, backbone.logit_scale or 100.0), _none(classes), size
        )
    weight, bias = _probe(X, y, data.groups[rows], settings)
    return ClassificationHead(weight, bias, size)


def _probe(
    X: NDArray[np.float32], y: NDArray[np.str_], groups: NDArray[np.int64], settings: FinetuneSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logistic regression as rows of weights ``(K, D)`` and biases ``(K,)``."""
    lone = any(len(np.unique(groups[y == c])) < 2 for c in np.unique(y))
    options = {"Cs": [SINGLE_EXAMPLE_C]} if lone else {"cv": splits.max_folds(y.astype(object), groups)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")  # few labels of many classes
        fitted = heads.make_head("logistic", random_state=settings.seed, **options).fit(X, y, groups=groups)
    weight, bias = np.asarray(fitted.coef_, np.float32), np.asarray(fitted.intercept_, np.float32)
    if len(weight) == 1:
        both = np.array([[-0.5], [0.5]], np.float32)
        weight, bias = both * weight, both[:, 0] * bias
    return weight, bias


def _words(
    encode: Callable[[list[str]], NDArray[np.float32]], classes: Sequence[str], scale: float
) -> NDArray[np.float32]:
    """The classes' names as weights: unit vectors times the network's own scale."""
    vectors = np.asarray(heads.encode_class_vectors(encode, heads.build_prompts(list(classes), "photo")), np.float32)
    return vectors * scale


def _none(classes: Sequence[str]) -> NDArray[np.float32]:
    return np.zeros(len(classes), np.float32)


def check_tunable(space: SpaceRecord) -> RecipeSpace:
    """Return the space if its backbone can be fine-tuned.

    Raises:
        FinetuneError: if the vectors are precomputed, or taken before a projection that the network no longer has.
    """
    if not isinstance(space, RecipeSpace):
        raise FinetuneError(
            f"space {space.name} holds precomputed vectors: there is no network to tune; embed the images with a "
            "backbone first: `embedstore embed STORE SOURCE --backbone NAME`"
        )
    if space.space.layer == "before-projection":
        raise FinetuneError(
            f"space {space.name} takes features before the projection, which such a network no longer has; tune the "
            "space of the same backbone without --layer"
        )
    return space
