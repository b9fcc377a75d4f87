"""A head in a folder: ``head.json`` describes it, ``head.safetensors`` holds its arrays.

``head.json`` records the binding (which space, which label), the size and SHA-256 of the arrays, and a digest of
itself. The digests detect damage, not malice: whoever can write the folder can write the digests too. The arrays
include the head's probabilities for fixed rows at the time of saving. Loading computes them again, so a library that
now computes something else from the same numbers is detected.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.arrays import Array
from embedstore.classify.heads.serialization import decode_head, encode_head
from embedstore.errors import BadHead, SpaceMismatch, StoreDamaged, StoreError, StoreNotFound, StoreTooNew, UnsafeStore
from embedstore.json_objects import parse_json_object
from embedstore.storage import durable_files, reading
from embedstore.storage.store_files import MAX_HEAD_BYTES, read_bounded

FORMAT_VERSION = 1
METADATA_FILE, ARRAYS_FILE = "head.json", "head.safetensors"
# What NumPy, scikit-learn and our own heads raise for values that are not those of a fitted head.
_UNUSABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, MemoryError, RecursionError)
_MAX_FEATURES = 1 << 20
_CHECK, _CHECK_ROWS, _CHECK_TOLERANCE = "check", 2, 1e-3


def save(head: Any, folder: str | os.PathLike[str], binding: dict[str, Any]) -> Path:
    """Write a fitted head to a folder. A folder that exists is replaced as a whole or not at all.

    Args:
        head: a fitted estimator of a class in :data:`~embedstore.classify.heads.serialization.HEAD_CODECS`.
        folder: the target.
        binding: JSON facts that must hold wherever the head is used, such as the key of its space.

    Raises:
        BadHead: if the estimator is not fitted or cannot be stored without pickle, or the binding is not JSON.
        OSError: if the disk is full or fails; the old folder is unchanged.
    """
    import sklearn
    from safetensors.numpy import save as pack

    folder = Path(folder)
    tree, arrays = encode_head(head)
    arrays[_CHECK] = _check_answers(head)
    packed = pack({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    description = {
        "format": FORMAT_VERSION,
        "binding": binding,
        "classes": np.asarray(getattr(head, "classes_", ())).tolist(),
        "features": int(head.n_features_in_),
        "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
        "files": {ARRAYS_FILE: {"bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}},
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()},
        "head": tree,
    }
    _publish(folder, {ARRAYS_FILE: packed, METADATA_FILE: seal_description(description)})
    return folder


def load(folder: str | os.PathLike[str], expected_binding: dict[str, Any] | None = None) -> Any:
    """Read a head. On the same machine its probabilities equal those of the saved head bit for bit.

    Args:
        folder: a folder that :func:`save` wrote.
        expected_binding: facts that the binding must agree with, such as ``{"space": key}``.

    Returns:
        The fitted estimator.

    Raises:
        StoreNotFound: if the folder holds no head.
        StoreTooNew: if a later embedstore wrote it.
        StoreDamaged: if the files are not what was written, or the installed libraries compute other probabilities.
        StoreUnreadable: if a file cannot be read now.
        SpaceMismatch: if the head is bound to something else than expected.
    """
    folder = Path(folder)
    description = _read_description(folder)
    _check_binding(folder, description["binding"], expected_binding or {})
    arrays = _read_arrays(folder, description)
    try:
        head = decode_head(description["head"], arrays)
        actual = _check_answers(head)
        saved = arrays[_CHECK]
    except _UNUSABLE as e:
        raise StoreDamaged(f"head {folder} does not describe a classifier: {str(e)[:200]}; train it again") from e
    relative = _CHECK_TOLERANCE if hasattr(head, "predict_interval") else 0.0  # numbers have a scale of their own
    if actual.shape != saved.shape or not np.allclose(actual, saved, rtol=relative, atol=_CHECK_TOLERANCE):
        raise StoreDamaged(
            f"head {folder} answers differently than when it was saved with {description['versions']}; train it again"
        )
    return head


def file_digest(folder: Path) -> str:
    """Return the SHA-256 of ``head.json``, which itself holds that of the arrays."""
    file = folder / METADATA_FILE
    with reading.read_errors(file):
        try:
            return hashlib.sha256(read_bounded(file, MAX_HEAD_BYTES)).hexdigest()
        except UnsafeStore:
            raise
        except ValueError as e:
            raise StoreDamaged(f"{file} is not a description of a head: {e}; train it again") from e


def delete_files(folder: Path) -> None:
    """Delete the two files of a head, and the folder if nothing else is in it."""
    for file in (METADATA_FILE, ARRAYS_FILE):
        (folder / file).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def seal_description(description: dict[str, Any]) -> bytes:
    """Return the description as JSON with a digest of all its other entries.

    Raises:
        BadHead: if it is not JSON.
    """
    try:
        body = json.dumps(description, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise BadHead(f"the binding or the classes are not JSON: {e}") from e
    return json.dumps({**description, "digest": hashlib.sha256(body.encode()).hexdigest()}, indent=1).encode()


def _check_answers(head: Any) -> Array:
    """Return the head's probabilities for fixed rows, float64 ``(2, K)``; numbers with their intervals, ``(2, 3)``."""
    from embedstore.classify.heads.calibration import probabilities  # scikit-learn: opening a store must not load it

    features = int(head.n_features_in_)
    if not 0 < features <= _MAX_FEATURES:
        raise ValueError(f"it has {features} features")
    rows = np.random.default_rng(0).standard_normal((_CHECK_ROWS, features)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows without the column names of a data frame
        if hasattr(head, "predict_interval"):
            return np.stack([head.predict(rows), *head.predict_interval(rows)], axis=1)
        return probabilities(head, rows).astype(np.float64)


def _read_description(folder: Path) -> dict[str, Any]:
    """Read ``head.json`` and compare it with its digest."""
    file = folder / METADATA_FILE
    if not reading.is_file(file):
        raise StoreNotFound(f"no head in {folder}: {METADATA_FILE} is missing")
    try:
        with reading.read_errors(file):
            data = read_bounded(file, MAX_HEAD_BYTES)
        description = parse_json_object(data)
        digest = description.pop("digest")
        version = int(description["format"])
        _require_form(description)
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError) as e:
        raise StoreDamaged(f"{file} is not a description of a head: {e}; train it again") from e
    if version > FORMAT_VERSION:
        raise StoreTooNew(
            f"{file} has format {version}, this embedstore reads up to {FORMAT_VERSION}; upgrade embedstore"
        )
    if json.loads(seal_description(description))["digest"] != digest:
        raise StoreDamaged(f"{file} is not what was written (its digest differs); train the head again")
    return dict(description)


