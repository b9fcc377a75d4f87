"""The preprocessing of a space as an ONNX graph: resize and crop as `media/image/preprocess.py` does by Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL

from embedstore.backbones.runtimes.onnx_resample import add_resample
from embedstore.onnx_graph import OnnxGraph
from embedstore.space import Preprocess, ResizeMode

_SWAP = [0, 1, 3, 2]  # height and width change places
_FIRST_PILLOW_WITH_ORDER = 13


def build_preprocess_onnx(preprocess: Preprocess) -> Any:
    """Return the model from ``images``, uint8 ``(N, H, W, 3)`` of any size, to ``pixels``, uint8 ``(N, 3, h, w)``.

    Raises:
        MissingExtra: if the package onnx is not installed.
    """
    graph = OnnxGraph("preprocess")
    channels_first = graph.apply("Transpose", "images", perm=[0, 3, 1, 2])
    resized = _add_resize(graph, channels_first, preprocess)
    _add_crop(graph, resized, preprocess)
    height, width = preprocess.size
    inputs, outputs = ["images", "height", "width", 3], ["images", 3, height, width]
    return graph.build({"images": (np.uint8, inputs)}, {"pixels": (np.uint8, outputs)})


def _sides(graph: OnnxGraph, images: str) -> str:
    """Add the height and the width of ``(N, 3, H, W)``, int64 ``(2,)``."""
    return graph.apply("Gather", graph.apply("Shape", images), graph.constant([2, 3]))


def _add_resize(graph: OnnxGraph, images: str, preprocess: Preprocess) -> str:
    """Add the resize, one axis after the other in the order of the installed Pillow."""
    old, new = _sides(graph, images), _resized_sides(graph, _sides(graph, images), preprocess)
    swapped = _height_first(graph, old, new)
    places = graph.cast(swapped, np.int64)  # 0 or 1
    images = graph.transpose_if(swapped, images, _SWAP)
    for place in (graph.apply("Sub", graph.constant([1]), places), places):
        side = graph.apply("Gather", new, place)
        images = graph.apply("Transpose", add_resample(graph, images, side, preprocess.interpolation), perm=_SWAP)
    return graph.transpose_if(swapped, images, _SWAP)


def _height_first(graph: OnnxGraph, old: str, new: str) -> str:
    """Add whether the height is resampled first, bool ``(1,)``.

    Pillow 13 does where it loses more than twice as many rows as columns (pull request 9549); before, it never did.
    """
    if int(PIL.__version__.split(".")[0]) < _FIRST_PILLOW_WITH_ORDER:
        return graph.constant([False])
    lost = graph.apply("Sub", old, new)
    rows, columns = (graph.apply("Gather", lost, graph.constant([place])) for place in (0, 1))
    more = graph.apply("Greater", rows, graph.apply("Mul", columns, graph.constant([2])))
    return graph.apply("And", more, graph.apply("Greater", rows, graph.constant([0])))


def _resized_sides(graph: OnnxGraph, sides: str, preprocess: Preprocess) -> str:
    """Add the height and width before the crop, as :func:`embedstore.media.image.preprocess.resize_dimensions`."""
    target = np.array(preprocess.resize, np.int64)
    if preprocess.mode is ResizeMode.SQUASH:
        return graph.constant(target)
    if preprocess.mode is ResizeMode.SHORTEST and target[0] == target[1]:
        shortest = graph.apply("ReduceMin", sides, keepdims=1)
        return graph.apply("Div", graph.apply("Mul", sides, graph.constant(target)), shortest)
    wide = graph.cast(sides, np.float64)
    ratios = graph.apply("Div", wide, graph.constant(target, np.float64))
    reduce = "ReduceMax" if preprocess.mode is ResizeMode.LONGEST else "ReduceMin"
    rounded = graph.apply("Round", graph.apply("Div", wide, graph.apply(reduce, ratios, keepdims=1)))
    return graph.apply("Max", graph.cast(rounded, np.int64), graph.constant([1]))


def _add_crop(graph: OnnxGraph, images: str, preprocess: Preprocess) -> None:
    """Add the crop of the center; a side that is too short is padded, with an odd pixel at the right or bottom."""
    size, two = graph.constant(np.array(preprocess.size, np.int64)), graph.constant([2])
    short = graph.apply("Max", graph.apply("Sub", size, _sides(graph, images)), graph.constant([0]))
    before = graph.apply("Div", short, two)
    pads = graph.apply("Concat", before, graph.apply("Sub", short, before), axis=0)
    gray = preprocess.fill if preprocess.mode is ResizeMode.LONGEST else 0  # torchvision's center crop pads with black
    axes = graph.constant([2, 3])
    padded = graph.apply("Pad", images, pads, graph.constant(np.uint8(gray)), axes)
    extra = graph.cast(graph.apply("Sub", _sides(graph, padded), size), np.float64)
    start = graph.cast(graph.apply("Round", graph.apply("Div", extra, graph.constant(2.0))), np.int64)  # half to even
    cropped = graph.apply("Slice", padded, start, graph.apply("Add", start, size), axes)
    shape = graph.constant([0, 3, *preprocess.size])  # 0 keeps the number of images
    graph.apply("Reshape", cropped, shape, output="pixels")
