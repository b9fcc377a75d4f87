"""The order in which files are read: the first ones cover all folders and dates, whatever the order of the scan."""

import json
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import embedstore as es
from embedstore.pipeline.plan import build_plan
from embedstore.pipeline.read_order import ReadOrder
from embedstore.sources.source import Scan, ScanSummary
from embedstore.storage.run_progress import ProgressRecorder, read_progress
from tests.helpers import vector_stores


class Listed:
    """A source of names and times, which are all that a plan reads."""

    roots, archives, tables, unit = (), (), (), "file"

    def __init__(self, files):
        self.files = files


def planned(storage, files, order):
    """The uris of a plan for ``(folder, name, time)`` of files, in its order."""
    from embedstore.modality import Modality
    from embedstore.types import ImageRef

    refs = [ImageRef(f"/photos/{folder}/{name}", f"/photos/{folder}/{name}", 1, time) for folder, name, time in files]
    plan = build_plan(
        storage,
        storage.space().key,
        Scan(iter(refs), ScanSummary()),
        source=Listed(files),
        decoder_version="1",
        modality=Modality.IMAGE,
        order=order,
    )
    try:
        return [file.ref.uri for chunk in plan.todo(7) for file in chunk]
    finally:
        plan.close()


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return vector_stores.make(tmp_path_factory.mktemp("order") / "s")


FILES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=80,
    unique_by=lambda file: file[:2],
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(FILES, st.randoms(use_true_random=False))
def test_every_folder_comes_before_any_comes_twice(storage, files, random):
    """The k-th turn has one file of each folder with k files; every file is read once, in an order that is its own."""
    named = [(folder, f"{name}.jpg", time) for folder, name, time in files]
    order = planned(storage, named, ReadOrder.SPREAD)
    assert sorted(order) == sorted(f"/photos/{folder}/{name}" for folder, name, _ in named)
    sizes, seen = Counter(folder for folder, _, _ in named), Counter()
    for uri in order:
        folder = uri.split("/")[2]
        turn = seen[folder]
        assert all(seen[other] >= min(turn, size) for other, size in sizes.items())
        seen[folder] += 1
    random.shuffle(named)
    assert planned(storage, named, ReadOrder.SPREAD) == order


def test_the_first_files_of_a_folder_are_from_all_dates(storage):
    """The first files of a folder, however many, leave no gap in time much larger than an even spacing would."""
    files = [("a", f"{n:04}.jpg", n) for n in range(1000)]
    order = [int(uri[-8:-4]) for uri in planned(storage, files, ReadOrder.SPREAD)]
    for first in (5, 10, 50, 200):
        gaps = np.diff(sorted([*order[:first], 1000]))
        assert gaps.max() <= 3 * 1000 / first


def test_the_usual_order_is_that_of_the_scan(storage):
    """Nothing changes without the option."""
    files = [("b", "1.jpg", 3), ("a", "2.jpg", 1), ("b", "0.jpg", 2)]
    assert planned(storage, files, ReadOrder.SCAN) == ["/photos/b/1.jpg", "/photos/a/2.jpg", "/photos/b/0.jpg"]


def test_a_run_that_is_spread_gives_the_same_store_and_covers_folders_first(tmp_path):
    """Contents and labels are those of the usual order; the first items are of different folders."""
    rng = np.random.default_rng(0)
    for folder in "abc":
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for n in range(3):
            path = tmp_path / "photos" / folder / f"{n}.png"
            Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(path)
            os.utime(path, (1e9 + n, 1e9 + n))
    usual, spread = (es.create(tmp_path / name, "embedstore/tiny") for name in ("usual", "spread"))
    usual.embed(tmp_path / "photos")
    spread.embed(tmp_path / "photos", order="spread")
    vectors = "select i.uri, i.content, i.label from items i order by uri"
    assert usual.sql(vectors).rows == spread.sql(vectors).rows
    first = spread.sql("select label from items order by item limit 3").rows
    assert {label for (label,) in first} == {"a", "b", "c"}
    for options in ({"order": "random"}, {"order": "spread", "engine": "ray"}):
        with pytest.raises(es.BadOption, match="order"):
            spread.embed(tmp_path / "photos", **options)


def test_progress_is_read_by_others_and_ends_with_the_run(tmp_path):
    """Only the process that writes it is meant, at most once per second; damage and absence are not known."""
    layout = vector_stores.make(tmp_path / "s").layout
    assert read_progress(layout, os.getpid()) is None
    recorder = ProgressRecorder(layout)
    recorder.record(3, 10)
    recorder.record(4, 10)  # within the same second
    found = read_progress(layout, os.getpid())
    assert (found.done, found.total) == (3, 10)
    assert read_progress(layout, os.getpid() + 1) is None
    too_many = json.dumps({"pid": os.getpid(), "done": 5, "total": 1})
    for damaged in ("", "{", "[]", '{"pid": 1}', too_many):
        (layout.cache / "run.json").write_text(damaged)
        assert read_progress(layout, os.getpid()) is None
    recorder.close()
    assert not (layout.cache / "run.json").exists()
