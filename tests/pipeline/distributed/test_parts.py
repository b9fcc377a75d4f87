"""Embedding in parts gives the rows that a local run gives, in any order and any number of times."""

import json
import os
import random
import shutil

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadOption, NoImages, PartsError
from embedstore.storage.inbox.inbox import Inbox
from tests.conftest import picture
from tests.helpers.text_models import WORDS, save_model
from tests.pipeline.test_embed import items_with_vectors, tiny_store


def run_parts(path, source, parts, *, order=None, register_each=False, **options):
    """Plan, work in an order, and register; return the last report."""
    planned = es.open(path).plan_parts(source, parts, progress=False, **options)
    numbers = list(range(1, planned.parts + 1))
    for number in order(numbers) if order else numbers:
        es.work(path, f"{number}/{planned.parts}", progress=False)
        if register_each:
            es.open(path).register()
    return es.open(path).register() if planned.parts and not register_each else planned


def comparable(store):
    """Return every item, failure and content without what a run numbers."""
    items = {uri: row[2:] for uri, row in items_with_vectors(store).items()}
    failures = store.sql("SELECT uri, reason, detail, size, mtime_ns, decoder FROM failures ORDER BY ALL").rows
    contents = store.sql("SELECT content, bytes, width, height, format FROM contents ORDER BY ALL").rows
    return items, failures, contents


def add_trouble(photos):
    """Add a copy, a file that is no image, an empty file and one that cannot be followed."""
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "train" / "dog" / "copy.png")
    (photos / "notes.jpg").write_text("not an image")
    (photos / "empty.jpg").touch()
    (photos / "dangling.jpg").symlink_to(photos / "nowhere.jpg")


def test_parts_in_any_order_give_the_rows_of_a_local_run(tmp_path, photos):
    """Five parts, embedded backwards, equal one local run, row for row and vector for vector."""
    add_trouble(photos)
    local = tiny_store(tmp_path / "local")
    local.embed(photos)
    store = tiny_store(tmp_path / "s")
    report = run_parts(tmp_path / "s", photos, 5, order=lambda n: n[::-1])
    assert (report.registered, report.parts, report.finished, report.torn) == (5, 5, True, [])
    assert (report.embedded, report.reused, report.failures_by_reason) == (12, 1, {"not_an_image": 1, "empty": 1})
    assert comparable(store) == comparable(local)
    assert store.verify().ok
    assert not Inbox(store._session.storage.layout, store.spaces[0].key).folder.exists()
    assert store.embed(photos).unchanged == 13, "a local run afterwards has nothing to do"
    runs = store.sql("SELECT verb, result->>'found', result->>'embedded' FROM runs WHERE verb = 'embed'").rows
    assert runs[0] == ("embed", "16", "12")


