"""The exported towers of a space, run by onnxruntime; torch is not imported here.

A tower is a folder that appears whole or not at all: the graph, its weights, the merges if the vocabulary is its own,
and ``tower.json``, which records its space, the digest of every file, and how closely it agreed with the eager network
when it was exported. A tower that is absent, damaged, of another space or checked with another version of onnxruntime
is never used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.batch_runner import BatchRunner, require_pixels
from embedstore.backbones.error_text import one_line
from embedstore.backbones.runtimes import bpe
from embedstore.backbones.runtimes.onnx_format import check_graph_file
from embedstore.backbones.runtimes.runtime import Agreement, Tower, has_onnxruntime, no_text_tower
from embedstore.json_objects import parse_json_object
from embedstore.space import Space
from embedstore.storage import durable_files
from embedstore.storage.description_checksum import (
    DESCRIPTION_CHECKSUM_KEY,
    check_description,
    dump_description,
)  # fmt: skip
from embedstore.storage.store_files import read_bounded
from embedstore.versions import library_version

MANIFEST_FORMAT = 2  # with a checksum of its own
MANIFEST_FILE, GRAPH_FILE, WEIGHTS_FILE, MERGES_FILE = "tower.json", "graph.onnx", "weights.bin", "merges.txt.gz"
DATA_FILES = (GRAPH_FILE, WEIGHTS_FILE, MERGES_FILE)
IMAGE_BATCH_SIZE = (
    4  # images per forward pass: within 7% of the best of 1 to 16 for every network of docs/benchmarks.md
)
MAX_CONTEXT_LENGTH = 1 << 16  # tokens of a text
TEXT_BATCH_SIZE = 64  # texts per forward pass
MAX_QUERY_THREADS = 8  # of one query: more take longer to start than to compute


@dataclass(frozen=True)
class Unavailable:
    """A tower that cannot be used.

    Attributes:
        reason: why, as the end of a sentence.
    """

    reason: str


@dataclass(frozen=True)
class TowerManifest:
    """The content of ``tower.json``.

    Attributes:
        tower: image or text.
        space: the key of its space.
        files: ``[bytes, XXH3-128]`` by file name.
        context_length: tokens of a text; 0 for an image tower.
        onnxruntime: the version with which it was checked.
        torch: the version that exported it.
        agreement: the weakest agreement with the eager network.
        logit_scale: exp of CLIP's own, for a text tower.
    """

    tower: str
    space: str
    files: dict[str, list[Any]]
    context_length: int
    onnxruntime: str
    torch: str
    agreement: Agreement
    logit_scale: float | None = None

    def to_json(self) -> bytes:
        """Return the text of ``tower.json``."""
        values = {**vars(self), **self.agreement.to_json(), "length": self.context_length, "format": MANIFEST_FORMAT}
        del values["agreement"], values["context_length"]
        return dump_description(values, DESCRIPTION_CHECKSUM_KEY) + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> TowerManifest:
        """Return the manifest stored by :meth:`to_json`.

        Raises:
            ValueError: when the text is not JSON, or of another format.
            KeyError: when a value is missing.
            TypeError: when the text is not a JSON object.
        """
        values = parse_json_object(text)
        if values["format"] != MANIFEST_FORMAT:
            raise ValueError(f"another version of embedstore wrote format {values['format']}")
        values = check_description(values, DESCRIPTION_CHECKSUM_KEY)
        names = {f.name for f in fields(cls)} - {"agreement", "context_length"}
        stored = {name: values[name] for name in names}
        manifest = cls(**stored, context_length=values["length"], agreement=Agreement.from_json(values))
        manifest.require_types()
        return manifest

    def require_types(self) -> None:
        """Check the values of a manifest, which may be from somebody else.

        Raises:
            ValueError: when a value is out of its bounds, or a file is not one of a tower.
            TypeError: when a value has another type.
        """
        texts = (self.tower, self.space, self.onnxruntime, self.torch)
        if not all(isinstance(text, str) for text in texts) or type(self.context_length) is not int:
            raise TypeError("a value has another type")
        if not 0 <= self.context_length <= MAX_CONTEXT_LENGTH:
            raise ValueError(f"texts of {self.context_length} tokens")
        if not {GRAPH_FILE} <= self.files.keys() <= set(DATA_FILES):
            raise ValueError("it names other files than those of a tower")
        if self.logit_scale is not None and not (type(self.logit_scale) is float and math.isfinite(self.logit_scale)):
            raise TypeError("its logit scale is not a number")


def tower_folder(towers_folder: Path, tower: Tower) -> Path:
    """Return the folder of one tower within the folder of a space's towers."""
    return towers_folder / tower.value


def read_manifest(towers_folder: Path, tower: Tower, space_key: str) -> TowerManifest | Unavailable:
    """Return the manifest of a tower, or why the tower cannot be used; its other files are not read."""
    try:
        manifest = TowerManifest.from_json(read_bounded(tower_folder(towers_folder, tower) / MANIFEST_FILE))
    except FileNotFoundError:
        return Unavailable("it was not exported")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        return Unavailable(f"its {MANIFEST_FILE} cannot be read ({type(e).__name__}: {one_line(e, 60)})")
    if manifest.tower != tower:
        return Unavailable(f"its {MANIFEST_FILE} belongs to the {manifest.tower} tower")
    if manifest.space != space_key:
        return Unavailable(f"it belongs to space {manifest.space}")
    if not has_onnxruntime():
        return Unavailable("onnxruntime is not installed")
    installed = library_version("onnxruntime")
    if manifest.onnxruntime != installed:
        return Unavailable(f"it was checked with onnxruntime {manifest.onnxruntime}, and {installed} is installed")
    return manifest


