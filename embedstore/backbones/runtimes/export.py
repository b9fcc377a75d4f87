"""Export a network's towers as graphs for onnxruntime, and check them against the eager network before use."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.base import Backbone, l2_normalize
from embedstore.backbones.error_text import one_line, suppress_root_logging
from embedstore.backbones.runtimes import bpe
from embedstore.backbones.runtimes.onnx_encoder import (
    GRAPH_FILE,
    MANIFEST_FILE,
    MERGES_FILE,
    WEIGHTS_FILE,
    TowerManifest,
    create_session,
    tower_folder,
)
from embedstore.backbones.runtimes.runtime import (
    MIN_COSINE,
    Agreement,
    Tower,
    compare_vectors,
    require_onnx_export,
)
from embedstore.errors import BadBackbone, RuntimeMismatch
from embedstore.media.image.warnings_filter import suppress_warnings
from embedstore.resources import available_cores
from embedstore.space import Family
from embedstore.storage import durable_files
from embedstore.versions import library_version

OPSET = 17  # the first with LayerNormalization; the tracing exporter goes up to 20
MAX_PARAMETER_BYTES = 2_000_000_000  # bytes of parameters: a graph in one protobuf message may have 2 GiB
STALE_SECONDS = 3600.0  # seconds after which the files of a killed export are removed
GENERATED_IMAGES = 8  # images on which an image tower is compared, if the caller has none
GENERATED_CELLS = 7  # colored cells along each side of a generated image

_export_lock = threading.Lock()  # the exporter keeps its state in module variables

# Token ids and vectors are compared on these: ordinary words, entities, mojibake, other scripts, one text that is cut.
SENTENCES = (
    "a photo of a dog", "TWO cats, on a mat!", "it's raining; we're home", "&amp;lt;b&gt; 1999", "naïve cafÃ© ﬁsh",
    "犬の写真", "собака на пляже", "صورة قطة", "👩‍🚀 on the moon 🌕", "…", "x", "sunset over the sea " * 40,
)  # fmt: skip


@dataclass(frozen=True)
class TowerExample:
    """A tower to export, with what it is compared on.

    Attributes:
        module: the module that becomes the graph, on the backbone's device.
        inputs: prepared images or token ids.
        vectors: their eager vectors.
        context_length: tokens of a text; 0 for an image tower.
    """

    module: nn.Module
    inputs: NDArray[Any]
    vectors: NDArray[np.float32]
    context_length: int = 0


class _ImageTower(nn.Module):
    """Map pixels to vectors: scaling, network and unit norm in one graph."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        p = backbone.space.preprocess
        if p is None:
            raise BadBackbone(f"{backbone.space.architecture} has no preprocessing for images")
        self.module = backbone.module  # its parameters become the graph's
        self._features, self._unit = backbone.features, backbone.space.unit
        self.register_buffer("mean", torch.tensor(p.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(p.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self._features((inputs.float() / 255 - self.mean) / self.std).float()
        return l2_normalize(out) if self._unit else out


class _TextTower(nn.Module):
    """Map token ids to vectors of length 1."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.module = backbone.module

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        encode: Any = self.module.encode_text
        return l2_normalize(encode(inputs, normalize=False).float())


def export_tower(
    backbone: Backbone, towers_folder: Path, tower: Tower, pixels: NDArray[np.uint8] | None = None
) -> tuple[Agreement, float]:
    """Export one tower of a network, check it, and put it in its place; an earlier export is replaced.

    Args:
        backbone: the loaded network, on any device.
        towers_folder: the folder of the space's towers.
        tower: which one.
        pixels: prepared images ``(B, 3, H, W)`` on which an image tower is compared; by default generated ones.

    Returns:
        How closely it agrees with the eager network, and the seconds that the export took.

    Raises:
        MissingExtra: when onnx or onnxruntime is not installed.
        BadBackbone: when the network cannot be exported.
        NoTextTower: when the network has no text tower.
        RuntimeMismatch: when the exported tower gives other vectors; nothing is kept.
        OSError: when the folder cannot be written.
    """
    require_onnx_export()
    begin = time.perf_counter()
    _require_size(backbone)
    example = _text_example(backbone) if tower is Tower.TEXT else _image_example(backbone, pixels)
    towers_folder.mkdir(parents=True, exist_ok=True)
    _remove_stale_exports(towers_folder)
    temporary = towers_folder / f".{tower.value}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir()  # not by tempfile, whose folders only their owner can read
    try:
        _write_graph(example, temporary, backbone)
        if tower is Tower.TEXT and backbone.bpe_merges:
            shutil.copyfile(backbone.bpe_merges, temporary / MERGES_FILE)
        agreement = _check_graph(temporary / GRAPH_FILE, example, backbone, tower)
        _write_manifest(temporary, example, backbone, tower, agreement)
        _move_into_place(temporary, tower_folder(towers_folder, tower))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return agreement, time.perf_counter() - begin


def _image_example(backbone: Backbone, pixels: NDArray[np.uint8] | None) -> TowerExample:
    """Return the image tower with prepared images and their eager vectors."""
    module = _ImageTower(backbone).eval().to(backbone.device)
    if pixels is None or not len(pixels):
        pixels = _generate_images(backbone)
    return TowerExample(module, pixels, backbone.encode_images(pixels))


def _generate_images(backbone: Backbone) -> NDArray[np.uint8]:
    """Return prepared images of random colored cells."""
    p = backbone.space.preprocess
    height, width = p.size if p else (1, 1)
    cells = np.random.default_rng(0).integers(
        0, 256, (GENERATED_IMAGES, 3, GENERATED_CELLS, GENERATED_CELLS), dtype=np.uint8
    )
    rows, columns = (np.arange(n) * GENERATED_CELLS // n for n in (height, width))
    return cells[:, :, rows][:, :, :, columns]


def _text_example(backbone: Backbone) -> TowerExample:
    """Return the text tower with token ids and their eager vectors.

    Raises:
        NoTextTower: when the network has none.
        BadBackbone: when its tokenizer is not the one that is implemented without torch.
    """
    if backbone.space.family is Family.TRANSFORMERS:
        raise BadBackbone(f"the text tower of {backbone.space.architecture} is not exported: it runs with PyTorch")
    ids = backbone.tokenize(SENTENCES)
    context_length = ids.shape[1]
    if not np.array_equal(ids, bpe.tokenize(SENTENCES, context_length, backbone.bpe_merges)):
        raise BadBackbone(
            f"the tokenizer of {backbone.space.architecture} is not CLIP's own: texts need torch in this space"
        )
    module = _TextTower(backbone).eval().to(backbone.device)
    return TowerExample(module, ids, _run_eager(module, ids, backbone), context_length)


def _run_eager(module: nn.Module, inputs: NDArray[Any], backbone: Backbone) -> NDArray[np.float32]:
    """Return the vectors of a tower's module, in full precision."""
    with torch.inference_mode():
        vectors: NDArray[np.float32] = module(torch.from_numpy(inputs).to(backbone.device)).cpu().numpy()
    return vectors


def build_image_tower(backbone: Backbone, opset: int) -> Any:
    """Return the image tower as one model, from ``inputs`` (prepared images) to ``vectors``; nothing is compared.

    Args:
        backbone: the loaded network, on any device.
        opset: the version of ONNX's operators.

    Raises:
        MissingExtra: when onnx or onnxruntime is not installed.
        BadBackbone: when the network cannot be exported, or is too large for one file.
    """
    require_onnx_export()
    _require_size(backbone)
    module = _ImageTower(backbone).eval().to(backbone.device)
    with tempfile.TemporaryDirectory() as folder:
        return _trace(module, _generate_images(backbone)[:2], backbone, Path(folder) / "whole.onnx", opset)


def _require_size(backbone: Backbone) -> None:
    """Check that the parameters fit into one protobuf message.

    Raises:
        BadBackbone: when they do not.
    """
    size = sum(p.numel() * p.element_size() for p in backbone.module.parameters())
    if size > MAX_PARAMETER_BYTES:
        raise BadBackbone(f"{backbone.space.architecture} is too large to export: {size / 1e9:.1f} GB of parameters")


def _write_graph(example: TowerExample, folder: Path, backbone: Backbone) -> None:
    """Write the graph and its weights as two files.

    Raises:
        BadBackbone: when a part of the network has no counterpart in ONNX.
        OSError: when the folder cannot be written.
    """
    import onnx

    whole = folder / "whole.onnx"
    inputs = example.inputs[:2] if len(example.inputs) > 1 else np.repeat(example.inputs, 2, axis=0)
    graph = _trace(example.module, inputs, backbone, whole, OPSET)
    onnx.save(graph, os.fspath(folder / GRAPH_FILE), save_as_external_data=True, location=WEIGHTS_FILE)
    whole.unlink()


def _trace(module: nn.Module, inputs: NDArray[Any], backbone: Backbone, whole: Path, opset: int) -> Any:
    """Write the graph of a tower to one file and return it.

    Raises:
        BadBackbone: when a part of the network has no counterpart in ONNX.
        OSError: when the file cannot be written.
    """
    import onnx

    try:
        with _export_lock, _tracing():
            torch.onnx.export(
                module, (torch.from_numpy(inputs).to(backbone.device),), os.fspath(whole), dynamo=False,
                opset_version=opset, input_names=["inputs"], output_names=["vectors"],
                dynamic_axes={"inputs": {0: "batch"}, "vectors": {0: "batch"}},
            )  # fmt: skip
        return onnx.load(os.fspath(whole))
    except OSError:
        raise
    except Exception as e:  # the exporter raises whatever it meets in a network
        raise BadBackbone(f"{backbone.space.architecture} cannot be exported to ONNX: {one_line(e)}") from e


@contextmanager
def _tracing() -> Iterator[None]:
    """Disable fused attention, which has no counterpart in ONNX, and silence the exporter.

    The tracing exporter is deprecated; it takes 0.6 to 4 s where its successor takes 10, and its result is compared
    with the eager network before use.
    """
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with suppress_root_logging(), suppress_warnings(), torch.inference_mode():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)


def _check_graph(graph: Path, example: TowerExample, backbone: Backbone, tower: Tower) -> Agreement:
    """Compare both ways of running a graph, in one batch and with one input (a graph may have a fixed batch size).

    Returns:
        The weaker of the two agreements.

    Raises:
        RuntimeMismatch: when the vectors differ more than a space allows.
        BadBackbone: when onnxruntime cannot run the graph.
    """
    agreements = []
    for fast_start in (True, False):
        session = create_session(graph, threads=available_cores(), fast_start=fast_start)
        try:
            rows = session.run(None, {"inputs": example.inputs})[0].copy()
            rows[0] = session.run(None, {"inputs": example.inputs[:1]})[0][0]
        except Exception as e:  # onnxruntime's own tree of errors
            raise BadBackbone(f"{backbone.space.architecture} does not run in onnxruntime: {one_line(e)}") from e
        agreement = compare_vectors(example.vectors, rows)
        if not agreement.is_close:
            raise RuntimeMismatch(
                f"the exported {tower} tower of {backbone.space.architecture} gives other vectors ({agreement}; at "
                f"least {MIN_COSINE} is required); it is not used: --runtime eager"
            )
        agreements.append(agreement)
    return min(agreements, key=lambda a: a.min_cosine)


def _write_manifest(
    folder: Path, example: TowerExample, backbone: Backbone, tower: Tower, agreement: Agreement
) -> None:
    """Write ``tower.json`` next to the other files and flush everything to the disk."""
    names = [p.name for p in sorted(folder.iterdir())]
    manifest = TowerManifest(
        tower=tower.value,
        space=backbone.space.key,
        files={n: [(folder / n).stat().st_size, durable_files.file_xxh3(folder / n)] for n in names},
        context_length=example.context_length,
        onnxruntime=library_version("onnxruntime"),
        torch=torch.__version__,
        agreement=agreement,
        logit_scale=backbone.logit_scale if tower is Tower.TEXT else None,
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.to_json())
    for name in names:  # the exporter lets nobody else read the weights
        (folder / name).chmod((folder / MANIFEST_FILE).stat().st_mode)
    durable_files.sync_tree(folder)


def _move_into_place(temporary: Path, target: Path) -> None:
    """Rename a whole folder into place. An earlier one is moved away first; its readers keep their open files."""
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    with suppress(FileNotFoundError):
        target.rename(old / "replaced")
    try:
        temporary.rename(target)
    except OSError:
        if not (target / MANIFEST_FILE).exists():  # else another process was faster, with the same network
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    durable_files.sync_folder(target.parent)


def _remove_stale_exports(towers_folder: Path) -> None:
    """Remove the files of killed exports."""
    for leftover in towers_folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
