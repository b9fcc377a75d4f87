"""Every result of a public method converts to JSON, and a store shows what it holds."""

import inspect
import json

import pytest

import embedstore as es
from tests.conftest import TINY, picture
from tests.helpers.clusters import clusters, store_of

NOT_RESULTS = {"Store", "Features", "ZeroShotClassifier", "Hit"}  # these are used, not reported


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """60 rows of three classes, every tenth without a label."""
    X, y = clusters(60)
    labels = [None if n % 10 == 0 else label for n, label in enumerate(y)]
    return store_of(tmp_path_factory.mktemp("results") / "s", X, label=labels)


def test_every_public_result_class_converts_to_json():
    """Errors and the objects that a user works with are not results."""
    classes = [n for n in es.__all__ if inspect.isclass(getattr(es, n)) and n not in NOT_RESULTS]
    results = [n for n in classes if not issubclass(getattr(es, n), es.EmbedstoreError)]
    assert len(results) > 20
    assert [n for n in results if not callable(getattr(getattr(es, n), "to_json", None))] == []


def with_head(store):
    """Return the store with a kept head."""
    store.probe(head="ridge", save_as="kept")
    return store


def backed_up(store, folder):
    """Return the folder of a backup."""
    store.backup(folder / "backup")
    return folder / "backup"


def exported(store, folder):
    """Return the folder of an export."""
    store.export_store(folder / "export")
    return folder / "export"


def restored(store, folder):
    """Return the folder of a store that was restored from a backup."""
    es.restore(backed_up(store, folder), folder / "restored")
    return folder / "restored"


@pytest.mark.parametrize(
    "call",
    [
        lambda s, _: s.info(),
        lambda s, _: s.sql("SELECT item, added, label FROM items"),
        lambda s, _: s.failures(),
        lambda s, _: s.spaces[0],
        lambda s, _: s.search(1, k=3),
        lambda s, _: s.map(),
        lambda s, _: s.duplicates(0.9),
        lambda s, _: s.cluster(3),
        lambda s, _: s.probe(head="ridge", save_as="kept"),
        lambda s, _: with_head(s).heads[0],
        lambda s, _: with_head(s).predict("kept"),
        lambda s, _: s.knn(k=3, folds=3),
        lambda s, _: s.learning_curve(head="prototype", labels_per_class=(1, 2), repeats=2),
        lambda s, _: s.compare_heads(heads=("ridge", "knn")),
        lambda s, _: s.label_errors(head="ridge"),
        lambda s, _: s.suggest_labels(head="ridge", k=3),
        lambda s, _: s.edit({"label": "label"}, "true"),
        lambda s, _: s.rename("/57", "/other"),
        lambda s, _: s.delete(items=[60]),
        lambda s, _: s.purge(items=[59]),
        lambda s, _: s.set_default("numbers"),
        lambda s, _: s.verify(),
        lambda s, _: s.repair(),
        lambda s, _: s.compact(),
        lambda s, folder: s.backup(folder / "backup"),
        lambda s, folder: es.restore(backed_up(s, folder), folder / "restored"),
        lambda s, folder: s.export_store(folder / "export"),
        lambda s, folder: es.import_store(folder / "imported", exported(s, folder)),
        lambda s, folder: es.repair_store(restored(s, folder)),
    ],
)
def test_a_result_is_plain_json(store, call, tmp_path):
    """json.dumps accepts it without a default; no call needs another one before it."""
    result = call(store, tmp_path)
    assert isinstance(json.loads(json.dumps(result.to_json())), dict | list)


def test_info_counts_what_a_store_holds(tmp_path):
    """The counts are attributes; a notebook shows them as a table."""
    X, y = clusters(9)
    store = store_of(tmp_path / "s", X, label=y, split=["train"] * 6 + ["val"] * 3)
    info = store.info()
    assert (info.items, info.contents, info.failures, info.missing) == (9, 9, 0, 0)
    assert info.labels == {"c0": 3, "c1": 3, "c2": 3}
    assert info.splits == {"train": 6, "val": 3}
    assert [(s["name"], s["vectors"], s["current"]) for s in info.spaces] == [("numbers", 9, True)]
    assert "<td>9</td>" in info._repr_html_()
    assert "9 vectors, 16 dimensions" in store._repr_html_()


def test_embedding_reports_as_json(tmp_path):
    """A run of the pipeline, with a failure."""
    (tmp_path / "photos").mkdir()
    picture(1).save(tmp_path / "photos" / "1.png")
    (tmp_path / "photos" / "2.png").write_bytes(b"none")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    facts = json.loads(json.dumps(store.embed(tmp_path / "photos", progress=False).to_json()))
    assert (facts["embedded"], facts["failures"]) == (1, 1)
    assert json.loads(json.dumps(store.failures().to_json()))[0]["reason"] == "not_an_image"
    assert store.spaces[0].to_json()["is_default"] is True
