"""Check the graph of an exported network before onnxruntime reads it.

A graph may name other files for its weights, functions of its own, operators of another library, and loops. The graphs
that embedstore exports have none of that, but for the one file of weights next to them. A graph is a message of
protocol buffers (``onnx/onnx.proto``); the package onnx is not needed to run one, so the few fields are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedstore.storage.store_files import read_bounded

MAX_GRAPH_BYTES = 256 << 20  # without its weights, which are in another file
_DOMAINS = (b"", b"ai.onnx")
_LOOPS = (b"Loop", b"Scan")
_MAX_DEPTH = 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

# Where each kind of message holds other messages: the kind by the number of the field.
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external data"},
}
_REFUSED = {("model", 20): "training information", ("model", 25): "functions of its own"}


def check_graph_file(path: Path, *, weights_name: str) -> None:
    """Check the graph of an exported network.

    Args:
        path: the file of the graph.
        weights_name: the one file, in the same folder, that may hold its weights.

    Raises:
        ValueError: if it is not such a graph.
        OSError: if it cannot be read.
        UnsafeStore: if it is not a regular file.
    """
    data = memoryview(read_bounded(path, MAX_GRAPH_BYTES))
    if not any(number == 7 for number, _ in _fields(data)):
        raise ValueError(f"{path.name} is not a graph")
    _check_message(data, "model", weights_name.encode(), 0)


def _check_message(data: memoryview, kind: str, weights_name: bytes, depth: int) -> None:
    """Check one message and every message in it."""
    if depth > _MAX_DEPTH:
        raise ValueError("the graph is nested too deeply")
    texts: dict[int, bytes] = {}
    for number, value in _fields(data):
        if (kind, number) in _REFUSED:
            raise ValueError(f"the graph has {_REFUSED[kind, number]}")
        if nested := _NESTED.get(kind, {}).get(number):
            _check_message(value, nested, weights_name, depth + 1)
        elif kind in ("node", "opset", "external data") and len(value) < 1 << 16:
            texts[number] = value.tobytes()
    _check_texts(kind, texts, weights_name)


def _check_texts(kind: str, texts: dict[int, bytes], weights_name: bytes) -> None:
    """Check the names of a node, of a set of operators, or of the file of a tensor."""
    domain = {"node": texts.get(7), "opset": texts.get(1)}.get(kind)
    if domain is not None and domain not in _DOMAINS:
        raise ValueError(f"the graph has operators of {domain[:40]!r}")
    if kind == "node" and texts.get(4) in _LOOPS:
        raise ValueError("the graph has loops")
    if kind == "external data" and texts.get(1) == b"location" and texts.get(2) != weights_name:
        raise ValueError(f"the graph names another file, {texts.get(2, b'')[:80]!r}")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the bytes of every field of a message; numbers have no bytes.

    Raises:
        ValueError: if it is not a message.
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        length, wire = 0, key & 7
        if wire == _VARINT:
            _, position = _varint(data, position)
        elif wire == _BYTES:
            length, position = _varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("the graph is not a message of protocol buffers")
        if position + length > len(data):
            raise ValueError("the graph ends in the middle of a field")
        if wire == _BYTES:
            yield key >> 3, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a number of variable length, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("the graph is not a message of protocol buffers")
