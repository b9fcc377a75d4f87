"""Broken image files: each has one reason, none hangs, and no thread is affected."""

import csv
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from embedstore.errors import ImageError
from embedstore.media.image import decode
from embedstore.types import ContentInfo, FailureReason
from tests.helpers.image_files import (
    BLUE,
    FORMATS,
    NOISE,
    RED,
    WHITE,
    decode_error,
    decode_failure,
    decoded_pixels,
    encode,
    jpeg_with_scans,
    png,
)
from tests.sources.test_archives import tar_bytes, zip_bytes

# ---- failures


def test_empty_files_other_files_and_bare_headers_have_different_reasons():
    """No bytes, text, and a header without a body are three reasons."""
    assert decode_failure(b"") is FailureReason.EMPTY
    assert decode_failure(b"hello\n") is FailureReason.NOT_AN_IMAGE
    assert decode_failure(b"\xff\xd8\xff nonsense") is FailureReason.CORRUPT
    assert decode_failure(b"\0\0\0\x1cftypavif nonsense") is FailureReason.CORRUPT


def test_postscript_is_refused_and_not_run():
    """EPS would be handed to Ghostscript; it is refused by name."""
    e = decode_error(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert e.reason is FailureReason.NOT_AN_IMAGE
    assert "PostScript" in e.detail


OTHER_FILES = {
    "JPEG XL": b"\xff\x0a\xfa\x1f\x01\x90",
    "JPEG XL needs": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
    "DICOM": b"\0" * 128 + b"DICM\x02\0",
    "SVG": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "download the image again": b"\n<!DOCTYPE html>\n<html><body>429 Too Many Requests</body></html>",
    "an error of a server": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "git annex get": b"/annex/objects/SHA256E-s31390--f50d.jpg\n",
    "--pages": b"%PDF-1.7\n",
    "--every": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
    "OpenEXR": b"\x76\x2f\x31\x01\2\0\0\0",
    "Radiance": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
    ".zip": zip_bytes([("cat.png", encode(NOISE, "PNG"))]),
    ".tar": tar_bytes([("cat.png", encode(NOISE, "PNG"))]),
    "SQLite": b"SQLite format 3\0" + b"\0" * 84,
}


@pytest.mark.parametrize("said", OTHER_FILES)
def test_a_file_that_is_no_image_is_named_with_what_to_do(said):
    """What people have in place of an image: a web page, a pointer of Git LFS, a format of another program."""
    error = decode_error(OTHER_FILES[said])
    assert error.reason is FailureReason.NOT_AN_IMAGE
    assert said in error.detail


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_never_decodes_to_a_partial_image(form):
    """Gray or black rows in place of what is missing would be embedded silently."""
    data = encode(NOISE, form, **FORMATS[form])
    whole = decoded_pixels(data)
    for cut in range(1, len(data), 1 + len(data) // 150):
        try:
            got = decoded_pixels(data[:cut])
        except ImageError:
            continue
        assert got == whole, cut  # only what follows the picture was cut off


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_a_truncated_file_has_the_reason_truncated(form):
    """This holds for the common formats."""
    rng = np.random.default_rng(0)
    data = encode(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), form)
    assert decode_failure(data[: len(data) // 2]) is FailureReason.TRUNCATED


def test_a_truncated_file_fails_although_pillow_is_set_to_load_it(monkeypatch):
    """Pillow's global switch is off while embedstore decodes."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    assert decode_failure(data[: len(data) // 2]) is FailureReason.TRUNCATED


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    """50,000 × 50,000 pixels in a few bytes take neither time nor memory."""
    begin = time.perf_counter()
    e = decode_error(png(50_000, 50_000, 8, 2, b"\0" * 1000))
    assert e.reason is FailureReason.TOO_LARGE
    assert time.perf_counter() - begin < 1


def test_the_pixel_limit_is_that_of_pillow():
    """One pixel more than the limit is refused by its header."""
    assert decode.MAX_PIXELS == 2 * (1024 * 1024 * 1024 // 4 // 3)
    assert decode_failure(png(decode.MAX_PIXELS + 1, 1, 1, 0, b"\0")) is FailureReason.TOO_LARGE
    assert decode_failure(png(13_377, 13_379, 1, 0, b"\0")) is FailureReason.TOO_LARGE  # 178,970,883 pixels


def test_a_jpeg_of_500_scans_is_refused_and_one_of_20_is_decoded():
    """Counting the scans is cheap; decoding 500 of them takes minutes for a large image."""
    begin = time.perf_counter()
    e = decode_error(jpeg_with_scans(500))
    assert e.reason is FailureReason.TOO_MANY_SCANS
    assert "500" in e.detail
    assert time.perf_counter() - begin < 0.5
    assert decode.open_image(jpeg_with_scans(20))[1] == ContentInfo(256, 256, "JPEG")


def test_a_compressed_text_bomb_in_a_png_is_refused():
    """A comment of 100 MB of zeros is not decompressed."""
    bomb = b"Comment\0\0" + zlib.compress(b"\0" * 100_000_000)
    assert decode_failure(png(1, 1, 8, 0, b"\0\0", (b"zTXt", bomb))) in (FailureReason.TOO_LARGE, FailureReason.CORRUPT)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_gives_an_image_or_an_image_error(data):
    """Bytes are changed, cut or inserted anywhere in a small file of any format: no other error is raised."""
    original = data.draw(st.sampled_from(SMALL))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(1, len(damaged)))]
    try:
        image, facts = decode.open_image(bytes(damaged))
    except ImageError as e:
        found = (e.reason in FailureReason, "\n" in e.detail)
    else:
        found = (image.mode == "RGB", image.size != (facts.width, facts.height))
    assert found == (True, False)


def _small_files() -> list[bytes]:
    """Return one small file of each format that Pillow writes."""
    image = Image.linear_gradient("L").resize((9, 7)).convert("RGB")
    return [encode(image, form, **options) for form, options in FORMATS.items()] + [encode(image, "TIFF")]


SMALL = _small_files()

# ---- quiet

NOISY = """
import sys, warnings
from pathlib import Path
from embedstore.media.image import decode
from embedstore.errors import ImageError
for path in sys.argv[1:]:
    try:
        decode.open_image(Path(path).read_bytes())
    except ImageError:
        pass
print("torch" in sys.modules)
"""


def test_decoding_prints_nothing_and_does_not_import_torch(unpacked):
    """Every TIFF and PNG of the corpus, in a fresh process with all warnings on, writes nothing to stderr."""
    files = [str(p) for p in sorted(unpacked("nasty").rglob("*")) if p.suffix in (".tif", ".tiff", ".png", ".gif")]
    done = subprocess.run([sys.executable, "-W", "always", "-c", NOISY, *files], capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout == b"False\n"


def test_an_image_decodes_when_warnings_are_errors():
    """Under ``-W error`` an image that Pillow decodes with a warning is still decoded."""
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode.open_image(encode(palette, "PNG", transparency=b"\0"))[0].mode == "RGB"
        row = b"\0" + b"\xff" * 1250
        image, _ = decode.open_image(png(10_000, 9_000, 1, 0, row * 9_000))  # Pillow warns of 90 million pixels
    assert image.getpixel((9_999, 8_999)) == WHITE


def test_warnings_outside_of_decoding_are_unchanged():
    """Outside a decode, and on another thread during one, Pillow and other code warn as before."""
    heard: list[str] = []

    def warn() -> None:
        with warnings.catch_warnings(record=True) as log:
            warnings.simplefilter("always")
            warnings.warn("mine", UserWarning, stacklevel=1)
            heard.extend(str(w.message) for w in log)

    decode.open_image(SMALL[0])
    warn()
    from embedstore.media.image.warnings_filter import suppress_warnings

    with suppress_warnings():
        thread = threading.Thread(target=warn)
        thread.start()
        thread.join()
    assert heard == ["mine", "mine"]


def test_many_threads_decode_as_one_thread_does():
    """Sixteen threads over all small files, fifty times, give the same pixels."""
    want = [np.asarray(decode.open_image(d)[0]) for d in SMALL]
    with ThreadPoolExecutor(16) as pool:
        for i, got in enumerate(
            pool.map(lambda n: np.asarray(decode.open_image(SMALL[n % len(SMALL)])[0]), range(800))
        ):
            np.testing.assert_array_equal(got, want[i % len(SMALL)])


# ---- the nasty corpus

# The manifest says that these open. It was made with a first read whose error was passed over; the data are broken:
# an iPhone's own PNG dialect, streams that end early, an animation without its frames' headers.
BROKEN_ALL_THE_SAME = {
    "pillow/broken_data_stream.png", "pillow/truncated_end_chunk.png", "pillow/apng/chunk_no_fctl.png",
    "pngsuite/iphone/iphone_basi0g01.png", "pngsuite/iphone/iphone_basi0g02.png", "pngsuite/iphone/iphone_basi3p02.png",
    "pngsuite/iphone/iphone_bgwn6a08.png", "pngsuite/iphone/iphone_bgyn6a16.png", "pngsuite/iphone/iphone_tbyn3p08.png",
    "pngsuite/iphone/iphone_z06n2c08.png",
}  # fmt: skip
# The manifest looked for a second frame, which these have not; the first is whole.
WHOLE_FIRST_FRAME = {
    "pillow/negative_layer_count.psd", "pillow/psd-oob-write-overflow.psd", "pillow/psd-oob-write-x.psd",
    "pillow/psd-oob-write-y.psd", "pillow/psd-oob-write.psd",
}  # fmt: skip

# The manifest says what Pillow alone does; pillow-heif decodes these.
HEIF_FILES = {"exif_samples/heic/samplefilehub.heif", "pillow/avif/hopper.heif"}


def test_every_file_of_the_corpus_decodes_or_has_a_reason(unpacked):
    """1,538 files of other libraries' test suites decode to RGB or fail with a reason, as their manifest states."""
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed (extra heic)")
    folder = unpacked("nasty")
    with (folder / "MANIFEST.csv").open(newline="") as f:
        manifest = {row["path"]: row for row in csv.DictReader(f)}
    counts: Counter[str] = Counter()
    wrong = []
    begin = time.perf_counter()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        try:
            image, facts = decode.open_image(path.read_bytes())
            outcome = "picture" if (image.mode, image.size) == ("RGB", (facts.width, facts.height)) else "wrong"
        except ImageError as e:
            outcome = e.reason.value
        counts[outcome] += 1
        if name in manifest:
            opens = manifest[name]["rgb"] == "ok" or name in HEIF_FILES
            wanted = (opens or name in WHOLE_FIRST_FRAME) and name not in BROKEN_ALL_THE_SAME
            if wanted != (outcome == "picture"):
                wrong.append((name, outcome))
    assert wrong == []
    assert counts.total() == 1538
    assert counts["picture"] == 1223
    assert set(counts) == {"picture", "not_an_image", "corrupt", "truncated", "too_large"}
    assert time.perf_counter() - begin < 120


def test_upright_sizes_of_the_corpus_are_those_of_its_manifest(unpacked):
    """Width and height are swapped for orientations that turn by a quarter, except in TIFF, whose size is upright."""
    folder = unpacked("nasty")
    checked = 0
    with (folder / "MANIFEST.csv").open(newline="") as f:
        for row in csv.DictReader(f):
            turned = row["orientation"].isdigit() and int(row["orientation"]) > 1
            if turned and row["rgb"] == "ok" and (folder / row["path"]).exists():
                width, height = int(row["width"]), int(row["height"])
                quarter = int(row["orientation"]) >= 5 and row["format"] != "TIFF"
                expected = (height, width) if quarter else (width, height)
                facts = decode.open_image((folder / row["path"]).read_bytes())[1]
                assert (facts.width, facts.height) == expected, row["path"]
                checked += 1
    assert checked == 49
