"""A folder of hostile files: each entry has its exact outcome, and none is decoded twice."""

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import ImageError
from embedstore.media.image import decode, isolation, preprocess
from embedstore.space import Preprocess
from embedstore.types import display_uri
from tests.conftest import TINY, picture

SKIPPED = "skipped"  # the outcome of a name that is known to be no image: counted in the report, in no table
SIZE = (40, 30)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the bytes of an image file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gray16() -> Image.Image:
    """Return a 16-bit ramp."""
    return Image.fromarray(np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40))


def bomb_png(width: int, height: int) -> bytes:
    """Return a PNG whose header claims many pixels that it does not hold."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def many_scans() -> bytes:
    """Return a progressive JPEG that repeats its last scan 500 times."""
    data = encode(picture(1, SIZE), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 500 + data[-2:]


def zip_archive() -> bytes:
    """Return a ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("a.txt", "a")
    return out.getvalue()


def valid_images() -> dict[bytes, bytes]:
    """Return valid image files by name."""
    rgb = picture(0, SIZE)
    out: dict[bytes, bytes] = {}
    for n, mode in enumerate(["1", "L", "LA", "P", "RGB", "RGBA"]):
        out[f"mode-{mode}.png".encode()] = encode(picture(10 + n, SIZE).convert(mode), "PNG")
    for n, (kind, options) in enumerate(
        [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 1}), ("GIF", {}), ("BMP", {}),
         ("WEBP", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
         ("PPM", {}), ("TGA", {}), ("ICO", {}), ("PCX", {}), ("JPEG2000", {}), ("SGI", {}), ("DDS", {})]
    ):  # fmt: skip
        out[f"format-{n}-{kind}".encode()] = encode(picture(30 + n, SIZE), kind, **options)
    out[b"cmyk.jpg"] = encode(picture(50, SIZE).convert("CMYK"), "JPEG")
    out[b"gray.jpg"] = encode(picture(51, SIZE).convert("L"), "JPEG")
    out[b"gray16.png"] = encode(gray16(), "PNG")
    out[b"gray16.tif"] = encode(gray16(), "TIFF")
    out[b"moving.gif"] = encode(rgb, "GIF", save_all=True, append_images=[picture(52, SIZE), picture(53, SIZE)])
    out[b"moving.webp"] = encode(picture(54, SIZE), "WEBP", save_all=True, append_images=[picture(55, SIZE)])
    out[b"moving.png"] = encode(picture(56, SIZE), "PNG", save_all=True, append_images=[picture(57, SIZE)])
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        out[f"turned-{orientation}.jpg".encode()] = encode(picture(60 + orientation, SIZE), "JPEG", exif=exif)
    out[b"exif-garbage.jpg"] = encode(picture(70, SIZE), "JPEG", exif=b"Exif\0\0" + bytes(range(256)) * 8)
    out[b"one-pixel.png"] = encode(picture(71, (1, 1)), "PNG")
    out[b"a-line.png"] = encode(picture(72, (3000, 1)), "PNG")
    names = [
        b"new\nline.png", b"tab\t.png", "émoji 🐈.png".encode(), b"quote'\".png", b"-rf.png", b"%s%n.png",
        b"back\\slash.png", b"percent%20.png", "עברית.png".encode(), b"x" * 251 + b".png", b"not-utf8-\xff\xfe.png",
        b"semicolon;--.png", b"star*?[.png", b" space .png", b"no-suffix", b"wrong.jpg.exe", b"a.store",
    ]  # fmt: skip
    for n, name in enumerate(names):
        out[name] = encode(picture(100 + n, SIZE), "PNG")
    return out | odd_valid_images()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    """Return one segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def odd_valid_images() -> dict[bytes, bytes]:
    """Return valid images with oddities that are no reason to refuse them."""
    png, jpeg = encode(picture(200, SIZE), "PNG"), encode(picture(201, SIZE), "JPEG")
    ihdr = png[: 8 + 25]
    out = {
        b"png-called.jpg": encode(picture(202, SIZE), "PNG"),
        b"jpeg-called.png": encode(picture(203, SIZE), "JPEG"),
        b"text-after.jpg": jpeg + b"and then some text" * 50,
        b"zip-after.png": png + zip_archive(),
        b"icc-junk.png": ihdr + chunk(b"iCCP", b"junk\0\0" + zlib.compress(b"no profile" * 9)) + png[33:],
        b"icc-junk.jpg": jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(300)) + jpeg[2:],
        b"exif-loop.jpg": jpeg[:2] + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack(
            "<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)) + encode(picture(204, SIZE), "JPEG")[2:],
        b"exif-huge.jpg": jpeg[:2] + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack(
            "<HHII", 0x9286, 7, (1 << 31) - 1, 26)) + encode(picture(205, SIZE), "JPEG")[2:],
        b"many-comments.jpg": jpeg[:2] + segment(0xFE, b"c" * 60000) * 40 + encode(picture(206, SIZE), "JPEG")[2:],
        b"plain.ppm": b"P3 2 2 255 " + b"10 20 30 " * 4,
        b"bits.pbm": b"P4\n16 4\n" + bytes([0b10101010, 0b11110000] * 4),
    }  # fmt: skip
    for n, kind in enumerate(["AVIF", "QOI", "ICNS", "XBM", "MSP", "IM", "SPIDER"]):
        mode = {"XBM": "1", "MSP": "1", "SPIDER": "F", "IM": "RGB"}.get(kind, "RGB")
        size = (64, 64) if kind == "ICNS" else SIZE
        out[f"also-{kind}".encode()] = encode(picture(210 + n, size).convert(mode), kind)
    return out


def invalid_files() -> dict[bytes, tuple[bytes, str]]:
    """Return files that are no valid images by name, with the reason."""
    png, jpeg = encode(picture(0, (200, 150)), "PNG"), encode(picture(0, (200, 150)), "JPEG")
    gif, webp = encode(picture(0, (200, 150)), "GIF"), encode(picture(0, (200, 150)), "WEBP")
    tiff, bmp = encode(picture(0, (200, 150)), "TIFF"), encode(picture(0, (200, 150)), "BMP")
    return more_invalid_files(png, jpeg, tiff, bmp) | {
        b"empty.jpg": (b"", "empty"),
        b"one-byte.jpg": (b"\xff", "not_an_image"),
        b"text.jpg": (b"a picture of a cat\n" * 40, "not_an_image"),
        b"page.png": (b"<!doctype html><img src=x>", "not_an_image"),
        b"drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        b"archive.jpg": (zip_archive(), "not_an_image"),
        b"program.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not_an_image"),
        b"document.pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", SKIPPED),
        b"pickle.png": (b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.", "not_an_image"),
        b"zeros.jpg": (bytes(5000), "not_an_image"),
        b"half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        b"half.png": (png[: len(png) // 2], "truncated"),
        b"half.gif": (gif[: len(gif) // 2], "truncated"),
        b"half.webp": (webp[: len(webp) // 2], "corrupt"),
        b"head-only.png": (png[:40], "corrupt"),
        b"header-broken.png": (png[:8] + bytes(40), "corrupt"),
        b"bomb.png": (bomb_png(50_000, 50_000), "too_large"),
        b"large-bomb.png": (bomb_png(200_000, 100_000), "too_large"),
        b"claims-much.png": (bomb_png(9_000, 9_000), "truncated"),
        b"no-width.png": (bomb_png(0, 10), "corrupt"),
        b"scans.jpg": (many_scans(), "too_many_scans"),
    }


def more_invalid_files(png: bytes, jpeg: bytes, tiff: bytes, bmp: bytes) -> dict[bytes, tuple[bytes, str]]:
    """Return truncated files and files with false headers, with the reason."""
    out: dict[bytes, tuple[bytes, str]] = {}
    for share in (2, 30, 90):
        out[f"cut-{share}.jpg".encode()] = (jpeg[: len(jpeg) * share // 100], "truncated")
        out[f"cut-{share}.png".encode()] = (png[: max(60, len(png) * share // 100)], "truncated")
        out[f"cut-{share}.bmp".encode()] = (bmp[: len(bmp) * share // 100], "truncated")
        out[f"cut-{share}.tif".encode()] = (tiff[: len(tiff) * share // 100], "truncated")
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 255
    bomb = png[:33] + chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(80 << 20), 9)) + png[33:]
    ifd_loop = b"II*\0\x08\0\0\0\0\0\x08\0\0\0"
    return out | {
        b"broken-inside.png": (bytes(damaged), "corrupt"),
        b"text-bomb.png": (bomb, "too_large"),
        b"ifd-loop.tif": (ifd_loop, "corrupt"),
        b"ifd-many.tif": (b"II*\0\x08\0\0\0\xff\xff" + bytes(40), "corrupt"),
        b"bomb.gif": (
            b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3) + b"," + struct.pack("<HHHH", 0, 0, 65535, 65535)
            + b"\0\x02\x02\x4c\x01\0;",
            "too_large",
        ),
        b"palm.bin": (encode(picture(0, SIZE).convert("1"), "PALM"), "not_an_image"),
        b"bomb.bmp": (b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
                      "too_large"),
        b"no-frames.gif": (b"GIF89a" + struct.pack("<HH", 40, 30) + bytes(3) + b";", "corrupt"),
        b"negative.bmp": (b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, -5, 5, 1, 24, 0, 0, 0, 0, 0, 0),
                          "too_large"),
        b"only-ffd8.jpg": (b"\xff\xd8\xff", "corrupt"),
        b"script.html": (b"<script>alert(1)</script>", SKIPPED),
        b"shell.sh": (b"#!/bin/sh\nrm -rf /\n", SKIPPED),
    }  # fmt: skip


def special_entries(folder: Path) -> dict[bytes, str]:
    """Create entries that are no regular files; return the reason by name, "" for an image."""
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()  # noqa: PTH109
        os.chdir(folder)  # the path of a socket has at most 107 bytes
        s.bind("socket.jpg")
        os.chdir(here)
    (folder / "dangling.jpg").symlink_to("in no table")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "up").symlink_to("..")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    with (folder / "sparse.jpg").open("wb") as f:
        f.truncate(2 << 30)
    (folder / "first.png").symlink_to("second.png")
    (folder / "second.png").symlink_to("mode-RGB.png")
    os.link(folder / "mode-L.png", folder / "hard-link.png")
    deep = folder
    for n in range(12):
        deep = deep / f"{n:0120d}"
    deep.mkdir(parents=True)
    (deep / "deep.png").write_bytes(encode(picture(300, SIZE), "PNG"))
    return {
        b"first.png": "",
        b"second.png": "",
        b"hard-link.png": "",
        os.fsencode(deep.relative_to(folder)) + b"/deep.png": "",
        b"pipe.jpg": "not_a_file",
        b"socket.jpg": "not_a_file",
        b"dangling.jpg": "missing",
        b"loop.jpg": "missing",
        b"up": "not_followed",
        b"zero.jpg": "not_a_file",
        b"sparse.jpg": "too_large",
    }


@pytest.fixture
def hostile(tmp_path):
    """Create the folder; return it and the expected outcome of each entry, "" for an image."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    outcomes: dict[bytes, str] = {}
    for name, data in valid_images().items():
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(data)
        outcomes[name] = ""
    for name, (data, reason) in invalid_files().items():
        (folder / os.fsdecode(name)).write_bytes(data)
        outcomes[name] = reason
    outcomes |= special_entries(folder)
    outcomes[b"wrong.jpg.exe"] = SKIPPED  # an image, but under the name of a program
    return folder, outcomes