def test_changed_renamed_and_missing_files_are_what_a_local_run_makes_of_them(tmp_path, photos):
    """A second run in parts keeps the ids of renamed and changed items, and marks what is gone with the last part."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    before = items_with_vectors(store)
    picture(100).save(photos / "train" / "cat" / "new.png")
    picture(101).save(photos / "train" / "cat" / "0.png")
    (photos / "train" / "cat" / "1.png").rename(photos / "train" / "dog" / "renamed.png")
    (photos / "val" / "cat" / "2.png").unlink()
    shutil.copytree(tmp_path / "s", tmp_path / "local")
    local = es.open(tmp_path / "local")
    local.embed(photos)
    planned = store.plan_parts(photos, 2, progress=False)
    assert (planned.files, planned.counts["unchanged"]) == (3, 9)
    es.work(tmp_path / "s", "2/2", progress=False)
    first = store.register()
    assert store.sql("SELECT count(*) FROM items WHERE NOT present").rows == ((0,),), "one part is left"
    es.work(tmp_path / "s", "1/2", progress=False)
    report = store.register()
    assert (first.renamed + report.renamed, report.missing, report.finished) == (1, 1, True)
    assert comparable(store) == comparable(local)
    after = items_with_vectors(store)
    assert after[str(photos / "train" / "dog" / "renamed.png")][0] == before[str(photos / "train" / "cat" / "1.png")][0]


def test_an_own_column_and_labels_of_a_manifest_arrive(tmp_path, photos):
    """Columns of a table are those of a local run; what was edited since the plan stays as it was edited."""
    names = sorted(str(p) for p in photos.rglob("*.png"))
    table = tmp_path / "t.csv"
    table.write_text("uri,label,year\n" + "".join(f"{name},l{n},{n}\n" for n, name in enumerate(names)))
    local = tiny_store(tmp_path / "local")
    local.embed(table)
    store = tiny_store(tmp_path / "s")
    run_parts(tmp_path / "s", table, 3)
    assert comparable(store) == comparable(local)
    values = "SELECT uri, label, year FROM items ORDER BY uri"
    assert store.sql(values).rows == local.sql(values).rows
    picture(200).save(names[0])
    store.plan_parts(table, 1, progress=False)
    store.edit({"label": "'mine'", "year": "1900"}, where="year = 0")
    es.work(tmp_path / "s", "1/1", progress=False)
    store.register()
    assert store.sql(values).rows[0] == (names[0], "mine", 1900)


def plan_of_two(folder, photos):
    """Return a store with a plan of two parts for a table with a column, of which one was embedded, and the table.

    The table no longer names one item of the store.
    """
    names = [photos / "train" / "cat" / "0.png", photos / "train" / "dog" / "6.png"]
    store, table = tiny_store(folder / "s"), folder / "photos.csv"
    store.embed(photos / "val" / "cat" / "2.png")
    (photos / "val" / "cat" / "2.png").unlink()
    rows = "".join(f"{name},{2001 + n}\n" for n, name in enumerate(names))
    table.write_text(f"uri,year\n{rows}")
    store.plan_parts(table, 2, progress=False)
    es.work(store.path, "1/2", progress=False)
    return store, table


INBOX_FILES = ["plan.json", "attributes.parquet", "missing.parquet", "*.part"]


def inbox_of(store):
    """Return the folder of the plan of a store."""
    return Inbox(store._session.storage.layout, store.spaces[0].key).folder


@pytest.mark.parametrize("how", ["changed", "cut", "holes"])
@pytest.mark.parametrize(
    "name", ["plan.json", "attributes.parquet", "missing.parquet", "lists/000000001.jsonl", "*.part"]
)
def test_a_damaged_plan_is_replaced_as_its_message_says(tmp_path, photos, name, how):
    """Each file of the inbox with a changed byte, cut in half, or as a terabyte of holes, which is not read."""
    store, table = plan_of_two(tmp_path, photos)
    (path,) = inbox_of(store).glob(name)
    if how == "holes":
        os.truncate(path, 1 << 40)
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if how == "cut" else data[:-2] + b"x\n")
    if name in ("*.part", "lists/000000001.jsonl"):  # a result without the list of its files cannot be used
        assert len(store.register().torn) == 1
    else:
        with pytest.raises(es.StoreDamaged, match="embedstore plan-parts STORE SOURCE --replace"):
            store.register()
    store.plan_parts(table, 2, replace=True, progress=False)
    for part in ("1/2", "2/2"):
        es.work(store.path, part, progress=False)
    assert store.register().finished
    assert store.sql("SELECT year FROM items WHERE present ORDER BY year").rows == ((2001,), (2002,), (None,))
    assert store.verify().ok


@pytest.mark.parametrize("name", INBOX_FILES)
def test_a_plan_that_cannot_be_read_now_is_not_replaced(ordinary, name):
    """A right that is missing for a while is no damage: what waits is registered by the next call."""
    for n, path in enumerate(["train/cat/0.png", "train/dog/6.png", "val/cat/2.png"]):
        (ordinary / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(ordinary / "photos" / path)
    store, table = plan_of_two(ordinary, ordinary / "photos")
    (path,) = inbox_of(store).glob(name)
    path.chmod(0)
    with pytest.raises(es.EmbedstoreError, match="Permission denied") as error:
        store.plan_parts(table, 2, replace=True, progress=False)
    assert not isinstance(error.value, es.StoreDamaged)
    path.chmod(0o600)
    assert store.register().registered == 1


def test_results_of_a_part_count_once(tmp_path, photos):
    """The same result twice, and the result of a second worker, change nothing."""
    store = tiny_store(tmp_path / "s")
    store.plan_parts(photos, 2, progress=False)
    inbox = Inbox(store._session.storage.layout, store.spaces[0].key)
    es.work(tmp_path / "s", "1/2", progress=False)
    (result,) = inbox.waiting()
    kept = result.path.read_bytes()
    assert es.work(tmp_path / "s", "1/2", progress=False).result == "", "a part with a result is not done again"
    assert store.register().new == 1
    before = comparable(store)
    result.path.write_bytes(kept)
    again = store.register()
    assert (again.new, again.repeated, again.registered) == (0, 1, 1)
    assert comparable(store) == before
    assert es.work(tmp_path / "s", "1/2", progress=False).result == "", "nor one that is registered"


def test_a_torn_result_is_counted_and_done_again(tmp_path, photos):
    """A result that was cut or changed is quarantined, and its part is embedded again."""
    store = tiny_store(tmp_path / "s")
    store.plan_parts(photos, 2, progress=False)
    inbox = Inbox(store._session.storage.layout, store.spaces[0].key)
    for damage in (lambda b: b[:-5], lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], lambda _: b""):
        es.work(tmp_path / "s", "1/2", progress=False)
        (result,) = inbox.waiting()
        result.path.write_bytes(damage(result.path.read_bytes()))
        assert not store.verify().ok
        report = store.register()
        assert (report.new, len(report.torn), report.left) == (0, 1, [1, 2])
        assert store.sql("SELECT count(*) FROM items").rows == ((0,),)
    for part in ("1/2", "2/2"):
        es.work(tmp_path / "s", part, progress=False)
    assert store.register().finished
    assert store.verify().ok


def test_backup_info_and_repair_know_the_inbox(tmp_path, photos):
    """A backup takes the plan and waiting results along, `info` counts them, `repair` quarantines a torn one."""
    store = tiny_store(tmp_path / "s")
    store.plan_parts(photos, 3, progress=False)
    es.work(tmp_path / "s", "1/3", progress=False)
    es.work(tmp_path / "s", "2/3", progress=False)
    (state,) = store.info().parts
    assert (state.parts, state.files, state.waiting, state.registered) == (3, 12, 2, 0)
    store.backup(tmp_path / "copy")
    copy = es.open(tmp_path / "copy")
    assert copy.verify().ok
    assert (copy.register().new, copy.info().parts[0].registered) == (2, 2)
    es.work(tmp_path / "copy", "3/3", progress=False)
    assert copy.register().finished
    inbox = Inbox(store._session.storage.layout, store.spaces[0].key)
    torn = inbox.waiting()[0].path
    torn.write_bytes(torn.read_bytes()[:-1])
    assert [d.file.rsplit("/", 1)[1] for d in store.verify().damage] == [torn.name]
    assert any(torn.name in action for action in store.repair().actions)
    assert (store.verify().ok, store.register().left) == (True, [1, 3])


def test_a_plan_that_does_not_say_what_it_counts_counts_files(tmp_path, photos):
    """Version 0.1.0 counted files only, and named no unit."""
    store = tiny_store(tmp_path / "s")
    store.plan_parts(photos, 2, progress=False)
    (path,) = (tmp_path / "s").rglob("plan.json")
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["counts"].pop("unit") == "file"
    path.write_text(json.dumps(values), encoding="utf-8")
    assert Inbox(store._session.storage.layout, store.spaces[0].key).read_plan().counts["unit"] == "file"
    for part in ("1/2", "2/2"):
        es.work(tmp_path / "s", part, progress=False)
    assert store.register().finished


def test_a_purge_ends_a_plan(tmp_path, photos):
    """No file of the store names what was purged, and what workers had done is kept."""
    store = tiny_store(tmp_path / "s")
    store.plan_parts(photos, 2, progress=False)
    es.work(tmp_path / "s", "1/2", progress=False)
    store.register()
    uri = store.sql("SELECT uri FROM items ORDER BY uri LIMIT 1").rows[0][0]
    store.purge(f"uri = '{uri}'")
    store.compact()
    assert store.info().items == 5
    assert not [p for p in (tmp_path / "s").rglob("*") if p.is_file() and uri.encode() in p.read_bytes()]


def test_items_that_were_deleted_since_the_plan_stay_deleted(tmp_path, photos):
    """A result does not bring an item back, and files that a later run embedded are no second items."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    for path in photos.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    store.plan_parts(photos, 1, progress=False)
    store.delete("label = 'cat'")
    es.work(tmp_path / "s", "1/1", progress=False)
    report = store.register()
    assert (report.deleted, report.reused, report.embedded) == (6, 6, 0)
    assert store.sql("SELECT count(*), count(DISTINCT uri) FROM items").rows == ((6, 6),)


