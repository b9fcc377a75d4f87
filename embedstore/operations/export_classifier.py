"""Write preprocessing, backbone and head as one ONNX model that needs neither the store nor embedstore."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore import __version__
from embedstore.classify import heads, registry
from embedstore.errors import BadBackbone, BadHead, RuntimeMismatch
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.onnx_graph import OPSET, OnnxGraph, load_onnx
from embedstore.operations.query_encoder import validation_images
from embedstore.operations.results import ExportedClassifier
from embedstore.operations.session import Session
from embedstore.space import Preprocess
from embedstore.storage import durable_files
from embedstore.storage.disk_errors import output_errors
from embedstore.storage.spaces import SpaceRecord
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

TOLERANCE = 1e-4  # of a probability
_GENERATED_SIDES = ((40, 60), (300, 200), (64, 64))  # of images that stand in for a store's own files


def export_classifier(session: Session, name: str, path: Path) -> ExportedClassifier:
    """Write a head with its backbone; see :meth:`embedstore.Store.export_classifier`."""
    if path.suffix.lower() != ".onnx":
        raise BadHead(f"a classifier is exported to .onnx, not {path.name!r}")
    head, estimator = registry.load_head(session.storage, name)
    record = session.space(head.space_key)
    preprocess = record.space.preprocess
    if preprocess is None:
        raise BadBackbone(
            f"space {record.name} has no network for images, so its head cannot leave with one; "
            f"`embedstore export-head STORE {head.name} FILE.onnx` writes the head alone, over vectors"
        )
    head_model = _load_builder()(estimator)
    backbone = session.backbone(record.key)
    model = _join(_build_parts(backbone, preprocess, record.dtype, head_model))
    _add_metadata(model, head, record, estimator)
    data = model.SerializeToString()
    images = list(validation_images(session, record)) or _generated_images()
    difference = _check(data, images, _Reference(backbone, preprocess, record, estimator))
    with output_errors(path), durable_files.atomic_write(path, f".{os.getpid()}.tmp") as file:
        file.write(data)
    return ExportedClassifier(os.fspath(path), len(data), len(estimator.classes_), len(images), difference)


def _load_builder() -> Any:
    """Return what builds the model of a head; it imports scikit-learn."""
    from embedstore.classify.heads.onnx_head import build_head_onnx

    return build_head_onnx


def _build_parts(backbone: Backbone, preprocess: Preprocess, dtype: str, head_model: Any) -> list[Any]:
    """Return the models in their order: each reads the first output of the one before it."""
    from embedstore.backbones.runtimes.export import build_image_tower
    from embedstore.backbones.runtimes.onnx_preprocess import build_preprocess_onnx

    tower = build_image_tower(backbone, OPSET)
    return [build_preprocess_onnx(preprocess), tower, _rounding(dtype, backbone.space.dim), head_model]


def _rounding(dtype: str, dim: int) -> Any:
    """Return the model that rounds vectors as the store does: the head was fitted on stored vectors."""
    graph = OnnxGraph("rounding")
    graph.apply("Identity", graph.cast(graph.cast("exact", dtype), np.float32), output="stored")
    return graph.build({"exact": (np.float32, ["N", dim])}, {"stored": (np.float32, ["N", dim])})


def _join(parts: list[Any]) -> Any:
    """Return one model of several, joined from the first output of each to the input of the next."""
    onnx = load_onnx()
    whole = parts[0]
    for number, part in enumerate(parts[1:]):
        part.ir_version = whole.ir_version
        prefixed = onnx.compose.add_prefix(part, f"part{number}_") if number == 0 else part
        joint = (whole.graph.output[0].name, prefixed.graph.input[0].name)
        whole = onnx.compose.merge_models(whole, prefixed, io_map=[joint])
    onnx.checker.check_model(whole)
    return whole


def _add_metadata(model: Any, head: registry.HeadRecord, record: SpaceRecord, estimator: Any) -> None:
    """Record in the model what it is and what it reads."""
    space = record.space
    facts = {
        "classes": json.dumps([str(c) for c in estimator.classes_]),
        "head": f"{head.name} ({head.kind})",
        "label": head.label,
        "space": f"{record.name} ({record.key})",
        "architecture": space.architecture,
        "weights": space.weights,
        "preprocess": json.dumps(asdict(space.preprocess) if space.preprocess else None),
        "input": "images: uint8 (N, height, width, 3), RGB, upright (EXIF orientation applied), any height and width",
        "embedstore": __version__,
    }
    load_onnx().helper.set_model_props(model, facts)
    model.producer_name, model.producer_version = "embedstore", __version__


class _Reference:
    """The probabilities that the store gives to images that are not items.

    Args:
        backbone: the loaded network.
        preprocess: the preprocessing of its space.
        record: the space.
        estimator: the head.
    """

    def __init__(self, backbone: Backbone, preprocess: Preprocess, record: SpaceRecord, estimator: Any) -> None:
        self._backbone, self._preprocess, self._record, self._estimator = backbone, preprocess, record, estimator

    def probabilities(self, images: list[Image.Image]) -> NDArray[np.floating[Any]]:
        """Return the probabilities of the classes, ``(N, K)``."""
        pixels = np.stack([resize_and_crop(image, self._preprocess) for image in images])
        vectors = self._backbone.encode_images(pixels)
        return heads.probabilities(self._estimator, vectors.astype(self._record.dtype).astype(np.float32))


def _generated_images() -> list[Image.Image]:
    """Return images of random cells, in place of files that cannot be read."""
    rng = np.random.default_rng(0)
    cells = (Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)) for _ in _GENERATED_SIDES)
    return [image.resize(sides) for image, sides in zip(cells, _GENERATED_SIDES, strict=True)]


def _check(data: bytes, images: list[Image.Image], reference: _Reference) -> float:
    """Return the largest difference of a probability between the model and the store.

    Raises:
        RuntimeMismatch: if it is above the tolerance; nothing was written.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = [session.run(["probabilities"], {"images": np.asarray(image)[None]})[0] for image in images]
    difference = float(np.abs(np.concatenate(found) - reference.probabilities(images)).max())
    if not difference <= TOLERANCE:
        raise RuntimeMismatch(
            f"the exported classifier gives other probabilities than the store, by up to {difference:.1g} on "
            f"{counted(len(images), 'image')} (at most {TOLERANCE:g} is allowed); nothing was written; another "
            "version of "
            "onnxruntime may agree, and the store itself still classifies"
        )
    return difference
