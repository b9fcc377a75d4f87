"""Heads on disk without pickle: ``head.json`` says what they are, ``head.safetensors`` holds the arrays.

``head.json`` carries the binding (which space, which label), the sizes and SHA-256 of the arrays and a digest of
itself. The digests notice damage, not malice: who can write the folder can write them too. Nothing in either file is
ever executed: only the classes in :data:`KINDS` are made, from JSON values and arrays. Beside the arrays lies what
the head answered to fixed rows when it was saved; loading asks again, so a library that has come to mean something
else by the same numbers is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.classify.heads.arrays import Array, Floats
from embedstore.errors import BadHead, SpaceMismatch, StoreDamaged, StoreNotFound, StoreTooNew
from embedstore.storage import durable_files

FORMAT_VERSION = 1
METADATA_FILE, ARRAYS_FILE = "head.json", "head.safetensors"
_MAX_JSON = 256 << 20  # bytes; the names of a million classes are about 30 MB
_CHECK, _CHECK_ROWS, _CHECK_TOLERANCE = "check", 2, 1e-3

HEAD_CLASSES: dict[str, str] = {
    "Abstain": "embedstore.classify.heads.calibration",
    "Calibrated": "embedstore.classify.heads.calibration",
    "ConformalSets": "embedstore.classify.heads.calibration",
    "LinearDiscriminantAnalysis": "sklearn.discriminant_analysis",
    "LinearSVC": "sklearn.svm",
    "LogisticProbe": "embedstore.classify.heads.linear.probe",
    "LogisticRegression": "sklearn.linear_model",
    "MLPHead": "embedstore.classify.heads.mlp",
    "NearestPrototype": "embedstore.classify.heads.prototype",
    "OneVsRest": "embedstore.classify.heads.multilabel",
    "PromptBlend": "embedstore.classify.heads.few_shot",
    "RidgeClassifier": "sklearn.linear_model",
    "TipAdapter": "embedstore.classify.heads.few_shot",
    "WeightedKNN": "embedstore.classify.heads.knn",
    "ZeroShot": "embedstore.classify.heads.zero_shot",
}
_LEFT_OUT = ("out_of_fold_",)  # of the rows it was fitted on, not of the head
_SKLEARN_STATE = ("classes_", "coef_", "intercept_", "n_features_in_", "n_iter_")  # all that predicting needs


def save(head: Any, folder: str | os.PathLike[str], binding: dict[str, Any]) -> Path:
    """Write a fitted head; a folder already there is replaced at once, never half.

    Args:
        head: fitted, of one of :data:`KINDS`.
        folder: where to. binding: JSON facts that must hold wherever it is used, such as the space's key.

    Raises:
        BadHead: an estimator that cannot be stored without pickle, or not fitted.
    """
    import sklearn
    from safetensors.numpy import save as pack

    folder = Path(folder)
    arrays: dict[str, Array] = {}
    tree = _encode(head, arrays, "head")
    arrays[_CHECK] = _answers(head)
    packed = pack({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    facts = {
        "format": FORMAT_VERSION,
        "binding": binding,
        "classes": np.asarray(head.classes_).tolist(),
        "features": int(head.n_features_in_),
        "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
        "files": {ARRAYS_FILE: {"bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}},
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()},
        "head": tree,
    }
    _publish(folder, {ARRAYS_FILE: packed, METADATA_FILE: _sealed(facts)})
    return folder


def load(folder: str | os.PathLike[str], expected_binding: dict[str, Any] | None = None) -> Any:
    """Read a head back; its probabilities are those of the head that was saved, bit for bit on the same machine.

    Args:
        folder: what :func:`save` wrote.
        expected: facts that the binding must agree with, such as ``{"space": key}``.

    Raises:
        StoreNotFound: no head there.
        StoreTooNew: written by a later embedstore.
        StoreDamaged: bytes are not what was written, or the libraries here answer differently with them.
        SpaceMismatch: bound to something else than expected.
    """
    folder = Path(folder)
    facts = _facts(folder)
    _hold(folder, facts["binding"], expected_binding or {})
    arrays = _arrays(folder, facts)
    try:
        head = _decode(facts["head"], arrays)
        now = _answers(head)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise StoreDamaged(f"head {folder} does not describe a classifier: {e}; train it again") from e
    then = arrays[_CHECK]
    if now.shape != then.shape or not np.allclose(now, then, rtol=0, atol=_CHECK_TOLERANCE):
        versions = facts["versions"]
        raise StoreDamaged(f"head {folder} answers differently than when it was saved with {versions}; train it again")
    return head


def read_binding(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a stored head is bound to, without reading its arrays."""
    return dict(_facts(Path(folder))["binding"])


