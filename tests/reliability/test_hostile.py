"""A folder of everything that has ever hurt somebody: each entry has its exact outcome, and is never tried twice."""

import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.decode import isolated
from embedstore.records import display_uri
from tests.conftest import TINY, picture

SIZE = (40, 30)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file's bytes."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey16() -> Image.Image:
    """A 16-bit ramp."""
    return Image.fromarray(np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40))


def bomb_png(width: int, height: int) -> bytes:
    """A PNG header that claims much and holds nothing."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def many_scans() -> bytes:
    """A progressive JPEG whose last scan is there 500 times."""
    data = encoded(picture(1, SIZE), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 500 + data[-2:]


def zipped() -> bytes:
    """An archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("a.txt", "a")
    return out.getvalue()


def good() -> dict[bytes, bytes]:
    """Files that are pictures, by name."""
    rgb = picture(0, SIZE)
    out: dict[bytes, bytes] = {}
    for n, mode in enumerate(["1", "L", "LA", "P", "RGB", "RGBA"]):
        out[f"mode-{mode}.png".encode()] = encoded(picture(10 + n, SIZE).convert(mode), "PNG")
    for n, (kind, options) in enumerate(
        [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 1}), ("GIF", {}), ("BMP", {}),
         ("WEBP", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
         ("PPM", {}), ("TGA", {}), ("ICO", {}), ("PCX", {}), ("JPEG2000", {}), ("SGI", {}), ("DDS", {})]
    ):  # fmt: skip
        out[f"format-{n}-{kind}".encode()] = encoded(picture(30 + n, SIZE), kind, **options)
    out[b"cmyk.jpg"] = encoded(picture(50, SIZE).convert("CMYK"), "JPEG")
    out[b"grey.jpg"] = encoded(picture(51, SIZE).convert("L"), "JPEG")
    out[b"grey16.png"] = encoded(grey16(), "PNG")
    out[b"grey16.tif"] = encoded(grey16(), "TIFF")
    out[b"moving.gif"] = encoded(rgb, "GIF", save_all=True, append_images=[picture(52, SIZE), picture(53, SIZE)])
    out[b"moving.webp"] = encoded(picture(54, SIZE), "WEBP", save_all=True, append_images=[picture(55, SIZE)])
    out[b"moving.png"] = encoded(picture(56, SIZE), "PNG", save_all=True, append_images=[picture(57, SIZE)])
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        out[f"turned-{orientation}.jpg".encode()] = encoded(picture(60 + orientation, SIZE), "JPEG", exif=exif)
    out[b"exif-garbage.jpg"] = encoded(picture(70, SIZE), "JPEG", exif=b"Exif\0\0" + bytes(range(256)) * 8)
    out[b"one-pixel.png"] = encoded(picture(71, (1, 1)), "PNG")
    out[b"a-line.png"] = encoded(picture(72, (3000, 1)), "PNG")
    names = [
        b"new\nline.png", b"tab\t.png", "émoji 🐈.png".encode(), b"quote'\".png", b"-rf.png", b"%s%n.png",
        b"back\\slash.png", b"percent%20.png", "עברית.png".encode(), b"x" * 251 + b".png", b"not-utf8-\xff\xfe.png",
        b"semicolon;--.png", b"star*?[.png", b" space .png", b"no-suffix", b"wrong.jpg.exe", b"a.store",
    ]  # fmt: skip
    for n, name in enumerate(names):
        out[name] = encoded(picture(100 + n, SIZE), "PNG")
    return out


def bad() -> dict[bytes, tuple[bytes, str]]:
    """Files that are none, by name, with the reason."""
    png, jpeg = encoded(picture(0, (200, 150)), "PNG"), encoded(picture(0, (200, 150)), "JPEG")
    gif, webp = encoded(picture(0, (200, 150)), "GIF"), encoded(picture(0, (200, 150)), "WEBP")
    return {
        b"empty.jpg": (b"", "empty"),
        b"one-byte.jpg": (b"\xff", "not_an_image"),
        b"text.jpg": (b"a picture of a cat\n" * 40, "not_an_image"),
        b"page.png": (b"<!doctype html><img src=x>", "not_an_image"),
        b"drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        b"archive.jpg": (zipped(), "not_an_image"),
        b"program.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not_an_image"),
        b"document.pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "not_an_image"),
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


