"""What a run embeds, what it leaves unchanged, and what a kill loses."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import NoImages, SourceNotFound, SpaceMismatch, SpaceNotFound
from tests.conftest import ROOT, TINY, picture


def tiny_store(path, **options):
    """Return a store with timm's test network at random init and 32 pixels."""
    return es.create(path, TINY, random_init=True, preprocess={"size": 32, "resize": 32}, **options)


def items_with_vectors(store):
    """Return every item with its vector, by uri, to compare two runs."""
    f = store.sql("SELECT item, uri, label, split, content, size, mtime_ns, present FROM items ORDER BY uri").rows
    x = dict(zip(*_vectors(store), strict=True))
    return {row[1]: (*row, x[row[0]].tolist() if row[0] in x else None) for row in f}


def _vectors(store):
    """Return the ids of the items and their vectors."""
    from embedstore.classify.data.features import load_features

    f = load_features(store._session.storage, store._session.storage.space(), "uri")
    return f.ids.tolist(), f.X


def test_a_folder_becomes_items_with_labels_and_splits(tmp_path, photos):
    """Twelve files give twelve items, two labels, two splits and one vector each."""
    store = tiny_store(tmp_path / "s")
    report = store.embed(photos)
    assert (report.scanned, report.embedded, report.failures) == (12, 12, 0)
    rows = store.sql("SELECT split, label, count(*) FROM items GROUP BY ALL ORDER BY ALL").rows
    assert rows == (("train", "cat", 4), ("train", "dog", 4), ("val", "cat", 2), ("val", "dog", 2))
    assert store.sql("SELECT count(*), min(width), max(height) FROM contents").rows == ((12, 48, 40),)
    assert store.sql("SELECT count(*) FROM vectors").rows == ((12,),)


def test_a_second_run_reads_nothing(tmp_path, photos):
    """If nothing is new, no file is read, no commit is made, and the table is the same."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    before = items_with_vectors(store)
    report = store.embed(photos)
    assert (report.unchanged, report.embedded, report.reused, report.commits) == (12, 0, 0, 0)
    assert items_with_vectors(store) == before


def test_a_rescan_with_nothing_new_does_not_import_torch(tmp_path, photos):
    """The interpreter that ran it has not loaded torch."""
    tiny_store(tmp_path / "s").embed(photos)
    code = (
        "import sys, embedstore as es\n"
        "assert es.open(sys.argv[1]).embed(sys.argv[2]).unchanged == 12\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s"), str(photos)], check=True, cwd=ROOT)


def test_new_changed_renamed_and_missing_files_are_distinguished(tmp_path, photos):
    """Each keeps or loses exactly what it should."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    before = items_with_vectors(store)
    picture(100).save(photos / "train" / "cat" / "new.png")
    picture(101).save(photos / "train" / "cat" / "0.png")
    (photos / "train" / "cat" / "1.png").rename(photos / "train" / "dog" / "renamed.png")
    (photos / "val" / "cat" / "2.png").unlink()
    report = store.embed(photos)
    assert (report.scanned, report.embedded, report.reused, report.unchanged) == (12, 2, 1, 9)
    assert (report.renamed, report.missing) == (1, 1)
    after = items_with_vectors(store)
    uri = lambda *parts: str(photos.joinpath(*parts))  # noqa: E731
    old, new = before[uri("train", "cat", "1.png")], after[uri("train", "dog", "renamed.png")]
    assert new[0] == old[0], "a renamed file is the same item"
    assert new[2] == "dog", "its label follows its folder"
    assert new[-1] == old[-1], "its vector is not computed again"
    changed = after[uri("train", "cat", "0.png")]
    assert changed[0] == before[uri("train", "cat", "0.png")][0]
    assert changed[-1] != before[uri("train", "cat", "0.png")][-1]
    assert store.sql("SELECT uri FROM items WHERE NOT present").rows == ((uri("val", "cat", "2.png"),),)
    assert uri("val", "cat", "2.png") not in [h.uri for h in store.search(image=photos / "val" / "cat" / "5.png", k=99)]
    picture(2).save(photos / "val" / "cat" / "2.png")
    store.embed(photos)
    assert store.sql("SELECT count(*) FROM items WHERE NOT present").rows == ((0,),)


