"""Pillow's resampling as ONNX nodes, to the last bit.

A network may answer otherwise by a thousandth when one pixel in ten thousand differs by one level, and ONNX's own
Resize differs that much. So the graph computes what Pillow does (``Resample.c``): per axis one weight for every pair of
an old and a new position, as whole multiples of 2^-22, products with 8-bit levels, and one rounding to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from embedstore.onnx_graph import OnnxGraph
from embedstore.space import Interpolation

_PRECISION_BITS = 22  # Pillow's PRECISION_BITS: 32 bits, less 8 of a level and 2 for overshoot
_BYTE = 256
_HIGH_ZERO = 128  # the high bytes of weights are stored with this added: onnxruntime multiplies unsigned bytes exactly


def add_resample(graph: OnnxGraph, images: str, new_side: str, interpolation: Interpolation) -> str:
    """Add the resampling of the last axis of uint8 images ``(N, 3, H, W)`` to a new width.

    Args:
        graph: the graph to add to.
        images: the name of the images.
        new_side: the name of the new width, int64 ``(1,)``.
        interpolation: the filter.

    Returns:
        The name of the uint8 images ``(N, 3, H, new width)``.
    """
    old_side = graph.apply("Gather", graph.apply("Shape", images), graph.constant([3]))
    if interpolation is Interpolation.NEAREST:
        return graph.apply("Gather", images, _nearest_positions(graph, old_side, new_side), axis=3)
    weights = _fixed_point(graph, _weights(graph, old_side, new_side, interpolation))
    total = _exact_product(graph, images, weights)
    half = graph.constant(2.0 ** (_PRECISION_BITS - 1))
    rounded = graph.apply("Floor", graph.apply("Mul", graph.apply("Add", total, half), _number(graph, 2.0**-22)))
    return graph.cast(graph.apply("Clip", rounded, _number(graph, 0.0), _number(graph, 255.0)), np.uint8)


def _number(graph: OnnxGraph, value: float) -> str:
    return graph.constant(np.float64(value))


def _positions(graph: OnnxGraph, side: str) -> str:
    """Add 0, 1, ... of a side, float64."""
    count = graph.apply("Squeeze", side)
    return graph.cast(graph.apply("Range", graph.constant(0), count, graph.constant(1)), np.float64)


def _centers(graph: OnnxGraph, old_side: str, new_side: str) -> tuple[str, str]:
    """Add the centers of the new positions on the old axis, and old over new side, both float64."""
    ratio = graph.apply("Div", graph.cast(old_side, np.float64), graph.cast(new_side, np.float64))
    middles = graph.apply("Add", _positions(graph, new_side), _number(graph, 0.5))
    return graph.apply("Mul", middles, ratio), ratio


def _nearest_positions(graph: OnnxGraph, old_side: str, new_side: str) -> str:
    """Add the old position of each new one, int64: Pillow adds up steps, and their rounding is part of the result."""
    ratio = graph.apply("Div", graph.cast(old_side, np.float64), graph.cast(new_side, np.float64))
    positions = _positions(graph, new_side)
    first = graph.apply("Equal", positions, _number(graph, 0.0))
    steps = graph.apply("Where", first, graph.apply("Mul", ratio, _number(graph, 0.5)), ratio)
    total = graph.apply("CumSum", steps, graph.constant(0))
    return graph.cast(graph.apply("Floor", total), np.int64)


def _weights(graph: OnnxGraph, old_side: str, new_side: str, interpolation: Interpolation) -> str:
    """Add the weights of the old positions for each new one, float64 ``(old, new)``; each column sums to 1."""
    support, function = _FILTERS[interpolation]
    centers, ratio = _centers(graph, old_side, new_side)
    stretch = graph.apply("Max", ratio, _number(graph, 1.0))  # a smaller image: the filter covers more old positions
    reach, half = graph.apply("Mul", stretch, _number(graph, support)), _number(graph, 0.5)
    first = graph.apply("Floor", graph.apply("Add", graph.apply("Sub", centers, reach), half))
    end = graph.apply("Floor", graph.apply("Add", graph.apply("Add", centers, reach), half))
    old = graph.apply("Unsqueeze", _positions(graph, old_side), graph.constant([1]))
    offsets = graph.apply("Add", graph.apply("Sub", old, centers), half)
    values = function(graph, graph.apply("Abs", graph.apply("Div", offsets, stretch)))
    covered = graph.apply("And", graph.apply("GreaterOrEqual", old, first), graph.apply("Less", old, end))
    values = graph.apply("Where", covered, values, _number(graph, 0.0))
    return graph.apply("Div", values, graph.apply("ReduceSum", values, graph.constant([0]), keepdims=1))


def _fixed_point(graph: OnnxGraph, weights: str) -> str:
    """Add the weights as whole multiples of 2^-22, halves rounded away from 0; float64."""
    scaled = graph.apply("Mul", weights, _number(graph, 2.0**_PRECISION_BITS))
    size = graph.apply("Floor", graph.apply("Add", graph.apply("Abs", scaled), _number(graph, 0.5)))
    return graph.apply("Mul", size, graph.apply("Sign", scaled))


def _exact_product(graph: OnnxGraph, images: str, weights: str) -> str:
    """Add the product of levels ``(N, 3, H, W)`` and whole weights ``(W, w)``, exact in float64.

    The weights have 24 bits and a sign. Their three bytes are multiplied one by one as integers, which takes an eighth
    of the memory of a product in float64 and is as exact.
    """
    scale, total = 1.0, ""
    for place in range(3):
        quotient = graph.apply("Floor", graph.apply("Mul", weights, _number(graph, 1 / _BYTE)))
        if place < 2:
            digit = graph.apply("Sub", weights, graph.apply("Mul", quotient, _number(graph, _BYTE)))
            zero = 0
        else:
            digit, zero = graph.apply("Add", weights, _number(graph, _HIGH_ZERO)), _HIGH_ZERO
        bytes_ = graph.cast(digit, np.uint8)
        zeros = graph.constant(np.uint8(0)), graph.constant(np.uint8(zero))
        product = graph.cast(graph.apply("MatMulInteger", images, bytes_, *zeros), np.float64)
        part = graph.apply("Mul", product, _number(graph, scale))
        total = graph.apply("Add", total, part) if total else part
        weights, scale = quotient, scale * _BYTE
    return total


def _bilinear(graph: OnnxGraph, x: str) -> str:
    """Add max(0, 1 - x)."""
    return graph.apply("Max", graph.apply("Sub", _number(graph, 1.0), x), _number(graph, 0.0))


def _polynomial(graph: OnnxGraph, x: str, coefficients: tuple[float, ...]) -> str:
    """Add a polynomial of x by Horner's rule, the highest power first."""
    value = _number(graph, coefficients[0])
    for coefficient in coefficients[1:]:
        value = graph.apply("Add", graph.apply("Mul", value, x), _number(graph, coefficient))
    return value


