"""The towers of a space as exported graphs, run by onnxruntime; torch is not imported here.

A tower is a folder that appears whole or not at all: the graph, its weights, merges where the vocabulary is its own,
and ``tower.json``, which says which space it belongs to, the digest of every file, and how near it was to the eager
network when it was made. A tower that is absent, damaged, of another space or checked with another onnxruntime is
passed by, never used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes import bpe
from embedstore.backbones.runtimes.runtime import Tower, has_onnxruntime
from embedstore.errors import NoTextTower
from embedstore.space import Space
from embedstore.storage import durable_files

MANIFEST_FORMAT = 1
MANIFEST_FILE, GRAPH_FILE, WEIGHTS_FILE, MERGES_FILE = "tower.json", "graph.onnx", "weights.bin", "merges.txt.gz"
IMAGE_BATCH_SIZE = 8  # images per forward, and the most: 1 to 16 differ by a tenth on a CPU (docs/benchmarks.md)
TEXT_BATCH_SIZE = 64  # per forward
MAX_QUERY_THREADS = 8  # of one query: more start slower than they compute


@dataclass(frozen=True)
class TowerManifest:
    """``tower.json``.

    Attributes:
        tower: image or text. space: the key of its space.
        files: name to ``[bytes, XXH3-128]``.
        length: tokens of a text; 0 of an image tower.
        onnxruntime: the version that it was checked with; torch: that exported it.
        logit_scale: exp of CLIP's own, of a text tower.
        cosine, centred, rows: least agreement with the eager network, over how many images or texts.
    """

    tower: str
    space: str
    files: dict[str, list[Any]]
    length: int
    onnxruntime: str
    torch: str
    cosine: float
    centred: float
    rows: int
    logit_scale: float | None = None
    format: int = MANIFEST_FORMAT

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self), indent=1) + "\n"


def tower_folder(folder: Path, tower: Tower) -> Path:
    """Where a tower lies below the folder of a space's towers."""
    return folder / tower.value


def read_manifest(towers_folder: Path, tower: Tower, space_key: str) -> TowerManifest | str:
    """What stands in ``tower.json``, or why the tower cannot be used; its files are not looked at."""
    try:
        found = json.loads((tower_folder(towers_folder, tower) / MANIFEST_FILE).read_bytes())
        note = TowerManifest(**{f.name: found[f.name] for f in fields(TowerManifest)})
    except FileNotFoundError:
        return "it was not exported"
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"its {MANIFEST_FILE} cannot be read ({type(e).__name__})"
    if note.format != MANIFEST_FORMAT or note.tower != tower:
        return "another version of embedstore exported it"
    if note.space != space_key:
        return f"it belongs to space {note.space}"
    if not has_onnxruntime():
        return "onnxruntime is not installed"
    if note.onnxruntime != version("onnxruntime"):
        return f"it was checked with onnxruntime {note.onnxruntime}, and {version('onnxruntime')} is installed"
    return note


def record_refusal(folder: Path, tower: Tower, reason: str) -> None:
    """Remember that a tower cannot be exported with these versions; a folder that cannot be written forgets it."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{tower.value}.refused").write_text(f"{_versions()}\n{reason}\n", encoding="utf-8")


def was_refused(folder: Path, tower: Tower) -> bool:
    """Whether these versions could not export it before."""
    try:
        return (folder / f"{tower.value}.refused").read_text(encoding="utf-8").startswith(f"{_versions()}\n")
    except (OSError, ValueError):
        return False


def _versions() -> str:
    """The packages on which an export depends."""
    return " ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime"))


class OnnxTower:
    """One tower, checked against its digest and loaded.

    Args:
        path: its folder. note: what it says. threads: of one forward; 1 lets the callers' threads do the work.
        brief: made for a few forwards: starts faster, and runs slower.

    Raises:
        ValueError: its files are not what was written.
    """

    def __init__(self, path: Path, manifest: TowerManifest, *, threads: int, fast_start: bool) -> None:
        for name, (size, wanted) in manifest.files.items():
            file = path / name
            if (
                name not in (GRAPH_FILE, WEIGHTS_FILE, MERGES_FILE)
                or file.stat().st_size != size
                or durable_files.file_xxh3(file) != wanted
            ):
                raise ValueError(f"{file} is not what was written")
        self.manifest = manifest
        self.bpe_merges = path / MERGES_FILE if MERGES_FILE in manifest.files else None
        self._session = create_session(path / GRAPH_FILE, threads=threads, fast_start=fast_start)

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors of prepared images ``(B, 3, H, W)`` uint8, or of tokens ``(T, L)`` int64."""
        out: NDArray[np.float32] = self._session.run(None, {"inputs": inputs})[0]
        return out


def create_session(graph: Path, *, threads: int, fast_start: bool) -> Any:
    """An onnxruntime session over a graph file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; it has much to say of graphs that it runs well
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if fast_start:  # weights stay mapped as they are, in place of copies in the order that the kernels like best
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return ort.InferenceSession(os.fspath(graph), options, providers=["CPUExecutionProvider"])


def open_tower(folder: Path, tower: Tower, space_key: str, *, threads: int, fast_start: bool) -> OnnxTower | str:
    """A tower ready to run, or why it cannot be used."""
    note = read_manifest(folder, tower, space_key)
    if isinstance(note, str):
        return note
    try:
        return OnnxTower(tower_folder(folder, tower), note, threads=threads, fast_start=fast_start)
    except Exception as e:  # onnxruntime has a tree of errors of its own, under RuntimeError and beside it
        return f"it cannot be loaded: {' '.join(str(e).split())[:200]}"


class OnnxEncoder:
    """A space's encoder without torch: the towers that were opened.

    Attributes:
        space: what its vectors mean. batch_size: images per forward.
        logit_scale: exp of CLIP's own logit scale, where the text tower was opened.
    """

    device = "cpu"
    precision = "fp32"
    batch_size = IMAGE_BATCH_SIZE

    def __init__(self, space: Space, *, image: OnnxTower | None = None, text: OnnxTower | None = None) -> None:
        self.space = space
        self.logit_scale = text.manifest.logit_scale if text else None
        self._image, self._text = image, text

    def encode_images(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As :meth:`embedstore.backbones.base.Backbone.encode_images`; safe to call from many threads."""
        p = self.space.preprocess
        if p is None or batch.dtype != np.uint8 or batch.shape[1:] != (3, *p.size):
            raise ValueError(f"expected uint8 (B, 3, H, W) of {p and p.size}, got {batch.dtype} {batch.shape}")
        if self._image is None:
            raise ValueError("the image tower was not opened")
        return _in_parts(self._image, np.ascontiguousarray(batch), self.batch_size, self.space.dim)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As :meth:`embedstore.backbones.base.Backbone.encode_texts`."""
        if self._text is None:
            raise NoTextTower(f"{self.space.architecture} maps no words into its space")
        ids = bpe.tokenize(texts, self._text.manifest.length, self._text.bpe_merges)
        return _in_parts(self._text, ids, TEXT_BATCH_SIZE, self.space.dim)


def _in_parts(tower: OnnxTower, rows: NDArray[Any], size: int, dim: int) -> NDArray[np.float32]:
    """All rows through a tower, some at a time."""
    out = np.empty((len(rows), dim), np.float32)
    for start in range(0, len(rows), size):
        out[start : start + size] = tower(rows[start : start + size])
    return out
