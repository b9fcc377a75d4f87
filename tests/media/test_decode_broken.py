"""Files that are no whole picture, and reading from a disk: one reason each, nothing hangs, no thread is hurt."""

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
from embedstore.types import FailureReason, ImageInfo
from tests.helpers.image_files import BLUE, FORMATS, NOISE, RED, WHITE, failure, many_scans, pixels, png, reason, stored

# ---- failures


def test_no_bytes_and_no_image_are_told_apart():
    """Nothing, text, and a header without a body."""
    assert reason(b"") is FailureReason.EMPTY
    assert reason(b"hello\n") is FailureReason.NOT_AN_IMAGE
    assert reason(b"\xff\xd8\xff nonsense") is FailureReason.CORRUPT


def test_postscript_is_not_run():
    """EPS would be handed to Ghostscript; here it is refused by name."""
    e = failure(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert e.reason is FailureReason.NOT_AN_IMAGE
    assert "PostScript" in e.detail


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_is_whole_or_a_failure_and_never_half_a_picture(form):
    """Grey or black rows in place of what is missing would be embedded in silence."""
    data = stored(NOISE, form, **FORMATS[form])
    whole = pixels(data)
    for cut in range(1, len(data), 1 + len(data) // 150):
        try:
            got = pixels(data[:cut])
        except ImageError:
            continue
        assert got == whole, cut  # only what follows the picture was cut off


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_a_cut_file_is_called_truncated(form):
    """The common formats say so."""
    rng = np.random.default_rng(0)
    data = stored(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), form)
    assert reason(data[: len(data) // 2]) is FailureReason.TRUNCATED


def test_a_truncated_file_fails_even_where_a_script_allowed_them(monkeypatch):
    """Pillow's global switch for grey rows is off while embedstore decodes."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = stored(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    assert reason(data[: len(data) // 2]) is FailureReason.TRUNCATED


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    """50,000 × 50,000 pixels in a few bytes: no time, no memory."""
    begin = time.perf_counter()
    e = failure(png(50_000, 50_000, 8, 2, b"\0" * 1000))
    assert e.reason is FailureReason.TOO_LARGE
    assert time.perf_counter() - begin < 1


def test_the_pixel_limit_is_pillows():
    """One pixel more than the limit is refused by its header; Pillow's own limit is the same number."""
    assert decode.MAX_PIXELS == 2 * (1024 * 1024 * 1024 // 4 // 3)
    assert reason(png(decode.MAX_PIXELS + 1, 1, 1, 0, b"\0")) is FailureReason.TOO_LARGE
    assert reason(png(13_377, 13_379, 1, 0, b"\0")) is FailureReason.TOO_LARGE  # 178,970,883 pixels


def test_a_jpeg_of_500_scans_is_refused_at_once_and_one_of_20_is_read():
    """Counting the scans costs nothing; decoding 500 of them costs minutes for a large picture."""
    begin = time.perf_counter()
    e = failure(many_scans(500))
    assert e.reason is FailureReason.TOO_MANY_SCANS
    assert "500" in e.detail
    assert time.perf_counter() - begin < 0.5
    assert decode.open_image(many_scans(20))[1] == ImageInfo(256, 256, "JPEG")


def test_a_zipped_text_bomb_in_a_png_is_refused():
    """100 MB of zeros as a comment are not unpacked."""
    bomb = b"Comment\0\0" + zlib.compress(b"\0" * 100_000_000)
    assert reason(png(1, 1, 8, 0, b"\0\0", (b"zTXt", bomb))) in (FailureReason.TOO_LARGE, FailureReason.CORRUPT)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_gives_a_picture_or_an_image_error(data):
    """Bytes changed, cut or inserted anywhere in a small file of any format: nothing else ever comes out."""
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


def _small() -> list[bytes]:
    """One small file of each format that Pillow writes."""
    image = Image.linear_gradient("L").resize((9, 7)).convert("RGB")
    return [stored(image, form, **options) for form, options in FORMATS.items()] + [stored(image, "TIFF")]


SMALL = _small()

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


def test_nothing_reaches_the_terminal_and_torch_is_not_imported(unpacked):
    """Every TIFF and PNG of the nasty corpus, in a fresh process with all warnings on, writes nothing to stderr."""
    files = [str(p) for p in sorted(unpacked("nasty").rglob("*")) if p.suffix in (".tif", ".tiff", ".png", ".gif")]
    done = subprocess.run([sys.executable, "-W", "always", "-c", NOISY, *files], capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout == b"False\n"


def test_a_warning_made_an_error_does_not_cost_the_picture():
    """Under ``-W error`` a picture that Pillow reads with a warning is still read."""
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode.open_image(stored(palette, "PNG", transparency=b"\0"))[0].mode == "RGB"
        row = b"\0" + b"\xff" * 1250
        image, _ = decode.open_image(png(10_000, 9_000, 1, 0, row * 9_000))  # Pillow warns of 90 million pixels
    assert image.getpixel((9_999, 8_999)) == WHITE


def test_the_users_own_warnings_are_left_alone():
    """Outside a decode, and on another thread during one, Pillow and everybody else warn as ever."""
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


def test_many_threads_decode_what_one_thread_decodes():
    """Sixteen threads over all small files, fifty times: the same pixels."""
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


def test_every_file_of_the_nasty_corpus_opens_or_says_why_not(unpacked):
    """1,538 files of other libraries' test suites: RGB where the manifest says so, one reason where it does not."""
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
            opens = manifest[name]["rgb"] == "ok"
            wanted = (opens or name in WHOLE_FIRST_FRAME) and name not in BROKEN_ALL_THE_SAME
            if wanted != (outcome == "picture"):
                wrong.append((name, outcome))
    assert wrong == []
    assert counts.total() == 1538
    assert counts["picture"] == 1221
    assert set(counts) == {"picture", "not_an_image", "corrupt", "truncated", "too_large"}
    assert time.perf_counter() - begin < 120


def test_upright_sizes_of_the_nasty_corpus_are_the_manifests(unpacked):
    """Width and height are the manifest's, swapped for the orientations that turn by a quarter (but in a TIFF, whose
    size Pillow gives upright)."""
    folder = unpacked("nasty")
    checked = 0
    with (folder / "MANIFEST.csv").open(newline="") as f:
        for row in csv.DictReader(f):
            turned = row["orientation"].isdigit() and int(row["orientation"]) > 1
            if turned and row["rgb"] == "ok" and (folder / row["path"]).exists():
                width, height = int(row["width"]), int(row["height"])
                quarter = int(row["orientation"]) >= 5 and row["format"] != "TIFF"
                stands = (height, width) if quarter else (width, height)
                facts = decode.open_image((folder / row["path"]).read_bytes())[1]
                assert (facts.width, facts.height) == stands, row["path"]
                checked += 1
    assert checked == 49