def _bicubic(graph: OnnxGraph, x: str) -> str:
    """Add Keys' cubic filter (1981) with a = -0.5."""
    near = _polynomial(graph, x, (1.5, -2.5, 0.0, 1.0))
    far = _polynomial(graph, x, (-0.5, 2.5, -4.0, 2.0))
    outer = graph.apply("Where", graph.apply("Less", x, _number(graph, 2.0)), far, _number(graph, 0.0))
    return graph.apply("Where", graph.apply("Less", x, _number(graph, 1.0)), near, outer)


def _sinc(graph: OnnxGraph, x: str) -> str:
    """Add sin(pi x) / (pi x), 1 at 0."""
    angle = graph.apply("Mul", x, _number(graph, math.pi))
    is_zero = graph.apply("Equal", angle, _number(graph, 0.0))
    divisor = graph.apply("Where", is_zero, _number(graph, 1.0), angle)
    ratio = graph.apply("Div", graph.apply("Sin", angle), divisor)
    return graph.apply("Where", is_zero, _number(graph, 1.0), ratio)


def _lanczos(graph: OnnxGraph, x: str) -> str:
    """Add Lanczos' filter of three lobes."""
    third = graph.apply("Mul", x, _number(graph, 1 / 3))
    product = graph.apply("Mul", _sinc(graph, x), _sinc(graph, third))
    return graph.apply("Where", graph.apply("Less", x, _number(graph, 3.0)), product, _number(graph, 0.0))


_FILTERS: dict[Interpolation, tuple[float, Callable[[OnnxGraph, str], str]]] = {
    Interpolation.BILINEAR: (1.0, _bilinear),
    Interpolation.BICUBIC: (2.0, _bicubic),
    Interpolation.LANCZOS: (3.0, _lanczos),
}
