"""Trace a network to ONNX once per process: most tests embed with one of a few networks, and tracing takes longest."""

import hashlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_graphs: dict[str, bytes] = {}


@contextmanager
def traced_once() -> Iterator[None]:
    """Let PyTorch trace each network once, and write the same graph again for the same weights and input shape.

    embedstore compares every graph with its network before it is used, so that a graph of another one is an error.
    """
    onnx: Any = sys.modules.get("torch.onnx")
    if onnx is None:  # nothing was traced yet, and most tests never do
        yield
        return
    trace = onnx.export

    def export(module: Any, inputs: tuple[Any, ...], file: str, **options: Any) -> None:
        key = _digest(module, inputs, options)
        if key in _graphs:
            Path(file).write_bytes(_graphs[key])
            return
        trace(module, inputs, file, **options)
        _graphs[key] = Path(file).read_bytes()

    onnx.export = export
    try:
        yield
    finally:
        onnx.export = trace


def _digest(module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> str:
    """Return a digest of all that a graph follows from."""
    import torch

    weights = io.BytesIO()
    torch.save(module.state_dict(), weights)
    shapes = [(tuple(i.shape), str(i.dtype)) for i in inputs]
    return hashlib.sha256(weights.getvalue() + repr((str(module), shapes, options)).encode()).hexdigest()
