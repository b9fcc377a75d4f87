"""An index file from a stranger is checked from end to end before FAISS reads it."""

import json
import os
import struct
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import StoreDamaged
from embedstore.search.index import approximate, build, files
from embedstore.search.index.faiss_format import check_index_file
from embedstore.storage.durable_files import file_xxh3
from tests.helpers.index_descriptions import change_description
from tests.helpers.vector_stores import make

DIM, ROWS = 8, 1200
KINDS = {
    "flat": ("SQfp16", True),
    "hnsw": ("HNSW16,SQfp16", True),
    "ivf float16": ("IVF9,SQfp16", True),
    "ivf 8 bit": ("IVF9,SQ8", False),
    "ivf product": ("IVF9,PQ4", False),
    "ivf linked centroids": ("IVF520,SQfp16", True),
}


def unit_vectors(rows: int = ROWS) -> np.ndarray:
    X = np.random.default_rng(1).standard_normal((rows, DIM)).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def build_index(kind: str):
    """Build an index as embedstore does."""
    factory, lossless = KINDS[kind]
    setting = approximate.IndexSettings(kind.split(maxsplit=1)[0], factory, 0, 0, (1,), ROWS, lossless)
    index = approximate.train_index(setting, unit_vectors())
    index.add(unit_vectors())
    return approximate.link_centroids(index)


def write(index, path: Path) -> bytes:
    faiss.write_index(index, str(path))
    return path.read_bytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("indexes")
    return {kind: write(build_index(kind), folder / kind) for kind in KINDS}


def check(path: Path, data: bytes, rows: int = ROWS, dim: int = DIM) -> None:
    path.write_bytes(data)
    check_index_file(path, len(data), rows=rows, dim=dim)


