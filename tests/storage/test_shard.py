"""A vector file is read as it was written, or rejected."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from embedstore.errors import StoreDamaged
from embedstore.storage import shard
from embedstore.storage.vectors import VectorReader

DIGESTS = ["00" * 16, "ab" * 16, "ff" * 16]


@pytest.fixture
def written(tmp_path):
    vectors = np.array([[1, 2], [3, 4], [-5, 0.5]], dtype=np.float16)
    path = tmp_path / "000000007.vec"
    return path, vectors, shard.write_shard(path, space="s" * 16, number=7, vectors=vectors, contents=DIGESTS)


def test_reads_what_was_written(written):
    """Vectors, digests and header are read back as they were written."""
    path, vectors, header = written
    read = shard.Shard(path)
    assert read.header == header
    assert (read.vectors == vectors).all()
    assert read.contents == DIGESTS
    read.verify()


def test_file_is_in_the_safetensors_format(written):
    """The safetensors library reads the tensors of a vector file."""
    path, vectors, _ = written
    tensors = load_file(path)
    assert (tensors["vectors"] == vectors).all()
    assert tensors["contents"].shape == (3, 16)
    assert tensors["contents"][1].tolist() == [0xAB] * 16


def test_vectors_begin_on_a_cache_line(written):
    """The offset of the first vector is a multiple of 64."""
    assert written[2].data_offset % 64 == 0


def test_every_changed_byte_is_detected(written):
    """If any byte changes, opening or verifying the file raises StoreDamaged."""
    path, vectors, header = written
    whole = path.read_bytes()
    undetected = []
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        try:
            read = shard.Shard(path)
            read.verify()
            same = (read.vectors == vectors).all() and read.contents == DIGESTS and read.header == header
            if not same:
                undetected.append(i)
        except StoreDamaged:
            pass
    assert undetected == []


@pytest.mark.parametrize("length", [0, 7, 40, -1, -48])
def test_truncated_file_is_rejected(written, length):
    """A file that lost its end cannot be opened."""
    path = written[0]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreDamaged, match="embed again"):
        shard.Shard(path)


def test_missing_file_is_named(tmp_path):
    """The message for a missing file names its path."""
    with pytest.raises(StoreDamaged, match=r"nothing\.vec"):
        shard.Shard(tmp_path / "nothing.vec")


def test_positions_run_across_shards(tmp_path):
    """Rows of several files are one array, and are read in the order of the positions."""
    rows = np.arange(14, dtype=np.float32).reshape(7, 2) + 1
    sizes, files, start = (3, 1, 3), [], 0
    for number, n in zip((2, 5, 9), sizes, strict=True):
        path = tmp_path / f"{number}.vec"
        part = rows[start : start + n].astype(np.float16)
        shard.write_shard(path, space="s", number=number, vectors=part, contents=["00" * 16] * n)
        files.append((number, n, path))
        start += n
    vectors = VectorReader(files, 2)
    assert len(vectors) == 7
    assert vectors.read_float32(np.array([6, 0, 3, 3])).tolist() == rows[[6, 0, 3, 3]].tolist()
    assert vectors.positions(np.array([9, 2, 5]), np.array([2, 0, 0])).tolist() == [6, 0, 3]
    numbers, places = vectors.locate(np.array([6, 0, 3]))
    assert (numbers.tolist(), places.tolist()) == ([9, 2, 5], [2, 0, 0])
    blocks = list(vectors.iter_blocks(block_rows=2))
    assert [(start, len(b)) for start, b in blocks] == [(0, 2), (2, 1), (3, 1), (4, 2), (6, 1)]
    assert np.concatenate([b for _, b in blocks]).tolist() == rows.tolist()
