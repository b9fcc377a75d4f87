"""The exact way gives the bytes of Pillow for every JPEG, whatever its size, sampling, orientation and scans."""

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedstore.errors import ImageError
from embedstore.media.image import decode, plain_jpeg, preprocess
from embedstore.media.image.screening import is_safe_in_process
from embedstore.space import Interpolation, Preprocess, ResizeMode
from tests.conftest import picture

MODES = ["RGB", "L", "CMYK"]
HALF = (0.5, 0.5, 0.5)


@st.composite
def jpegs(draw):
    """The bytes of a JPEG file."""
    size = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    noise = np.random.default_rng(draw(st.integers(0, 99))).normal(0, draw(st.sampled_from([0, 30])), (*size[::-1], 3))
    pixels = np.clip(np.asarray(picture(1, size), np.int16) + noise, 0, 255).astype(np.uint8)
    exif, out = Image.Exif(), io.BytesIO()
    exif[decode.ORIENTATION_TAG] = draw(st.integers(0, 9))
    Image.fromarray(pixels).convert(draw(st.sampled_from(MODES))).save(
        out,
        "JPEG",
        quality=draw(st.integers(1, 100)),
        subsampling=draw(st.integers(0, 2)),
        progressive=draw(st.booleans()),
        restart_marker_blocks=draw(st.sampled_from([0, 1, 7])),
        exif=exif,
    )
    return out.getvalue()


preparations = st.builds(
    lambda size, resize, mode, way: Preprocess((size, size), (resize, resize), HALF, HALF, mode, way, 9),
    st.integers(1, 40),
    st.integers(1, 60),
    st.sampled_from(list(ResizeMode)),
    st.sampled_from(list(Interpolation)),
)


def outcome(prepare, data, p):
    """The pixels and facts, or the reason of the failure."""
    try:
        pixels, facts = prepare(data, p)
    except ImageError as e:
        return e.reason
    return pixels.tobytes(), pixels.shape, facts


@settings(max_examples=150, deadline=None)
@given(data=jpegs(), p=preparations, cut=st.one_of(st.none(), st.floats(0.02, 0.99)), damaged=st.booleans())
def test_the_exact_way_gives_the_bytes_of_pillow(data, p, cut, damaged):
    """Whole, cut and damaged files: equal pixels and facts, or the same reason."""
    if cut is not None:
        position = int(len(data) * cut)
        data = data[:position] + (b"\x55" * 3 + data[position + 3 :] if damaged else b"")
    if not is_safe_in_process(data):
        return
    assert outcome(plain_jpeg.prepare, data, p) == outcome(preprocess.prepare, data, p)


def test_ordinary_files_do_go_through_simplejpeg():
    """The comparison above is of two decoders: a plain file is not left to Pillow."""
    out = io.BytesIO()
    picture(0, (64, 48)).save(out, "JPEG")
    pixels, header = plain_jpeg.decode_plain_jpeg(out.getvalue())
    assert pixels.shape == (48, 64, 3)
    assert (header.width, header.height) == (64, 48)


def test_the_files_of_image_libraries_decode_to_the_bytes_of_pillow(unpacked):
    """Every small JPEG of their test suites that is not isolated: equal pixels, or the same reason."""
    p, compared = Preprocess((32, 32), (32, 32), HALF, HALF, ResizeMode.SHORTEST, Interpolation.BICUBIC, 0), 0
    for file in sorted(unpacked("nasty").rglob("*")):
        data = file.read_bytes() if file.is_file() and 0 < file.stat().st_size < 60_000 else b""
        if data.startswith(b"\xff\xd8") and is_safe_in_process(data):
            assert outcome(plain_jpeg.prepare, data, p) == outcome(preprocess.prepare, data, p), file
            compared += 1
    assert compared > 50
