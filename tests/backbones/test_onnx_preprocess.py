"""The preprocessing as an ONNX graph gives the pixels that Pillow gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedstore.backbones.runtimes.onnx_preprocess import build_preprocess_onnx
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import Interpolation, Preprocess, ResizeMode

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
sides = st.integers(1, 90)


def pixels_of(preprocess, images):
    """The pixels of the graph for images of one size."""
    model = build_preprocess_onnx(preprocess).SerializeToString()
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@settings(max_examples=60, deadline=None)
@given(
    image=st.tuples(sides, sides),
    size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    resize=st.tuples(st.integers(4, 48), st.integers(4, 48)),
    mode=st.sampled_from(list(ResizeMode)),
    interpolation=st.sampled_from(list(Interpolation)),
    fill=st.integers(0, 255),
    seed=st.integers(0, 99),
)
def test_the_pixels_are_those_of_pillow(image, size, resize, mode, interpolation, fill, seed):
    """Any image, any size, mode and filter: every level is the same."""
    if mode is ResizeMode.LONGEST:
        resize = (resize[0], resize[0])
    preprocess = Preprocess(size, resize, ZERO, ONE, mode, interpolation, fill)
    pictures = np.random.default_rng(seed).integers(0, 256, (2, *image, 3), dtype=np.uint8)
    expected = np.stack([resize_and_crop(Image.fromarray(p), preprocess) for p in pictures])
    assert np.array_equal(pixels_of(preprocess, pictures), expected)


@pytest.mark.parametrize("shape", [(3000, 400), (375, 500), (224, 224), (256, 341), (40, 1000)])
@pytest.mark.parametrize("mode", list(ResizeMode))
def test_photos_of_usual_sizes(shape, mode):
    """Sizes of photos with the input of most networks."""
    preprocess = Preprocess((224, 224), (256, 256), ZERO, ONE, mode)
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = resize_and_crop(Image.fromarray(picture), preprocess)
    assert np.array_equal(pixels_of(preprocess, picture[None])[0], expected)