def _require_form(description: dict[str, Any]) -> None:
    """Check the values of a description that are used before the head is built.

    Raises:
        KeyError: if one is missing.
        TypeError: if one has another type.
    """
    recorded = description["files"][ARRAYS_FILE]
    if type(description["binding"]) is not dict or type(description["arrays"]) is not dict:
        raise TypeError("its binding or its arrays are not tables")
    if type(recorded["bytes"]) is not int or type(recorded["sha256"]) is not str:
        raise TypeError("the size of its arrays is not a number")
    _ = description["head"], description["versions"]


def _check_binding(folder: Path, binding: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if binding.get(name) != value:
            raise SpaceMismatch(
                f"head {folder} is bound to {name} {binding.get(name)!r}, but {value!r} was requested; "
                "use the head in its own space or train one in this space"
            )


def _read_arrays(folder: Path, description: dict[str, Any]) -> dict[str, Array]:
    """Read the arrays after the size and SHA-256 of their file agree with the description."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    file, recorded = folder / ARRAYS_FILE, description["files"][ARRAYS_FILE]
    with reading.read_errors(file):
        size = file.stat().st_size if reading.is_file(file) else 0
        if size != recorded["bytes"]:
            raise StoreDamaged(f"{file} has {size} bytes, but {recorded['bytes']} were written; train the head again")
        packed = _read_stored(file, size)  # once: safetensors' own reader calls every error a missing file
    if hashlib.sha256(packed).hexdigest() != recorded["sha256"]:
        raise StoreDamaged(f"{file} is not what was written (its SHA-256 differs); train the head again")
    try:
        arrays: dict[str, Array] = unpack(packed)
    except SafetensorError as e:
        raise StoreDamaged(f"{file} is not a safetensors file: {e}; train the head again") from e
    if {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()} != description["arrays"]:
        raise StoreDamaged(f"{file} holds other arrays than {METADATA_FILE} names; train the head again")
    return arrays


def _read_stored(file: Path, size: int) -> bytes:
    """Read a file of a given size that is not mostly holes."""
    try:
        return read_bounded(file, size)
    except ValueError as e:
        raise StoreDamaged(f"{file}: {e}; train the head again") from e


def _publish(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files to a temporary folder next to the target, sync them, and rename the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    fresh.mkdir()  # not by tempfile, whose folders only their owner can read
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        durable_files.sync_tree(fresh)
        old = fresh.with_name(f"{fresh.name}.old")
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    durable_files.sync_folder(folder.parent)
    durable_files.sync_folder(folder.parent.parent)  # the first head also creates the parent
