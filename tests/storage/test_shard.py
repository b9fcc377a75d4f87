"""A vector file is whole and right, or refused."""

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


def test_what_was_written_is_read(written):
    """Vectors, digests and facts come back as they were given."""
    path, vectors, header = written
    read = shard.Shard(path)
    assert read.header == header
    assert (read.vectors == vectors).all()
    assert read.contents == DIGESTS
    read.verify()


def test_safetensors_reads_it(written):
    """The file is in the safetensors format."""
    path, vectors, _ = written
    tensors = load_file(path)
    assert (tensors["vectors"] == vectors).all()
    assert tensors["contents"].shape == (3, 16)
    assert tensors["contents"][1].tolist() == [0xAB] * 16


def test_vectors_begin_on_a_cache_line(written):
    """The first vector's byte is a multiple of 64."""
    assert written[2].data_offset % 64 == 0


def test_every_flipped_byte_is_noticed(written):
    """Whichever byte changes, reading the file or verifying it refuses."""
    path, vectors, header = written
    whole = path.read_bytes()
    missed = []
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        try:
            read = shard.Shard(path)
            read.verify()
            same = (read.vectors == vectors).all() and read.contents == DIGESTS and read.header == header
            if not same:
                missed.append(i)
        except StoreDamaged:
            pass
    assert missed == []


@pytest.mark.parametrize("length", [0, 7, 40, -1, -48])
def test_a_cut_file_is_refused(written, length):
    """A file that lost its end is never mapped."""
    path = written[0]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreDamaged, match="embed again"):
        shard.Shard(path)


def test_a_missing_file_is_named(tmp_path):
    """The message holds the path."""
    with pytest.raises(StoreDamaged, match=r"nothing\.vec"):
        shard.Shard(tmp_path / "nothing.vec")


def test_positions_run_across_shards(tmp_path):
    """Rows of several shards are one array; gather keeps the order asked for."""
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