def is_exported(towers_folder: Path, tower: Tower, space_key: str) -> bool:
    """Return whether a tower was exported and its manifest allows its use."""
    return isinstance(read_manifest(towers_folder, tower, space_key), TowerManifest)


def record_refusal(towers_folder: Path, tower: Tower, reason: str) -> None:
    """Record that these versions cannot export a tower, unless the folder cannot be written."""
    with suppress(OSError):
        towers_folder.mkdir(parents=True, exist_ok=True)
        durable_files.write_synced(_refusal_file(towers_folder, tower), f"{_export_versions()}\n{reason}\n".encode())


def was_refused(towers_folder: Path, tower: Tower) -> bool:
    """Return whether these versions failed to export the tower before."""
    try:
        text = read_bounded(_refusal_file(towers_folder, tower)).decode()
    except (OSError, ValueError):
        return False
    return text.startswith(f"{_export_versions()}\n")


def _refusal_file(towers_folder: Path, tower: Tower) -> Path:
    """Return the file that records a failed export."""
    return towers_folder / f"{tower.value}.refused"


def _export_versions() -> str:
    """Return the versions on which an export depends."""
    return " ".join(f"{name} {library_version(name)}" for name in ("torch", "onnx", "onnxruntime"))


class OnnxTower:
    """One tower, checked against its digests and loaded.

    Args:
        path: its folder.
        manifest: its manifest.
        threads: threads of one forward pass; with 1, callers on several threads share the cores.
        fast_start: start faster and run slower, for a few forward passes.

    Attributes:
        manifest: its manifest.
        bpe_merges: the file of its vocabulary, if it has its own.

    Raises:
        ValueError: when a file is damaged or unknown.
    """

    def __init__(self, path: Path, manifest: TowerManifest, *, threads: int, fast_start: bool) -> None:
        for name, (size, digest) in manifest.files.items():
            file = path / name
            if file.stat().st_size != size or durable_files.file_xxh3(file) != digest:
                raise ValueError(f"{file} differs from what was exported")
        check_graph_file(path / GRAPH_FILE, weights_name=WEIGHTS_FILE)
        self.manifest = manifest
        self.bpe_merges = path / MERGES_FILE if MERGES_FILE in manifest.files else None
        self._session = create_session(path / GRAPH_FILE, threads=threads, fast_start=fast_start)

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return the vectors of prepared images ``(B, 3, H, W)`` uint8, or of token ids ``(T, L)`` int64."""
        out: NDArray[np.float32] = self._session.run(None, {"inputs": inputs})[0]
        return out


def create_session(graph: Path, *, threads: int, fast_start: bool) -> Any:
    """Return an onnxruntime session of a graph file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns about graphs that it runs well
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if fast_start:  # map the weights as they are, without copies in the order that the kernels prefer
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return ort.InferenceSession(os.fspath(graph), options, providers=["CPUExecutionProvider"])


def open_tower(
    towers_folder: Path, tower: Tower, space_key: str, *, threads: int, fast_start: bool
) -> OnnxTower | Unavailable:
    """Return a tower ready to run, or why it cannot be used.

    Args:
        towers_folder: the folder of the space's towers.
        tower: which one.
        space_key: the key of the space.
        threads: threads of one forward pass.
        fast_start: start faster and run slower, for a few forward passes.
    """
    manifest = read_manifest(towers_folder, tower, space_key)
    if isinstance(manifest, Unavailable):
        return manifest
    try:
        return OnnxTower(tower_folder(towers_folder, tower), manifest, threads=threads, fast_start=fast_start)
    except Exception as e:  # onnxruntime raises its own errors, some of which are not RuntimeErrors
        return Unavailable(f"it cannot be loaded: {one_line(e, 200)}")


class OnnxEncoder:
    """A space's encoder without torch: the towers that were opened.

    Args:
        space: the space of the vectors.
        image: the image tower, if it was opened.
        text: the text tower, if it was opened.

    Attributes:
        space: the space of the vectors.
        logit_scale: exp of CLIP's own logit scale, if the text tower was opened.
        runner: splits images into batches and owns the batch size.
    """

    device = "cpu"
    precision = "fp32"

    def __init__(self, space: Space, *, image: OnnxTower | None = None, text: OnnxTower | None = None) -> None:
        self.space = space
        self.logit_scale = text.manifest.logit_scale if text else None
        self.runner = BatchRunner(space.dim, IMAGE_BATCH_SIZE)
        self._text_runner = BatchRunner(space.dim, TEXT_BATCH_SIZE)
        self._image, self._text = image, text

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self.runner.batch_size

    def encode_images(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed images like :meth:`embedstore.backbones.base.Backbone.encode_images`; many threads may call it.

        Raises:
            ValueError: when the batch has another dtype or shape, or the image tower was not opened.
        """
        if self._image is None or self.space.preprocess is None:
            raise ValueError("the image tower was not opened")
        require_pixels(batch, self.space.preprocess.size)
        return self.runner.run(np.ascontiguousarray(batch), self._image)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts like :meth:`embedstore.backbones.base.Backbone.encode_texts`.

        Raises:
            NoTextTower: when the text tower was not opened.
        """
        if self._text is None:
            raise no_text_tower(self.space)
        ids = bpe.tokenize(texts, self._text.manifest.context_length, self._text.bpe_merges)
        return self._text_runner.run(ids, self._text)

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that have more tokens than the tower reads, so that their ends are ignored."""
        if self._text is None:
            return []
        length, merges = self._text.manifest.context_length, self._text.bpe_merges
        return [text for text in texts if bpe.is_cut(text, length, merges)]
