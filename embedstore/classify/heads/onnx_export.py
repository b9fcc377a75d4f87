"""The ONNX graph of a linear head."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedstore.classify.heads.arrays import Array, Floats
from embedstore.errors import MissingExtra

_OPSET, _IR = 17, 8  # of 2022: every runtime in use reads them


def build_linear_onnx(weights: Floats, intercepts: Floats, classes: Array) -> bytes:
    """softmax(X W' + b) and the label of the largest, as a serialised ONNX model.

    Args:
        weights: float32 ``(K, D)``. intercepts: float32 ``(K,)``. classes: ``(K,)``; integers stay, others become
            strings.

    Raises:
        MissingExtra: the ``onnx`` package is not installed.
    """
    try:
        import onnx
    except ImportError as e:
        raise MissingExtra("writing ONNX needs the onnx package; run `pip install 'embedstore[onnx]'`") from e
    h, kind = onnx.helper, onnx.TensorProto
    integers = classes.dtype.kind in "iu"
    labels = classes.astype(np.int64) if integers else np.array([str(c) for c in classes], dtype=object)
    label_type = kind.INT64 if integers else kind.STRING
    constants = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(weights.T, dtype=np.float32), "weights"),
        onnx.numpy_helper.from_array(np.asarray(intercepts, dtype=np.float32), "intercepts"),
        onnx.numpy_helper.from_array(labels, "classes"),
    ]
    nodes = [
        h.make_node("MatMul", ["features", "weights"], ["products"]),
        h.make_node("Add", ["products", "intercepts"], ["logits"]),
        h.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        h.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        h.make_node("Gather", ["classes", "best"], ["label"], axis=0),
    ]
    graph = h.make_graph(
        nodes,
        "linear_head",
        [h.make_tensor_value_info("features", kind.FLOAT, ["N", weights.shape[1]])],
        [
            h.make_tensor_value_info("probabilities", kind.FLOAT, ["N", weights.shape[0]]),
            h.make_tensor_value_info("label", label_type, ["N"]),
        ],
        constants,
    )
    model: Any = h.make_model(graph, opset_imports=[h.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