def linear_coefficients(head: Any) -> tuple[Floats, Floats, Array]:
    """Weights ``(K, D)``, intercepts ``(K,)`` and classes ``(K,)``: softmax of X W' + b gives the probabilities.

    A binary head has one weight vector in scikit-learn; here half of it stands on each side, which is the same.

    Raises:
        BadHead: the head is not linear in its features.
    """
    if type(head).__name__ == "Calibrated" and not head.multilabel_ and hasattr(head, "temperature_"):
        w, b, classes = linear_coefficients(head.head)
        return w / np.float32(head.temperature_), b / np.float32(head.temperature_), classes
    if not hasattr(head, "coef_"):
        raise BadHead(
            f"{type(head).__name__} is not a linear head; export logistic, lda, svm or ridge, as they are or "
            "calibrated by temperature, saved without --abstain and --conformal"
        )
    w, b = np.atleast_2d(head.coef_), np.atleast_1d(head.intercept_)
    if len(w) == 1:
        w, b = np.concatenate([-w, w]) / 2, np.concatenate([-b, b]) / 2
    return np.asarray(w, np.float32), np.asarray(b, np.float32), np.asarray(head.classes_)


def export_npz(head: Any, path: str | os.PathLike[str]) -> Path:
    """A linear head as ``weights (K, D)``, ``intercepts (K,)`` and ``classes (K,)`` in one .npz without pickle.

    Raises:
        BadHead: the head is not linear.
    """
    w, b, classes = linear_coefficients(head)
    classes = classes.astype(str) if classes.dtype.kind == "O" else classes
    path = Path(path)
    with durable_files.atomic_write(path, f".{os.getpid()}.tmp") as file:
        np.savez(file, weights=w, intercepts=b, classes=classes)
    return path


def export_onnx(head: Any, path: str | os.PathLike[str]) -> Path:
    """A linear head as ONNX: ``features (N, D)`` to ``probabilities (N, K)`` and ``label (N,)``.

    Raises:
        BadHead: the head is not linear.
        MissingExtra: the ``onnx`` package is not installed.
    """
    from embedstore.classify.heads.onnx_export import build_linear_onnx

    w, b, classes = linear_coefficients(head)
    model = build_linear_onnx(w, b, classes)
    path = Path(path)
    with durable_files.atomic_write(path, f".{os.getpid()}.tmp") as file:
        file.write(model)
    return path


def _encode(value: Any, arrays: dict[str, Array], name: str) -> Any:
    """A value as JSON; arrays go to ``arrays`` under the name of where they were."""
    from embedstore.classify.heads.linear.probe import RegularizationPoint

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), arrays, name)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.ndarray):
        return {"objects": value.dtype.kind == "O", "strings": value.tolist()}
    if isinstance(value, list | tuple):
        items = [_encode(v, arrays, f"{name}.{i}") for i, v in enumerate(value)]
        return {"tuple": isinstance(value, tuple), "items": items}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"map": {k: _encode(v, arrays, f"{name}.{k}") for k, v in value.items()}}
    if isinstance(value, RegularizationPoint):
        return {"c_point": _encode(list(asdict(value).values()), arrays, name)}
    if type(value).__name__ in HEAD_CLASSES and type(value).__module__.startswith(HEAD_CLASSES[type(value).__name__]):
        return _encode_head(value, arrays, name)
    raise BadHead(f"{name} is a {type(value).__name__}, which cannot be stored; stored are {', '.join(HEAD_CLASSES)}")


def _is_ours(kind: str) -> bool:
    return HEAD_CLASSES[kind].startswith("embedstore.")


def _encode_head(head: Any, arrays: dict[str, Array], name: str) -> dict[str, Any]:
    kind = type(head).__name__
    learned = {k: v for k, v in vars(head).items() if k.endswith("_") and not k.startswith("_") and k not in _LEFT_OUT}
    if not _is_ours(kind):
        learned = {k: getattr(head, k) for k in _SKLEARN_STATE if hasattr(head, k)}
    if not learned and kind != "ZeroShot":
        raise BadHead(f"{kind} is not fitted; fit it before saving")
    params = head.get_params(deep=False)
    return {
        "kind": kind,
        "params": {k: _encode(v, arrays, f"{name}.{k}") for k, v in params.items()},
        "learned": {k: _encode(v, arrays, f"{name}.{k}") for k, v in learned.items()},
    }