def test_a_touched_file_is_hashed_but_not_embedded(tmp_path, photos):
    """With another mtime and the same bytes the vector stays, and the new mtime is recorded."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    os.utime(photos / "val" / "dog" / "8.png", ns=(1, 12345))
    report = store.embed(photos)
    assert (report.embedded, report.reused, report.unchanged) == (0, 1, 11)
    assert store.embed(photos).unchanged == 12


def test_equal_files_are_embedded_once_and_remain_two_items(tmp_path, photos):
    """Copies share a content and a vector, in one run or in the next."""
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "train" / "dog" / "copy.png")
    store = tiny_store(tmp_path / "s")
    report = store.embed(photos)
    assert (report.scanned, report.embedded, report.reused) == (13, 12, 1)
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "val" / "dog" / "later.png")
    report = store.embed(photos)
    assert (report.embedded, report.reused, report.unchanged) == (0, 1, 13)
    info = store.info()
    assert (info.items, info.contents, info.spaces[0].vectors) == (14, 12, 12)
    hits = store.search(image=photos / "train" / "cat" / "0.png", k=3)
    assert len({h.score for h in hits}) == 1
    assert sorted(h.uri.rsplit("/", 1)[1] for h in hits) == ["0.png", "copy.png", "later.png"]


def test_broken_images_are_failures_with_reasons_and_are_not_tried_again(tmp_path, photos):
    """Each reason is named, an unchanged failure is skipped, and a repaired file becomes an item."""
    (photos / "empty.jpg").touch()
    (photos / "notes.jpg").write_text("not an image")
    whole = (photos / "val" / "cat" / "2.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "cut again.png").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(photos / "pipe.jpg")
    (photos / "dangling.jpg").symlink_to(photos / "nowhere.jpg")
    store = tiny_store(tmp_path / "s")
    report = store.embed(photos)
    assert report.scanned == 18
    assert (report.embedded, report.failures) == (12, 6)
    reasons = {uri.rsplit("/", 1)[1]: reason for uri, reason, *_ in store.failures()}
    assert reasons == {
        "empty.jpg": "empty", "notes.jpg": "not_an_image", "cut.png": "truncated", "cut again.png": "truncated",
        "pipe.jpg": "not_a_file", "dangling.jpg": "missing",
    }  # fmt: skip
    again = store.embed(photos)
    assert (again.unchanged, again.known_failures, again.failures, again.embedded) == (12, 6, 0, 0)
    (photos / "cut.png").write_bytes(whole)
    mended = store.embed(photos)
    assert (mended.reused, mended.known_failures) == (1, 5)
    assert len(store.failures()) == 5


def test_an_item_whose_file_breaks_is_no_longer_present(tmp_path, photos):
    """The old vector does not represent the broken file."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    broken = photos / "train" / "cat" / "0.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    report = store.embed(photos)
    assert report.failures_by_reason == {"corrupt": 1}
    assert store.sql("SELECT present FROM items WHERE uri = ?", [str(broken)]).rows == ((False,),)
    picture(0).save(broken)
    assert store.embed(photos).failures == 0
    assert store.sql("SELECT count(*) FROM items WHERE present").rows == ((12,),)


