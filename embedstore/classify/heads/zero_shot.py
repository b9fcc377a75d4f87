"""Classes from their names: the zero-shot protocol of CLIP (Radford et al. 2021, section 3.1.4)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray, unit_rows
from embedstore.classify.heads.base import LogitClassifier, unit_features
from embedstore.classify.heads.numerics import blocks
from embedstore.classify.heads.options import check_positive
from embedstore.errors import DimensionMismatch, LabelError, MissingExtra, did_you_mean


class TemplateSet(StrEnum):
    """Built-in sets of prompt templates."""

    PHOTO = "photo"  # "a photo of a {}."
    NAME = "name"  # the name alone
    IMAGENET = "imagenet"  # open_clip's OPENAI_IMAGENET_TEMPLATES, 80 sentences
    SIMPLE = "simple"  # open_clip's SIMPLE_IMAGENET_TEMPLATES, the 7 that carry most of the gain


class ZeroShotHead(LogitClassifier):
    """Logits are ``logit_scale`` times the cosine with each class's text vector; nothing is fitted.

    Args:
        class_vectors: float ``(K, D)``, one per class, unit length (see :func:`encode_class_vectors`).
        classes: the K labels.
        logit_scale: the model's own, exponentiated; CLIP's training ends at 100.
    """

    def __init__(self, class_vectors: Array, classes: Sequence[Any] | Array, logit_scale: float = 100.0) -> None:
        self.class_vectors = class_vectors
        self.classes = classes
        self.logit_scale = logit_scale

    @property
    def classes_(self) -> Array:  # type: ignore[override]
        """Labels ``(K,)`` in the order of the class vectors."""
        return np.asarray(self.classes)

    @property
    def n_features_in_(self) -> int:
        """The dimension of the class vectors."""
        return int(np.shape(self.class_vectors)[1])

    def fit(self, X: Array | None = None, y: Array | None = None) -> ZeroShotHead:
        """Check that each class has one vector; nothing is learned.

        Args:
            X: not used.
            y: not used.

        Raises:
            DimensionMismatch: if there is not one vector per class.
            LabelError: if a class is named twice.
            BadHead: if the scale is not above 0.
        """
        check_positive("logit_scale", self.logit_scale)
        check_class_vectors(self.class_vectors, self.classes)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def _logits(self, X: Array) -> FloatArray:
        text = np.asarray(self.class_vectors, dtype=np.float32)
        return np.asarray(np.float32(self.logit_scale) * (unit_features(X, text.shape[1]) @ text.T))


def check_class_vectors(vectors: Array, classes: Sequence[Any] | Array) -> FloatArray:
    """Return the text vectors as unit rows, float32 ``(K, D)``, one for each of K different classes.

    Raises:
        DimensionMismatch: if there is not one vector per class.
        LabelError: if a class is named twice.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(classes):
        raise DimensionMismatch(f"expected one vector for each of {len(classes)} classes, found {vectors.shape}")
    if len(np.unique(np.asarray(classes))) != len(classes):
        raise LabelError("a class is named twice")
    return unit_rows(vectors)


def encode_class_vectors(
    encode_texts: Callable[[list[str]], Array], prompts: Mapping[str, Sequence[str]], *, batch_size: int = 256
) -> FloatArray:
    """Return one unit vector per class: every prompt encoded and normalized, averaged, normalized again.

    Memory is bounded by the batch and one vector per class, so thousands of classes with 80 prompts each are fine.

    Args:
        encode_texts: a function from sentences to vectors ``(n, D)``.
        prompts: the sentences of each class.
        batch_size: sentences encoded at once.

    Returns:
        float32 ``(K, D)``, in the order of ``prompts``.

    Raises:
        LabelError: if there are no classes, or a class has no prompt.
    """
    empty = [name for name, sentences in prompts.items() if not len(sentences)]
    if empty or not prompts:
        raise LabelError(f"no prompt for {', '.join(map(repr, empty[:5])) if empty else 'any class'}")
    sentences = [sentence for class_prompts in prompts.values() for sentence in class_prompts]
    class_of = np.repeat(np.arange(len(prompts)), [len(class_prompts) for class_prompts in prompts.values()])
    sums: FloatArray = np.zeros((len(prompts), 0))
    for s in blocks(len(sentences), batch_size):
        vectors = unit_rows(encode_texts(sentences[s]))
        sums = sums if sums.size else np.zeros((len(prompts), vectors.shape[1]))
        np.add.at(sums, class_of[s], vectors)
    return unit_rows(sums / np.bincount(class_of)[:, None])


def build_prompts(classes: Sequence[str] | Array, templates: Sequence[str] | str = "photo") -> dict[str, list[str]]:
    """Fill every template with every class name.

    Args:
        classes: names; underscores become spaces in the sentences.
        templates: sentences with ``{}`` for the name, or the name of a built-in set.

    Returns:
        The sentences of each class.

    Raises:
        LabelError: if there is no such set, or a template has no ``{}``.
        MissingExtra: if the set needs open_clip and it is not installed.
    """
    sentences = load_templates(templates) if isinstance(templates, str) else tuple(templates)
    incomplete = [t for t in sentences if "{}" not in t]
    if incomplete or not sentences:
        problem = f"{incomplete[0]!r} has none" if incomplete else "there is no template"
        raise LabelError(f"a template needs {{}} where the class name goes; {problem}")
    return {str(c): [t.replace("{}", str(c).replace("_", " ")) for t in sentences] for c in classes}


def load_templates(name: str) -> tuple[str, ...]:
    """Return the templates of a built-in set, with ``{}`` for the class name.

    Raises:
        LabelError: if there is no such set.
        MissingExtra: if the set needs open_clip and it is not installed.
    """
    known = [t.value for t in TemplateSet]
    if name not in known:
        raise LabelError(f"no template set {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}")
    match TemplateSet(name):
        case TemplateSet.PHOTO:
            return ("a photo of a {}.",)
        case TemplateSet.NAME:
            return ("{}",)
        case TemplateSet.IMAGENET:
            templates = _open_clip_metadata().OPENAI_IMAGENET_TEMPLATES
        case TemplateSet.SIMPLE:
            templates = _open_clip_metadata().SIMPLE_IMAGENET_TEMPLATES
    return tuple(template("{}") for template in templates)


def _open_clip_metadata() -> Any:
    """Load open_clip's table of templates from its file: importing the package would import torch (5 s)."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise MissingExtra("this template set comes with open_clip; run `pip install open_clip_torch`")
    file = Path(package.submodule_search_locations[0]) / "zero_shot_metadata.py"
    spec = importlib.util.spec_from_file_location("embedstore_open_clip_metadata", file)
    if spec is None or spec.loader is None:
        raise MissingExtra(f"open_clip has no {file.name}; run `pip install -U open_clip_torch`")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