@pytest.mark.parametrize("kind", KINDS)
def test_what_embedstore_writes_is_accepted_and_nothing_less(written, tmp_path, kind):
    """Every class that a build makes passes; other rows or vectors, a cut end and more bytes do not."""
    data = written[kind]
    check(tmp_path / "i", data)
    for rows, dim in ((ROWS + 1, DIM), (ROWS, DIM + 1), (0, DIM)):
        with pytest.raises(StoreDamaged):
            check(tmp_path / "i", data, rows, dim)
    for cut in (b"", data[:3], data[:40], data[: len(data) // 2], data[:-1], data + b"\0"):
        with pytest.raises(StoreDamaged):
            check(tmp_path / "i", cut)


def with_lists_on_disk(index, victim: Path, path: Path) -> bytes:
    """Write an IVF whose lists are in another file, which FAISS opens for writing."""
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(victim))
    lists.merge_from(index.invlists, 0)
    index.replace_invlists(lists, False)
    return write(index, path)


def other_classes(path: Path) -> dict[str, bytes]:
    """Files of FAISS that embedstore never writes."""
    factories = ["Flat", "IVF9,Flat", "HNSW8", "PQ4", "SQ8,RFlat", "PCA4,Flat", "IVF9,SQ4", "IVF9_HNSW8,SQ8"]
    made = {}
    for factory, metric in [*((f, faiss.METRIC_INNER_PRODUCT) for f in factories), ("SQfp16", faiss.METRIC_L2)]:
        index = faiss.index_factory(DIM, factory, metric)
        index.train(unit_vectors())
        index.add(unit_vectors())
        made[factory] = write(index, path)
    return made | {"lists on disk": with_lists_on_disk(build_index("ivf float16"), path.with_name("victim"), path)}


def test_other_classes_and_lists_on_disk_are_refused(tmp_path):
    """Classes that nest, that name another file, or that search otherwise never reach FAISS."""
    accepted = []
    for name, data in other_classes(tmp_path / "i").items():
        try:
            check(tmp_path / "i", data)
        except StoreDamaged:
            continue
        accepted.append(name)
    assert accepted == ["IVF9_HNSW8,SQ8"]  # harmless: an HNSW over its centroids, as embedstore writes for many lists


def replace_number(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def test_links_ids_and_sizes_out_of_bounds_are_refused(written, tmp_path):
    """FAISS would read memory that belongs to something else."""
    index = faiss.deserialize_index(np.frombuffer(written["hnsw"], np.uint8))  # it owns the links
    links = faiss.vector_to_array(index.hnsw.neighbors).astype("<i4").tobytes()
    at = written["hnsw"].index(links)
    for row in (ROWS, 1 << 30, -2):
        changed = bytearray(written["hnsw"])
        changed[at : at + 4] = struct.pack("<i", row)
        with pytest.raises(StoreDamaged, match="a link to no row"):
            check(tmp_path / "i", bytes(changed))
    ivf = faiss.deserialize_index(np.frombuffer(written["ivf float16"], np.uint8))
    n = next(n for n in range(ivf.nlist) if ivf.invlists.list_size(n) > 3)
    ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(n), 3).astype("<i8").tobytes()
    for row in (ROWS, 1 << 40, -1):
        with pytest.raises(StoreDamaged, match="a row that does not exist"):
            check(tmp_path / "i", replace_number(written["ivf float16"], ids, struct.pack("<q", row) + ids[8:]))
    with pytest.raises(StoreDamaged, match="in no list or in two"):
        check(tmp_path / "i", replace_number(written["ivf float16"], ids, ids[8:16] + ids[8:]))
    for size in (1 << 40, (1 << 63) + 1, (1 << 64) - 1):
        codes = struct.pack("<Q", ROWS * DIM * 2)
        with pytest.raises(StoreDamaged, match="are claimed and not there"):
            check(tmp_path / "i", replace_number(written["flat"], codes, struct.pack("<Q", size)))


def search_every_way(path: Path) -> None:
    """Read an index with FAISS and search it."""
    index = approximate.enable_parallel_search(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
    approximate.InvertedLists.from_index(index)
    for probe in (1, 64):
        _, rows = approximate.propose_rows(index, unit_vectors(1)[0], 20, probe=probe)
        assert set(rows.tolist()) <= set(range(ROWS))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_a_changed_file_is_refused_or_answers_with_rows_of_its_own(written, tmp_path_factory, kind, data):
    """Whatever passes the check can be read and searched: numbers anywhere are replaced by small and huge ones."""
    path = tmp_path_factory.mktemp("fuzz") / "i"
    changed = bytearray(written[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        near_start = data.draw(st.booleans())
        at = data.draw(st.integers(0, min(400, len(changed) - 8) if near_start else len(changed) - 8))
        value = data.draw(st.sampled_from([0, 1, 2, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 64) - 1]))
        width = data.draw(st.sampled_from([1, 4, 8]))
        changed[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    try:
        check(path, bytes(changed))
    except StoreDamaged:
        return
    search_every_way(path)


@pytest.mark.parametrize(
    "change",
    [{"probe": -1}, {"rows": True}, {"rows": 17}, {"shards": [[1, "16"]]}, {"shards": 3}, {"memory": 1.5}, {"kind": 1},
     {"recall": "1"}, {"file": None}, {"file": "../x.faiss"}, {"file": "a\0b"}, {"created": 3}, {"unknown": 1}],
)  # fmt: skip
def test_a_sidecar_with_other_types_is_ignored_with_a_note(tmp_path, change):
    """The exact search answers, and the note names the file."""
    storage = make(tmp_path / "s", 16)
    space = storage.space()
    build.build_index(storage, space, build.IndexTarget(recall=1.0, kind="flat"))
    folder = storage.layout.index_folder(space.key)
    sidecar = next(folder.glob("*.json"))
    change_description(sidecar, **change)
    lookup = files.find_usable_index(
        folder, space=space.key, dim=4, shards=storage.vector_reader(space.space).shard_sizes
    )
    assert lookup.index is None
    assert [sidecar.name in note for note in lookup.notes] == [True]


def test_an_index_that_names_another_file_does_not_open_it(tmp_path):
    """Lists on disk with a sidecar that fits: FAISS would open the named file for reading and writing."""
    storage = make(tmp_path / "s", ROWS)
    space = storage.space()
    build.build_index(storage, space, build.IndexTarget(recall=0.1, kind="ivf"))
    folder = storage.layout.index_folder(space.key)
    sidecar = next(folder.glob("*.json"))
    facts = json.loads(sidecar.read_text())
    index = faiss.read_index(str(folder / facts["file"]))
    with_lists_on_disk(index, tmp_path / "victim", folder / facts["file"])
    size = (folder / facts["file"]).stat().st_size
    change_description(sidecar, bytes=size, xxh3=file_xxh3(folder / facts["file"]))
    (tmp_path / "victim").unlink()
    os.mkfifo(tmp_path / "victim")  # opening it would wait for ever
    lookup = files.find_usable_index(
        folder, space=space.key, dim=4, shards=storage.vector_reader(space.space).shard_sizes
    )
    assert lookup.index is None
    assert "not an index that embedstore writes" in lookup.notes[0]
