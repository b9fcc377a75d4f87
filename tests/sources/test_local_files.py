"""Reading the bytes of local files, and the reason why one cannot be read."""

import io
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore.errors import ImageError
from embedstore.sources.local_files import read_file
from embedstore.sources.locations import load_image, read_item
from embedstore.types import FailureReason


def reason(path) -> FailureReason:
    """Return the reason why a file cannot be read."""
    with pytest.raises(ImageError) as e:
        read_file(str(path))
    return e.value.reason


def test_a_file_is_read_whole_under_any_name(tmp_path):
    """The bytes equal those written, also under a name that is not UTF-8."""
    raw = os.fsencode(tmp_path) + b"/\xff\n.jpg"
    path = os.fsdecode(raw)
    Path(path).write_bytes(b"abc" * 100_000)
    assert read_file(path) == b"abc" * 100_000
    assert read_item("shown otherwise", raw) == b"abc" * 100_000


def test_an_image_loads_alike_from_bytes_path_string_and_pillow(tmp_path):
    """The four forms in which a user can give an image yield the same pixels."""
    gradient = Image.linear_gradient("L").convert("RGB")
    out = io.BytesIO()
    gradient.save(out, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(out.getvalue())
    for image in (out.getvalue(), path, str(path), Image.open(path)):
        np.testing.assert_array_equal(np.asarray(load_image(image)), np.asarray(gradient))


def test_what_is_not_a_regular_file_is_refused_and_never_blocks(tmp_path):
    """A FIFO without a writer, a socket, a folder, a device and a link to a FIFO are refused at once."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "socket"))
        for name in ("fifo", "link", "socket", "."):
            assert reason(tmp_path / name) is FailureReason.NOT_A_FILE
    with pytest.raises(ImageError, match="device") as e:
        read_file("/dev/zero")
    assert e.value.reason is FailureReason.NOT_A_FILE


def test_a_path_that_names_no_file_is_missing(tmp_path):
    """This holds for a path below a file, links that lead nowhere, and a name that no file can have."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("nothing", "file/below", "self", "dangling", "a\0b"):
        assert reason(f"{tmp_path}/{name}") is FailureReason.MISSING, name


def test_a_name_too_long_for_the_system_is_unreadable(tmp_path):
    """The system refuses it whether such a file exists or not, so it is not called missing."""
    assert reason(tmp_path / ("n" * 300)) is FailureReason.UNREADABLE


def test_an_empty_file_is_empty(tmp_path):
    """Zero bytes have a reason of their own."""
    (tmp_path / "a.jpg").touch()
    assert reason(tmp_path / "a.jpg") is FailureReason.EMPTY


def test_a_file_without_read_permission_is_unreadable(ordinary):
    """The operating system's refusal is the reason."""
    path = ordinary / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert reason(path) is FailureReason.UNREADABLE


def test_a_sparse_file_of_a_terabyte_is_refused_without_reading_it(tmp_path):
    """The size alone decides."""
    path = tmp_path / "huge.jpg"
    with path.open("wb") as f:
        f.truncate(1 << 40)
    begin = time.perf_counter()
    assert reason(path) is FailureReason.TOO_LARGE
    assert time.perf_counter() - begin < 1