def outcomes_of(store: es.Store, folder: Path, names: list[bytes]) -> dict[bytes, str]:
    """Return the outcome of each name."""
    rows = store.sql("SELECT uri, '' FROM items UNION ALL SELECT uri, reason FROM failures").rows
    known = dict(rows)
    assert len(known) == len(rows), "each entry is in one table only"
    return {n: known.get(display_uri(str(folder) + "/" + os.fsdecode(n)), SKIPPED) for n in names}


def test_hostile_entries_have_exact_outcomes_and_are_not_decoded_twice(tmp_path, hostile):
    """About 130 entries end as an item, as a failure with its reason, or skipped; a second run decodes none of them."""
    folder, expected = hostile
    assert len(expected) >= 130
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    report = store.embed(folder, labels_from=None)
    assert outcomes_of(store, folder, list(expected)) == expected
    skipped = sum(r == SKIPPED for r in expected.values())
    assert report.skipped == skipped
    assert report.scanned == len(expected) - skipped
    assert report.failures == sum(r not in ("", SKIPPED) for r in expected.values())
    again = store.embed(folder, labels_from=None)
    assert (again.embedded, again.reused, again.failures) == (0, 0, 0)
    assert again.unchanged + again.known_failures == len(expected) - skipped
    assert store.sql(
        "SELECT width, height FROM items JOIN contents USING (content) WHERE uri LIKE '%turned-6.jpg'"
    ).rows == ((30, 40),)
    assert store.verify(check_images=True).ok