def special(folder: Path) -> dict[bytes, str]:
    """Entries that are no files, by name, with the reason."""
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()  # noqa: PTH109
        os.chdir(folder)  # a socket's path may have 107 bytes at most
        s.bind("socket.jpg")
        os.chdir(here)
    (folder / "dangling.jpg").symlink_to("nowhere")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "up").symlink_to("..")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    with (folder / "sparse.jpg").open("wb") as f:
        f.truncate(2 << 30)
    return {
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
    """The folder, and what is to become of each entry ("" for a picture)."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    outcomes: dict[bytes, str] = {}
    for name, data in good().items():
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(data)
        outcomes[name] = ""
    for name, (data, reason) in bad().items():
        (folder / os.fsdecode(name)).write_bytes(data)
        outcomes[name] = reason
    outcomes |= special(folder)
    return folder, outcomes


def outcomes_of(store: es.Store, folder: Path, names: list[bytes]) -> dict[bytes, str]:
    """What became of each name."""
    rows = store.sql("SELECT uri, '' FROM items UNION ALL SELECT uri, reason FROM failures").rows
    known = dict(rows)
    assert len(known) == len(rows), "an entry is in one table"
    return {n: known.get(display_uri(str(folder) + "/" + os.fsdecode(n)), "nowhere") for n in names}


def test_every_hostile_entry_has_its_outcome_and_is_not_tried_twice(tmp_path, hostile):
    """Nearly ninety entries, twice: nothing hangs, nothing is dropped, the second run decodes nothing."""
    folder, expected = hostile
    assert len(expected) >= 85
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    report = store.embed(folder, label=None)
    assert outcomes_of(store, folder, list(expected)) == expected
    assert report.found == len(expected)
    assert report.failures == sum(r != "" for r in expected.values())
    again = store.embed(folder, label=None)
    assert (again.embedded, again.reused, again.failures) == (0, 0, 0)
    assert again.unchanged + again.known_failures == len(expected)
    assert store.sql(
        "SELECT width, height FROM items JOIN contents USING (content) WHERE uri LIKE '%turned-6.jpg'"
    ).rows == ((30, 40),)
    assert store.verify(images=True).ok


EVIL = (
    "import os, sys, json, time; sys.path[:] = json.loads(sys.argv[1]);\n"
    "from embedstore.decode import worker\n"
    "decode = worker.open_image\n"
    "def evil(data):\n"
    "    if b'HANG' in data: time.sleep(1000)\n"
    "    if b'SEGV' in data: os.kill(os.getpid(), 11)\n"
    "    if b'EATS' in data: data = bytes(8 << 30)\n"
    "    return decode(data)\n"
    "worker.open_image = evil\n"
    "worker.main({}, {})"
)


def children() -> set[str]:
    """Processes of ours, zombies too."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def odd(seed: int, mark: bytes = b"") -> bytes:
    """A picture that is decoded in a process of its own."""
    return encoded(picture(seed, SIZE), "TIFF") + mark


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts processes in /proc")
def test_a_file_that_hangs_crashes_or_eats_memory_costs_that_file_only(tmp_path, monkeypatch):
    """Each becomes a row with its reason; the others are embedded; no process is left."""
    monkeypatch.setattr(isolated, "_START", EVIL)
    monkeypatch.setattr(isolated, "DEADLINE", 3.0)
    folder = tmp_path / "odd"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n:02d}.tif").write_bytes(odd(n))
    for name in ("HANG", "SEGV", "EATS"):
        (folder / f"0{name}.tif").write_bytes(odd(0, name.encode()))
    before = children()
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    report = store.embed(folder, label=None)
    assert report.failed == {"timed_out": 1, "crashed": 1, "no_memory": 1}
    assert report.embedded == 12
    reasons = dict(store.sql("SELECT right(uri, 8), reason FROM failures").rows)
    assert reasons == {"HANG.tif": "timed_out", "SEGV.tif": "crashed", "EATS.tif": "no_memory"}
    assert children() == before
    assert store.embed(folder, label=None).known_failures == 3


def test_isolated_pixels_are_the_same(tmp_path):
    """What a process of its own gives is what this process gives, byte by byte; so are the reasons."""
    from embedstore import decode
    from embedstore.decode import preprocess
    from embedstore.errors import ImageError
    from embedstore.space import Preprocess

    p = Preprocess(size=(32, 32), resize=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)

    def here(data):
        try:
            image, facts = decode.open_image(data)
            return preprocess.apply(image, p).tobytes(), facts
        except ImageError as e:
            return e.reason, e.detail

    def there(data):
        try:
            pixels, facts = isolation.prepare(data)
            return pixels.tobytes(), facts
        except ImageError as e:
            return e.reason, e.detail

    with isolated.Isolation(p) as isolation:
        for name, data in {**good(), **{n: d for n, (d, _) in bad().items() if d}}.items():
            assert there(data) == here(data), name