def test_a_plan_with_parts_left_is_replaced_only_if_told(tmp_path, photos):
    """The error names both ways out; with --replace nothing that a worker did is lost."""
    store = tiny_store(tmp_path / "s")
    store.plan_parts(photos, 4, progress=False)
    es.work(tmp_path / "s", "2/4", progress=False)
    with pytest.raises(PartsError, match=r"3 of 4 parts .* are left; .*--replace"):
        store.plan_parts(photos, 2, progress=False)
    assert store.info().items == 3
    planned = store.plan_parts(photos, 2, replace=True, progress=False)
    assert (planned.parts, planned.files) == (2, 9)
    for part in ("1/2", "2/2"):
        es.work(tmp_path / "s", part, progress=False)
    assert store.register().finished
    assert store.info().items == 12


def test_what_a_user_can_get_wrong_is_one_clear_line(tmp_path, photos):
    """No plan, another number of parts, a part that is not there, and a text that is no part."""
    store = tiny_store(tmp_path / "s")
    with pytest.raises(PartsError, match="has no plan of parts; make one with `embedstore plan-parts"):
        store.register()
    with pytest.raises(PartsError, match="has no plan of parts"):
        es.work(tmp_path / "s", "1/2")
    (tmp_path / "none").mkdir()
    with pytest.raises(NoImages):
        store.plan_parts(tmp_path / "none", 2, progress=False)
    store.plan_parts(photos, 2, progress=False)
    with pytest.raises(PartsError, match=r"has 2; name it as --part 2/2"):
        es.work(tmp_path / "s", "3/400")
    with pytest.raises(PartsError, match=r"there is no part 3; .* has parts 1 to 2"):
        es.work(tmp_path / "s", "3")
    with pytest.raises(BadOption, match="write it as NUMBER/PARTS"):
        es.work(tmp_path / "s", "first")
    with pytest.raises(PartsError, match="for space other"):
        es.work(tmp_path / "s", "1/2", space="other")