HOSTILE_WORKER = (
    "import os, sys, json, time; sys.path[:] = json.loads(sys.argv[1]);\n"
    "from embedstore.media.image import isolation_worker as worker\n"
    "decode = worker.open_image\n"
    "def hostile(data, *settings):\n"
    "    if b'HANG' in data: time.sleep(1000)\n"
    "    if b'SEGV' in data: os.kill(os.getpid(), 11)\n"
    "    if b'EATS' in data: data = bytes(8 << 30)\n"
    "    return decode(data, *settings)\n"
    "worker.open_image = hostile\n"
    "worker.main({}, {})"
)


def children() -> set[str]:
    """Return the child processes, zombies included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def isolated_image(seed: int, mark: bytes = b"") -> bytes:
    """Return an image of a format that is decoded in a separate process."""
    return encode(picture(seed, SIZE), "TIFF") + mark


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts processes in /proc")
def test_file_that_hangs_crashes_or_exhausts_memory_fails_alone(tmp_path, monkeypatch):
    """Each such file is a failure with its reason, the others are embedded, and no process is left."""
    monkeypatch.setattr(isolation, "WORKER_CODE", HOSTILE_WORKER)
    monkeypatch.setattr(isolation, "TIMEOUT_SECONDS", 6.0)
    folder = tmp_path / "odd"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n:02d}.tif").write_bytes(isolated_image(n))
    for name in ("HANG", "SEGV", "EATS"):
        (folder / f"0{name}.tif").write_bytes(isolated_image(0, name.encode()))
    before = children()
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    report = store.embed(folder, labels_from=None)
    assert report.failures_by_reason == {"timed_out": 1, "crashed": 1, "no_memory": 1}
    assert report.embedded == 12
    reasons = dict(store.sql("SELECT right(uri, 8), reason FROM failures").rows)
    assert reasons == {"HANG.tif": "timed_out", "SEGV.tif": "crashed", "EATS.tif": "no_memory"}
    assert children() == before
    assert store.embed(folder, labels_from=None).known_failures == 3


def compare_decoders(files: Iterable[tuple[object, bytes]]) -> int:
    """Decode each file in this process and in a worker, compare pixels, facts and reasons, and return their number."""
    p = Preprocess(size=(32, 32), resize=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)

    def here(data):
        try:
            image, facts = decode.open_image(data)
            return preprocess.resize_and_crop(image, p).tobytes(), facts
        except ImageError as e:
            return e.reason, e.detail

    def there(data):
        try:
            pixels, facts = workers.prepare(data)
            return pixels.tobytes(), facts
        except ImageError as e:
            return e.reason, e.detail

    count = 0
    with isolation.DecodeWorkerPool(p) as workers:
        for name, data in files:
            assert there(data) == here(data), name
            count += 1
    return count


def test_worker_decodes_the_same_pixels():
    """A worker process gives the same pixels, facts and reasons as this process."""
    files = {**valid_images(), **{n: d for n, (d, _) in invalid_files().items() if d}}
    assert compare_decoders(files.items()) == len(files)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_worker_decodes_the_same_pixels_of_image_library_test_files(unpacked):
    """A worker gives the same pixels and reasons for 1,538 odd or broken files of image libraries."""
    files = sorted(p for p in unpacked("nasty").rglob("*") if p.is_file())
    assert compare_decoders((p.name, p.read_bytes()) for p in files) == 1538