def test_a_second_space_is_filled_next_to_the_first(tmp_path, photos):
    """Another network embeds the same items; both spaces can be searched, and one is the default."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    other = store.add_space(TINY, random_init=True, seed=1, preprocess={"size": 32, "resize": 32}, space_name="other")
    assert other.key != store.spaces[0].key
    report = store.embed(photos, space="other")
    assert (report.embedded, report.unchanged) == (12, 0)
    query = photos / "val" / "dog" / "8.png"
    assert store.search(image=query, k=1).space == "test_resnet"
    store.set_default("other")
    assert store.search(image=query, k=1).space == "other"
    assert store.search(image=query, k=1)[0].uri == str(query)
    assert store.search(image=query, k=1, space="test_resnet")[0].uri == str(query)


def test_changed_weights_are_refused(tmp_path, photos):
    """A weights file with other content is another space: an error, not mixed vectors."""
    import timm
    import torch
    from safetensors.torch import load_file, save_file

    file = tmp_path / "w.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), file)
    store = es.create(tmp_path / "s", "timm/test_resnet", weights=file, preprocess={"size": 32, "resize": 32})
    store.embed(photos)
    state = load_file(file)
    name = next(k for k in state if k.endswith("weight"))
    state[name] = state[name] + 0.01
    save_file(state, file)
    assert es.open(tmp_path / "s").embed(photos).unchanged == 12, "nothing to embed, nothing to load"
    picture(99).save(photos / "new.png")
    with pytest.raises(SpaceMismatch, match="bring the old weights back"):
        es.open(tmp_path / "s").embed(photos, runtime="eager")
    report = es.open(tmp_path / "s", device="cpu").embed(photos)  # the exported tower is still of the old weights
    assert (report.embedded, report.runtime) == (1, "onnx")


def test_moved_weights_can_be_named_again(tmp_path, photos):
    """The error says what to run; then the space is the same and loads from the new place."""
    import timm
    import torch
    from safetensors.torch import save_file

    from embedstore.errors import WeightsNotFound

    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), old)
    size = {"size": 32, "resize": 32}
    es.create(tmp_path / "s", "timm/test_resnet", weights=old, preprocess=size).embed(photos)
    old.rename(new)
    picture(99).save(photos / "new.png")
    with pytest.raises(WeightsNotFound, match="--weights FILE"):
        es.open(tmp_path / "s").embed(photos, runtime="eager")
    store = es.open(tmp_path / "s")
    assert store.add_space("timm/test_resnet", weights=new, preprocess=size).name == "test_resnet"
    assert len(store.spaces) == 1
    assert es.open(tmp_path / "s").embed(photos).embedded == 1


def test_nothing_to_embed_is_an_error_with_the_path(tmp_path):
    """A missing folder and an empty one are different errors; without a space the error says what to add."""
    store = tiny_store(tmp_path / "s")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoImages, match="empty"):
        store.embed(tmp_path / "empty")
    with pytest.raises(SourceNotFound, match="nowhere"):
        store.embed(tmp_path / "nowhere")
    with pytest.raises(SpaceNotFound, match="--backbone"):
        es.create(tmp_path / "t").embed(tmp_path / "empty")


def test_a_store_inside_its_source_is_not_embedded(tmp_path, photos):
    """The files of the store are not images of the collection."""
    store = tiny_store(photos / "pets.store")
    assert store.embed(photos).scanned == 12
    assert store.embed(photos).unchanged == 12


def test_columns_of_a_manifest_are_typed_and_updated(tmp_path, photos):
    """year is a number and taken a date; an edited manifest changes columns and labels without embedding."""
    lines = ["uri,label,split,group,year,taken,note"]
    for n, path in enumerate(sorted(photos.rglob("*.png"))):
        lines.append(
            f'{path.relative_to(tmp_path)},{"ab"[n % 2]},,g{n // 2},{2010 + n},2020-01-{n + 1:02d},"say ""hi"""'
        )
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(lines))
    store = tiny_store(tmp_path / "s")
    assert store.embed(manifest).embedded == 12
    assert store.sql("SELECT typeof(year), typeof(taken), note, group_id FROM items ORDER BY item LIMIT 1").rows == (
        ("BIGINT", "DATE", 'say "hi"', "g0"),
    )
    hits = store.search(
        image=photos / "val" / "dog" / "8.png", k=99, where="year >= 2015 and taken < date '2020-01-10'"
    )
    assert sorted(h.columns["year"] for h in hits) == [2015, 2016, 2017, 2018]
    manifest.write_text("\n".join(lines).replace(",2011,", ",1999,").replace(",b,,", ",c,,"))
    report = store.embed(manifest)
    assert (report.embedded, report.unchanged) == (0, 12)
    assert store.sql("SELECT count(*) FROM items WHERE year = 1999 AND label = 'c'").rows == ((1,),)
    assert store.sql("SELECT label, count(*) FROM items GROUP BY 1 ORDER BY 1").rows == (("a", 6), ("c", 6))