def test_more_parts_than_files_are_one_file_each(tmp_path, photos):
    """No part is empty."""
    store = tiny_store(tmp_path / "s")
    assert store.plan_parts(photos, 400, progress=False).parts == 12
    assert store.info().parts[0].parts == 12


def test_a_store_without_new_files_needs_no_parts(tmp_path, photos):
    """The plan is empty, items that are gone are marked at once, and there is no inbox."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    (photos / "val" / "cat" / "2.png").unlink()
    report = store.plan_parts(photos, 3, progress=False)
    assert (report.parts, report.counts["missing"]) == (0, 1)
    assert store.info().parts == []


def test_random_orders_and_repeats_end_in_the_same_rows(tmp_path, photos):
    """Whatever the order of working and registering, the rows are those of a local run."""
    add_trouble(photos)
    local = tiny_store(tmp_path / "local")
    local.embed(photos)
    for seed in range(3):
        rng = random.Random(seed)
        path = tmp_path / f"s{seed}"
        store = tiny_store(path)
        count = store.plan_parts(photos, 4, progress=False).parts
        steps = [*range(1, count + 1), *(rng.choice([0, 1, 2, 3, 4]) for _ in range(4))]
        rng.shuffle(steps)
        finished = False
        for step in steps:
            if finished:
                break
            if step:
                es.work(path, f"{step}/{count}", progress=False)
            else:
                finished = store.register().finished
        assert finished or store.register().finished
        assert comparable(store) == comparable(local)


def test_a_worker_does_not_decode_what_the_store_has(tmp_path, photos):
    """Files that were only touched are hashed: no vector is computed for them."""
    store = tiny_store(tmp_path / "s")
    store.embed(photos)
    for path in photos.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    store.plan_parts(photos, 1, progress=False)
    report = es.work(tmp_path / "s", "1/1", progress=False)
    assert (report.files, report.embedded) == (12, 0)
    assert store.register().reused == 12


def test_known_contents_are_found_by_their_digests():
    """Digests that end in zero bytes are found, and neighbours of a known digest are not."""
    from embedstore.pipeline.distributed.worker import FilesOfPart

    known = ["00" * 16, "11" * 15 + "00", "ff" * 16]
    files = FilesOfPart([], np.array(sorted(bytes.fromhex(d) for d in known), "S16"))
    assert files.known([*known, "11" * 16, "ff" * 15 + "fe", "11" * 14 + "0000"]) == set(known)
    assert files.known([]) == set()


def test_texts_of_a_table_are_embedded_in_parts(tmp_path):
    """Another modality: rows of a table are read by their uris, and equal those of a local run."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")
    model = save_model(tmp_path / "bert", "bert")
    (tmp_path / "t.csv").write_text(
        "text,label\n" + "".join(f"red {w} blue,l{n % 2}\n" for n, w in enumerate(WORDS[:9])) + ",l0\n"
    )
    local = es.create(tmp_path / "local", f"hf/{model}")
    local.embed(tmp_path / "t.csv", text_column="text", progress=False)
    store = es.create(tmp_path / "s", f"hf/{model}")
    report = run_parts(tmp_path / "s", tmp_path / "t.csv", 3, text_column="text")
    assert (report.finished, report.torn) == (True, [])
    assert report.embedded + sum(report.failures_by_reason.values()) == 10
    rows = "SELECT uri, label, text, content, size, mtime_ns, present FROM items ORDER BY uri"
    assert store.sql(rows).rows == local.sql(rows).rows
    for query in ("SELECT * EXCLUDE failed FROM failures ORDER BY uri", "SELECT * FROM contents ORDER BY content"):
        assert store.sql(query).rows == local.sql(query).rows
    assert store.verify().ok