def _decode(tree: Any, arrays: dict[str, Array]) -> Any:
    from embedstore.classify.heads.linear.probe import RegularizationPoint

    match tree:
        case {"kind": str(kind), "params": dict(params), "learned": dict(learned)}:
            return _decode_head(kind, params, learned, arrays)
        case {"float": str(text)}:
            return float(text)
        case {"array": str(name)}:
            return arrays[name]
        case {"strings": list(strings), "objects": bool(objects)}:
            return np.array(strings, dtype=object if objects else None)
        case {"items": list(items), "tuple": bool(is_tuple)}:
            found = [_decode(v, arrays) for v in items]
            return tuple(found) if is_tuple else found
        case {"map": dict(pairs)}:
            return {k: _decode(v, arrays) for k, v in pairs.items()}
        case {"c_point": point}:
            return RegularizationPoint(*_decode(point, arrays))
        case None | bool() | int() | float() | str():
            return tree
    raise ValueError(f"{str(tree)[:60]} is no value of a head")


def _decode_head(kind: str, params: dict[str, Any], learned: dict[str, Any], arrays: dict[str, Array]) -> Any:
    from sklearn.preprocessing import LabelBinarizer

    made = getattr(importlib.import_module(HEAD_CLASSES[kind]), kind)
    head = made(**{k: _decode(v, arrays) for k, v in params.items()})
    for name, tree in learned.items():
        if not re.fullmatch(r"[a-zA-Z]\w*_", name):
            raise ValueError(f"{name} is no learned attribute")
        value = _decode(tree, arrays)
        if kind == "RidgeClassifier" and name == "classes_":  # it asks its binarizer what kind of labels these are
            head._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(value)
        with contextlib.suppress(AttributeError):  # before 1.9 its classes are a property of the binarizer
            setattr(head, name, value)
    return head


def _answers(head: Any) -> Floats:
    """Probabilities of a few fixed rows, float64 ``(2, K)``."""
    from embedstore.classify.heads.calibration import probabilities

    rows = np.random.default_rng(0).standard_normal((_CHECK_ROWS, int(head.n_features_in_))).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows without the column names of a data frame
        return probabilities(head, rows).astype(np.float64)


def _sealed(facts: dict[str, Any]) -> bytes:
    """JSON with a digest of all the rest."""
    try:
        body = json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise BadHead(f"the binding or the classes are no JSON: {e}") from e
    return json.dumps({**facts, "digest": hashlib.sha256(body.encode()).hexdigest()}, indent=1).encode()


def _facts(folder: Path) -> dict[str, Any]:
    """``head.json``, checked against its digest."""
    file = folder / METADATA_FILE
    if not file.is_file():
        raise StoreNotFound(f"no head in {folder}: {METADATA_FILE} is missing")
    if file.stat().st_size > _MAX_JSON:
        raise StoreDamaged(f"{file} has {file.stat().st_size} bytes, at most {_MAX_JSON} can be right")
    try:
        facts = json.loads(file.read_bytes())
        digest = facts.pop("digest")
        version = int(facts["format"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise StoreDamaged(f"{file} is no description of a head: {e}; train it again") from e
    if version > FORMAT_VERSION:
        raise StoreTooNew(
            f"{file} has format {version}, this embedstore reads up to {FORMAT_VERSION}; upgrade embedstore"
        )
    if json.loads(_sealed(facts))["digest"] != digest:
        raise StoreDamaged(f"{file} is not what was written (its digest differs); train the head again")
    return dict(facts)


def _hold(folder: Path, bound: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, wanted in expected.items():
        if bound.get(name) != wanted:
            raise SpaceMismatch(
                f"head {folder} is bound to {name} {bound.get(name)!r}, but {wanted!r} is asked for; "
                "use the head in its own space or train one in this"
            )


def _arrays(folder: Path, facts: dict[str, Any]) -> dict[str, Array]:
    """The arrays, after size and SHA-256 of their file agree with ``head.json``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file, recorded = folder / ARRAYS_FILE, facts["files"][ARRAYS_FILE]
    size = file.stat().st_size if file.is_file() else 0
    if size != recorded["bytes"]:
        raise StoreDamaged(f"{file} has {size} bytes, {recorded['bytes']} were written; train the head again")
    if durable_files.file_sha256(file) != recorded["sha256"]:
        raise StoreDamaged(f"{file} is not what was written (its SHA-256 differs); train the head again")
    try:
        arrays: dict[str, Array] = load_file(file)
    except SafetensorError as e:
        raise StoreDamaged(f"{file} is no safetensors file: {e}") from e
    found = {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()}
    if found != facts["arrays"]:
        raise StoreDamaged(f"{file} holds other arrays than {METADATA_FILE} names; train the head again")
    return arrays


def _publish(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files beside the target, fsync, and put the folder in place by renaming."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
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
    durable_files.sync_folder(folder.parent.parent)  # of the first head, its folder is new too
