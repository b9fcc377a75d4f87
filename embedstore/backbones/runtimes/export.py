"""A network's towers as graphs for onnxruntime, checked against the eager network before anybody may use them."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.base import Backbone
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
from embedstore.backbones.runtimes.runtime import Agreement, Tower, compare_vectors, require_onnx_export
from embedstore.errors import BadBackbone, RuntimeMismatch
from embedstore.storage import durable_files
from embedstore.timing import available_cores

OPSET = 17  # the first with LayerNormalization; the tracing exporter goes up to 20
MAX_PARAMETER_BYTES = 2_000_000_000  # bytes of parameters: a graph in one protobuf message may have 2 GiB
STALE_SECONDS = 3600.0  # seconds after which what a killed export left is removed

_one_at_a_time = threading.Lock()  # the exporter keeps its state in module variables
TowerExample = tuple[nn.Module, NDArray[Any], NDArray[np.float32]]  # what to export, inputs, and their eager vectors

# Tokens and vectors are compared on these: ordinary words, entities, mojibake, other scripts, one text that is cut.
SENTENCES = (
    "a photo of a dog", "TWO cats, on a mat!", "it's raining; we're home", "&amp;lt;b&gt; 1999", "naïve cafÃ© ﬁsh",
    "犬の写真", "собака на пляже", "صورة قطة", "👩‍🚀 on the moon 🌕", "…", "x", "sunset over the sea " * 40,
)  # fmt: skip


class _Images(nn.Module):
    """Pixels to vectors: the scaling, the network and the unit norm in one graph."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        p = network.space.preprocess
        if p is None:
            raise BadBackbone(f"{network.space.architecture} has no preprocessing for images")
        self.module = network.module  # its parameters become the graph's
        self._features, self._unit = network.features, network.space.unit
        self.register_buffer("mean", torch.tensor(p.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(p.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self._features((inputs.float() / 255 - self.mean) / self.std).float()
        return nn.functional.normalize(out, dim=-1) if self._unit else out


class _Texts(nn.Module):
    """Tokens to unit vectors."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.module = network.module

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        encode: Any = self.module.encode_text
        return nn.functional.normalize(encode(inputs, normalize=False).float(), dim=-1)


def export_tower(
    backbone: Backbone, towers_folder: Path, tower: Tower, pixels: NDArray[np.uint8] | None = None
) -> tuple[Agreement, float]:
    """Export one tower of a network, check it, and put it in its place; one that stands there is replaced.

    Args:
        network: loaded, on any device.
        folder: of the space's towers.
        pixels: prepared images ``(B, 3, H, W)`` on which the image tower is compared.

    Returns:
        How near it is to the eager network, and the seconds it took.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
        BadBackbone: the network cannot be exported.
        RuntimeMismatch: the exported one gives other vectors; nothing is kept.
        OSError: the folder cannot be written.
    """
    require_onnx_export()
    begin = time.perf_counter()
    size = sum(p.numel() * p.element_size() for p in backbone.module.parameters())
    if size > MAX_PARAMETER_BYTES:
        raise BadBackbone(f"{backbone.space.architecture} is too large to export: {size / 1e9:.1f} GB of parameters")
    made, inputs, reference = _text(backbone) if tower is Tower.TEXT else _image(backbone, pixels)
    towers_folder.mkdir(parents=True, exist_ok=True)
    _sweep(towers_folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{tower.value}.", suffix=".tmp", dir=towers_folder))
    try:
        _written(made, inputs[:2], temporary, backbone)
        if tower is Tower.TEXT and backbone.bpe_merges:
            shutil.copyfile(backbone.bpe_merges, temporary / MERGES_FILE)
        found = _checked(temporary, inputs, reference, backbone, tower)
        _noted(temporary, backbone, tower, inputs.shape[1] if tower is Tower.TEXT else 0, found)
        _put(temporary, tower_folder(towers_folder, tower))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found, time.perf_counter() - begin


def _image(network: Backbone, pixels: NDArray[np.uint8] | None) -> TowerExample:
    """The image tower, what to compare it on, and the eager vectors."""
    p = network.space.preprocess
    made = _Images(network).eval().to(network.device)
    if pixels is None or not len(pixels):
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (8, 3, 7, 7), dtype=np.uint8)
        height, width = p.size if p else (1, 1)
        pixels = coarse[:, :, np.arange(height) * 7 // height][:, :, :, np.arange(width) * 7 // width]
    if network.precision == "fp32":
        return made, pixels, network.encode_images(pixels)
    with torch.inference_mode():
        return made, pixels, made(torch.from_numpy(pixels).to(network.device)).cpu().numpy()


def _text(network: Backbone) -> TowerExample:
    """The text tower, likewise.

    Raises:
        BadBackbone: it has none, or its tokenizer is not the one that is known without torch.
    """
    theirs = network.tokenize(SENTENCES)
    ours = bpe.tokenize(SENTENCES, theirs.shape[1], network.bpe_merges)
    if not np.array_equal(theirs, ours):
        raise BadBackbone(f"the tokenizer of {network.space.architecture} is not CLIP's own: words need torch there")
    made = _Texts(network).eval().to(network.device)
    with torch.inference_mode():
        return made, ours, made(torch.from_numpy(ours).to(network.device)).cpu().numpy()


def _written(made: nn.Module, inputs: NDArray[Any], folder: Path, network: Backbone) -> None:
    """The graph and its weights as two files.

    Raises:
        BadBackbone: something in the network has no counterpart.
    """
    import onnx

    whole = folder / "whole.onnx"
    example = torch.from_numpy(np.repeat(inputs[:1], 2, axis=0) if len(inputs) < 2 else inputs).to(network.device)
    try:
        with _one_at_a_time, _tracing():
            torch.onnx.export(
                made, (example,), os.fspath(whole), dynamo=False, opset_version=OPSET, input_names=["inputs"],
                output_names=["vectors"], dynamic_axes={"inputs": {0: "batch"}, "vectors": {0: "batch"}},
            )  # fmt: skip
        graph = onnx.load(os.fspath(whole))
        onnx.save(graph, os.fspath(folder / GRAPH_FILE), save_as_external_data=True, location=WEIGHTS_FILE)
    except OSError:
        raise
    except Exception as e:  # the exporter raises whatever it meets in a network
        raise BadBackbone(f"{network.space.architecture} cannot be exported to ONNX: {one_line(e)}") from e
    whole.unlink()


@contextmanager
def _tracing() -> Iterator[None]:
    """No fused attention, which has no counterpart, and none of the exporter's own talk.

    The tracing exporter is announced to end; it takes 0.6 to 4 s where its successor takes 10, and what it gives is
    compared with the eager network before use.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with suppress_root_logging(), warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _checked(
    folder: Path, inputs: NDArray[Any], reference: NDArray[np.float32], network: Backbone, tower: Tower
) -> Agreement:
    """Compare both ways of running it, in one batch and one by one (a graph may hold its batch size fixed).

    Raises:
        RuntimeMismatch: it is further off than a space allows.
    """
    worst: Agreement | None = None
    for brief in (True, False):
        run = create_session(folder / GRAPH_FILE, threads=available_cores(), fast_start=brief)
        try:
            rows = run.run(None, {"inputs": inputs})[0].copy()
            rows[0] = run.run(None, {"inputs": inputs[:1]})[0][0]
        except Exception as e:  # onnxruntime's own tree of errors
            raise BadBackbone(f"{network.space.architecture} does not run in onnxruntime: {one_line(e)}") from e
        found = compare_vectors(reference, rows)
        if not found.is_close:
            raise RuntimeMismatch(
                f"the exported {tower} tower of {network.space.architecture} gives other vectors ({found}; 0.9999 is "
                "the least); it is not used: --runtime eager"
            )
        worst = found if worst is None or found.cosine < worst.cosine else worst
    assert worst is not None  # noqa: S101 - the loop ran
    return worst


def _noted(folder: Path, network: Backbone, tower: Tower, length: int, found: Agreement) -> None:
    """``tower.json`` beside the files, everything forced to the disk."""
    names = [p.name for p in sorted(folder.iterdir())]
    note = TowerManifest(
        tower=tower.value,
        space=network.space.key,
        files={n: [(folder / n).stat().st_size, durable_files.file_xxh3(folder / n)] for n in names},
        length=length,
        onnxruntime=version("onnxruntime"),
        torch=torch.__version__,
        cosine=found.cosine,
        centred=found.centred,
        rows=found.rows,
        logit_scale=network.logit_scale if tower is Tower.TEXT else None,
    )
    (folder / MANIFEST_FILE).write_text(note.to_json(), encoding="utf-8")
    durable_files.sync_tree(folder)


def _put(temporary: Path, target: Path) -> None:
    """Rename a whole folder into place; one that stands there goes first, and readers of it keep its open files."""
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


def _sweep(folder: Path) -> None:
    """Remove what killed exports left."""
    for left in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
