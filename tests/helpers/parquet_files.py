"""Parquet files of small images, as pyarrow and Hugging Face write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.helpers.image_files import encode

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


IMAGE = {"_type": "Image"}


def png(seed: int) -> bytes:
    """Return a small PNG that differs from all others."""
    return encode(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)))


def hf_rows(images: Sequence[bytes | None], paths: Sequence[str | None] | None = None) -> pa.Array:
    """Return a column of Hugging Face's structure."""
    paths = paths or [None] * len(images)
    return pa.array([{"bytes": b, "path": p} for b, p in zip(images, paths, strict=True)], type=HF_IMAGE)


def write_hf(file: Path, columns: Mapping[str, Any], features: Mapping[str, Any], rows_per_group: int = 100) -> Path:
    """Write a table with Hugging Face's metadata."""
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table(dict(columns)).replace_schema_metadata(metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=rows_per_group, compression="none")
    return file


def class_label(*names: str) -> dict[str, Any]:
    """Return Hugging Face's description of a column of classes."""
    return {"names": list(names), "_type": "ClassLabel"}


def data_set(folder: Path) -> dict[str, list[bytes]]:
    """Write a downloaded data set: two files of train, one of test, and the other files of such a folder."""
    features = {"image": IMAGE, "label": class_label("cat", "dog")}
    images = {
        "data/train-00000-of-00002.parquet": [png(n) for n in range(4)],
        "data/train-00001-of-00002.parquet": [png(n) for n in range(10, 13)],
        "data/test-00000-of-00001.parquet": [png(20)],
    }
    for name, rows in images.items():
        write_hf(folder / name, {"image": hf_rows(rows), "label": pa.array([0] * len(rows))}, features, 2)
    (folder / "README.md").write_text("x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.parquet").write_bytes(b"x")
    return images