def test_a_manifest_without_labels_keeps_the_known_ones(tmp_path, photos):
    """Labels and splits from the folders survive a manifest of uris and years."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    lines = ["uri,year", *(f"{p},2020" for p in sorted(photos.rglob("*.png")))]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    store.embed(tmp_path / "m.csv")
    rows = store.sql("SELECT label, split, year, count(*) FROM items GROUP BY ALL ORDER BY ALL").rows
    assert rows == (
        ("cat", "train", 2020, 4),
        ("cat", "val", 2020, 2),
        ("dog", "train", 2020, 4),
        ("dog", "val", 2020, 2),
    )


def test_items_below_an_unreadable_folder_are_not_missing(tmp_path, photos):
    """The folder is a failure; its items stay as they were."""
    from embedstore.pipeline.run import embed_source
    from embedstore.sources.open import open_source
    from embedstore.sources.source import Scan
    from embedstore.types import Failure, FailureReason

    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    source = open_source(photos)

    class UnreadableFolder:
        """The same folder, as if val/dog could not be listed (root can list everything)."""

        def __getattr__(self, name):
            return getattr(source, name)

        def scan(self):
            folder = str(photos / "val" / "dog")
            refused = Failure(folder, folder, 0, 0, FailureReason.UNREADABLE, "Permission denied")
            return Scan(chain([refused], (r for r in source.scan() if not r.uri.startswith(folder))))

    report = embed_source(store._session.storage, UnreadableFolder(), store.backbone, store.spaces[0])
    assert (report.missing, report.failures_by_reason) == (0, {"unreadable": 1})
    assert store.sql("SELECT count(*) FROM items WHERE present").rows == ((12,),)


def test_many_failures_of_a_scan_are_committed_in_parts(tmp_path, photos):
    """Ten links that lead nowhere fill several commits of four files, and are known failures in the next run."""
    from embedstore.pipeline.run import EmbedOptions, embed_source
    from embedstore.sources.open import open_source

    for n in range(10):
        (photos / f"{n}.jpg").symlink_to(photos / "nowhere")
    store = tiny_store(tmp_path / "s")
    source, options = open_source(photos), EmbedOptions(commit_rows=4)
    report = embed_source(store._session.storage, source, store.backbone, store.spaces[0], options=options)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (22, 12, {"missing": 10})
    assert report.commits >= 5
    assert [uri for uri, *_ in store.failures()] == [str(photos / f"{n}.jpg") for n in range(10)]
    again = store.embed(photos)
    assert (again.unchanged, again.known_failures, again.failures, again.commits) == (12, 10, 0, 0)


CHILD = """
import sys
import embedstore as es
from embedstore.pipeline.run import EmbedOptions, embed_source
from embedstore.sources.open import open_source
store = es.open(sys.argv[1])
options = EmbedOptions(batch_size=8, threads=2, commit_rows=40, on_cpu=True)
embed_source(store._session.storage, open_source(sys.argv[2]), store.backbone, store.spaces[0], options=options)
"""


def start_embedding(store, photos):
    """Start a real process that embeds."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(store), str(photos)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_and_wait_for_commit(store, photos):
    """Start a process that embeds, and wait until it has made a commit."""
    shards = next((store / "spaces").iterdir()) / "shards"
    before = len(list(shards.glob("*.vec")))
    process = start_embedding(store, photos)
    deadline = time.monotonic() + 60
    while len(list(shards.glob("*.vec"))) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return process


@pytest.fixture
def many(tmp_path):
    """Create 600 small images, some of them equal."""
    folder = tmp_path / "many"
    for n in range(600):
        path = folder / f"c{n % 5}" / f"{n:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n if n % 50 else 0, (20, 20)).save(path)
    return folder


def test_a_killed_run_resumes_to_the_same_table(tmp_path, many):
    """After two SIGKILLs and a whole run, every row, id and vector equals those of an uninterrupted run."""
    straight = tiny_store(tmp_path / "straight")
    straight.embed(many, batch_size=8)
    tiny_store(tmp_path / "killed")
    for _ in range(2):
        process = start_and_wait_for_commit(tmp_path / "killed", many)
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = es.open(tmp_path / "killed")
    store.embed(many, batch_size=8)
    assert items_with_vectors(store) == items_with_vectors(straight)
    assert store.info().contents == straight.info().contents == 589


def test_sigterm_commits_what_was_embedded_and_exits(tmp_path, many):
    """The exit status is 143 within seconds; the next run embeds the rest, and nothing twice."""
    tiny_store(tmp_path / "s")
    process = start_and_wait_for_commit(tmp_path / "s", many)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    store = es.open(tmp_path / "s")
    kept = store.info().items
    assert 0 < kept < 600
    report = store.embed(many)
    assert report.unchanged == kept
    assert report.embedded + report.reused == 600 - kept


def test_the_stored_vectors_are_those_of_the_network(tmp_path, photos):
    """A stored vector equals the backbone's for the same pixels, up to float16."""
    from embedstore.media.image import decode, preprocess

    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    network = store.backbone()
    ids, X = _vectors(store)
    uris = dict(store.sql("SELECT item, uri FROM items").rows)
    for item, stored in zip(ids, X, strict=True):
        image, _ = decode.open_image(Path(uris[item]).read_bytes())
        fresh = network.encode_images(preprocess.resize_and_crop(image, network.space.preprocess)[None])[0]
        assert np.allclose(stored, fresh, rtol=1e-3, atol=1e-4)
