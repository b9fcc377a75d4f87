"""Write an ONNX graph node by node. Two rooms do: heads in `classify`, preprocessing in `backbones`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedstore.arrays import Array
from embedstore.errors import MissingExtra

OPSET, IR_VERSION = 18, 8  # of December 2022, the first with an antialiased Resize: onnxruntime 1.15 and later read it


def load_onnx() -> Any:
    """Return the package onnx.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import onnx
    except ImportError as e:
        raise MissingExtra("writing ONNX needs the onnx package; run `pip install onnx`") from e
    return onnx


class OnnxGraph:
    """A graph under construction. Values are known by their names, which the methods return.

    Args:
        name: the name of the graph; the names of its values begin with it, so that graphs can be joined.

    Raises:
        MissingExtra: if the package onnx is not installed.
    """

    def __init__(self, name: str) -> None:
        self._onnx = load_onnx()
        self._name = name
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: Any, dtype: Any = None) -> str:
        """Add a constant tensor, of numbers or of text."""
        name = f"{self._name}_constant_{len(self._constants)}"
        array: Array = np.asarray(values, dtype=dtype)
        stored = np.array(array, dtype=object) if array.dtype.kind in "UO" else np.ascontiguousarray(array)
        self._constants.append(self._onnx.numpy_helper.from_array(stored.reshape(array.shape), name))
        return name

    def apply(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output.

        Args:
            operator: its name in ONNX.
            *inputs: names of values; an empty name leaves an optional input out.
            output: the name of the output; by default a new one.
            **attributes: the attributes of the operator.

        Returns:
            The name of the output.
        """
        output = output or f"{self._name}_{len(self._nodes)}_{operator.lower()}"
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def cast(self, value: str, dtype: Any) -> str:
        """Add a conversion to another type of numbers."""
        return self.apply("Cast", value, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def transpose_if(self, condition: str, value: str, perm: Sequence[int]) -> str:
        """Add a value whose axes are in another order where the condition (bool, one element) is true."""
        h, output = self._onnx.helper, f"{self._name}_{len(self._nodes)}_if"
        branches = {
            "then_branch": h.make_node("Transpose", [value], [f"{output}_then"], perm=list(perm)),
            "else_branch": h.make_node("Identity", [value], [f"{output}_else"]),
        }
        graphs = {
            name: h.make_graph([node], name, [], [self._onnx.ValueInfoProto(name=node.output[0])])
            for name, node in branches.items()
        }
        return self.apply("If", condition, output=output, **graphs)

    def build(self, inputs: dict[str, tuple[Any, Sequence[Any]]], outputs: dict[str, tuple[Any, Sequence[Any]]]) -> Any:
        """Return the checked model.

        Args:
            inputs: dtype and shape by name; a text in a shape names a dimension of any size.
            outputs: the same of the outputs.

        Returns:
            An ``onnx.ModelProto``.
        """
        h = self._onnx.helper
        sides = (
            [
                h.make_tensor_value_info(name, h.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
                for name, (dtype, shape) in values.items()
            ]
            for values in (inputs, outputs)
        )
        graph = h.make_graph(self._nodes, self._name, *sides, self._constants)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        self._onnx.checker.check_model(model)
        return model
