"""Stored heads: they predict as before, in their own space only, and only if their files are unchanged."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import BadFilter, BadHead, LabelError, SpaceMismatch, StoreDamaged, UnknownColumn, UnknownHead
from tests.helpers.clusters import add, clusters, store_of


@pytest.fixture
def store(tmp_path):
    """120 rows of three classes, the last 20 without a label."""
    X, y = clusters(120, noise=1.0)
    return store_of(tmp_path / "s", X, label=[*y[:100], *[None] * 20])


def test_a_saved_head_predicts_as_before(store):
    """Its probabilities are equal bit for bit, and its record names space, label, kind and classes."""
    e = store.probe("label", save_as="three")
    (row,) = store.heads
    assert (row.name, row.kind, row.label, row.space_key) == ("three", "logistic", "label", store.spaces[0].key)
    assert row.metadata["classes"] == ["c0", "c1", "c2"]
    assert row.metadata["C"] == e.hyperparameters["C"]
    X = store.features("label").X
    assert np.array_equal(store.head("three").predict_proba(X), e.estimator.predict_proba(X))
    assert [head.to_json() for head in store.info().heads] == [
        {"head": "three", "space": row.space_key, "label": "label", "kind": "logistic"}
    ]


@pytest.mark.parametrize("head", ["knn", "prototype", "lda", "svm", "ridge", "mlp"])
def test_every_kind_of_head_can_be_saved_and_predicts_every_item(store, head):
    """Classes and scores in the table are the estimator's, for items with and without a label."""
    store.probe("label", head=head, save_as="h")
    result = store.predict("h")
    assert (result.items, result.contents, sum(result.labels.values())) == (120, 120, 120)
    rows = store.sql("SELECT label, score FROM predictions WHERE head = 'h' ORDER BY item").rows
    X, _ = clusters(120, noise=1.0)
    from embedstore.classify.heads import probabilities

    estimator = store.head("h")
    proba = probabilities(estimator, X)
    assert [r[0] for r in rows] == np.asarray(estimator.classes_)[proba.argmax(1)].tolist()
    assert [r[1] for r in rows] == pytest.approx(proba.max(1).tolist(), abs=1e-6)


def test_predictions_can_be_used_in_filters(store):
    """pred.NAME and pred.NAME.score select what SQL selects, in search, features and export."""
    store.probe("label", save_as="three")
    store.predict("three")
    expected = store.sql(
        "SELECT item FROM predictions WHERE head = 'three' AND label = 'c1' AND score > 0.9 ORDER BY item"
    ).rows
    where = "pred.three = 'c1' and pred.three.score > 0.9"
    hits = store.search(1, k=120, where=where)
    assert sorted(h.item for h in hits) == [r[0] for r in expected]
    assert 10 < len(hits) < 60
    agreed = store.features("label", where="pred.three = label and not items.item > 50")
    assert (
        len(agreed)
        == store.sql(
            "SELECT count(*) FROM items JOIN predictions p USING (item) WHERE p.label = items.label AND item <= 50"
        ).rows[0][0]
    )
    assert store.export(Path(store.path.parent, "x.parquet"), where=where).rows == len(hits)


def test_only_new_items_can_be_predicted(store):
    """`pred.h is null` selects nothing the second time, and predicting a part replaces only that part."""
    store.probe("label", head="ridge", save_as="h")
    assert store.predict("h", where="item <= 50").items == 50
    assert store.predict("h", where="pred.h is null").items == 70
    assert store.predict("h", where="pred.h is null").items == 0
    assert store.predict("h", where="pred.h.score < 2").items == 120
    assert store.sql("SELECT count(*), count(DISTINCT item) FROM predictions").rows == ((120, 120),)


def test_a_prediction_for_other_bytes_does_not_count(store):
    """An item whose content changed has no prediction until it is predicted again."""
    store.probe("label", head="ridge", save_as="h")
    store.predict("h")
    with store._session.storage.writer("test") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET content = (SELECT content FROM items WHERE item = 2) WHERE item = 1")
    assert [h.item for h in store.search(2, k=5, where="pred.h is null")] == [1]


def test_invalid_prediction_filters_are_refused(store):
    """Heads without predictions, unknown fields and SQL inside a name are errors."""
    store.probe("label", head="ridge", save_as="three")
    with pytest.raises(UnknownColumn, match="embedstore predict"):
        store.search(1, where="pred.three = 'c1'")
    store.predict("three")
    for where in ("pred.thre = 'c1'", "pred.three.margin > 1", "pred.three.score.x > 1"):
        with pytest.raises(UnknownColumn):
            store.search(1, where=where)
    with pytest.raises(UnknownColumn):
        store.search(1, where="pred.\"three' OR 1=1 --\" = 'c1'")
    with pytest.raises(BadFilter):
        store.search(1, where="pred.three = (select 1)")


def test_a_head_of_another_space_is_refused_with_the_cure(store):
    """The error names the space of the head and the command that trains one in the requested space."""
    add(store, clusters(120, dim=8)[0], "other")
    store.probe("label", head="ridge", save_as="h")
    with pytest.raises(SpaceMismatch, match=r"trained in space numbers .* --space other --save"):
        store.predict("h", space="other")
    with pytest.raises(UnknownHead, match="did you mean h"):
        store.predict("hh")


@pytest.mark.parametrize("file", ["head.json", "head.safetensors"])
def test_a_damaged_head_is_refused(store, file):
    """One changed byte in either file, or a missing file, is an error that says to train it again."""
    store.probe("label", head="ridge", save_as="h")
    path = store.path / "heads" / "h" / file
    good = path.read_bytes()
    changed = bytearray(good)
    changed[len(good) // 2] ^= 1
    path.write_bytes(bytes(changed))
    with pytest.raises(StoreDamaged, match="again"):
        store.predict("h")
    path.unlink()
    with pytest.raises(StoreDamaged, match="again"):
        store.predict("h")
    path.write_bytes(good)
    assert store.predict("h").items == 120


def test_the_files_of_another_head_are_refused(store):
    """Another head's files, valid in themselves, are not accepted under this head's name."""
    store.probe("label", head="ridge", save_as="a")
    store.probe("label", head="svm", save_as="b")
    for name in ("head.json", "head.safetensors"):
        (store.path / "heads" / "a" / name).write_bytes((store.path / "heads" / "b" / name).read_bytes())
    with pytest.raises(StoreDamaged, match="not what was saved"):
        store.head("a")


def test_replacing_or_dropping_a_head_deletes_its_predictions(store):
    """A new head under the old name has no predictions yet."""
    store.probe("label", head="ridge", save_as="h")
    store.predict("h")
    store.probe("label", head="svm", save_as="h")
    assert [h.kind for h in store.heads] == ["svm"]
    assert store.sql("SELECT count(*) FROM predictions").rows == ((0,),)
    store.predict("h")
    store.delete_head("h")
    assert store.heads == []
    assert store.sql("SELECT count(*) FROM predictions").rows == ((0,),)
    assert not (store.path / "heads" / "h").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 65, ".hidden", "a;drop"])
def test_invalid_head_names_are_refused(store, name):
    """A head's name is a folder and appears in SQL: letters, digits, _ and - only."""
    e = store.probe("label", head="ridge")
    with pytest.raises(BadHead, match="name"):
        store.save_head(name, e)


def test_an_abstaining_head_predicts_its_abstain_label(store):
    """Below the threshold the label is "none of these", and the score is kept."""
    e = store.probe("label", calibrate="temperature", abstain_precision=0.9)
    half = float(np.median(e.held_out_predictions.proba.max(1)))
    e.estimator.threshold_ = half  # the head is right nearly everywhere, and would answer everything
    store.save_head("sure", e)
    store.predict("sure")
    rows = store.sql("SELECT label, score FROM predictions WHERE head = 'sure'").rows
    assert all((label == "none of these") == (np.float32(score) < half) for label, score in rows)
    assert {label == "none of these" for label, _ in rows} == {True, False}


def test_a_head_without_a_threshold_answers_nothing(store):
    """No sample shows a precision of 1: every item is "none of these", with its score, also after loading."""
    store.probe("label", abstain_precision=1.0, save_as="never")
    store.predict("never")
    rows = store.sql("SELECT label, score FROM predictions WHERE head = 'never'").rows
    assert {label for label, _ in rows} == {"none of these"}
    assert all(0 < score <= 1 for _, score in rows)
    assert store.head("never").threshold_ == float("inf")


def test_only_linear_heads_are_exported(store, tmp_path):
    """The .npz gives the same classes by hand; a head without weights and another suffix are refused."""
    store.probe("label", save_as="line")
    path = store.export_head("line", tmp_path / "line.npz")
    X = store.features("label").X
    with np.load(path) as found:
        predicted = found["classes"][(X @ found["weights"].T + found["intercepts"]).argmax(1)]
    assert predicted.tolist() == store.head("line").predict(X).tolist()
    store.probe("label", head="knn", save_as="near")
    with pytest.raises(BadHead, match="not a linear head"):
        store.export_head("near", tmp_path / "near.npz")
    with pytest.raises(BadHead, match=r"\.npz or \.onnx"):
        store.export_head("line", tmp_path / "line.pkl")


def test_a_multilabel_head_is_saved_and_predicts(tmp_path):
    """Every predicted label is a row of the table, an item without any has one row without a label, and
    in filters ``pred.NAME`` is a list, the likeliest label first."""
    X, y = clusters(150, noise=1.0)
    tags = ["" if label == "c2" else f"{label},{'odd' if n % 2 else 'even'}" for n, label in enumerate(y)]
    store = store_of(tmp_path / "s", np.hstack([X, np.arange(150)[:, None] % 2]), tags=[t or "," for t in tags])
    e = store.probe("tags", separator=",", head="logistic", calibrate="temperature", save_as="tags")
    X = store.features("tags", separator=",").X
    proba = e.estimator.predict_proba(X)
    assert np.array_equal(store.head("tags").predict_proba(X), proba)
    assert store.heads[0].metadata["sets"] is True
    result = store.predict("tags")
    names = [str(c) for c in e.estimator.classes_]
    expected = {(i + 1, names[k]) for i, k in zip(*np.nonzero(proba >= 0.5), strict=True)}
    rows = store.sql("SELECT item, label, score FROM predictions WHERE label IS NOT NULL").rows
    assert {(i, label) for i, label, _ in rows} == expected
    assert [s for _, _, s in sorted(rows)] == pytest.approx([proba[i - 1, names.index(n)] for i, n in sorted(expected)])
    none = [i + 1 for i in range(150) if proba[i].max() < 0.5]
    assert [r[0] for r in store.sql("SELECT item FROM predictions WHERE label IS NULL ORDER BY 1").rows] == none
    assert len(none) > 10
    assert result.items == 150
    assert result.labels["none"] == len(none)

    def matching(where):
        return store.features("tags", separator=",", where=where).ids.tolist()

    assert matching("list_contains(pred.tags, 'odd')") == sorted(i for i, n in expected if n == "odd")
    assert matching("len(pred.tags) = 0") == none
    assert matching("pred.tags is not null and pred.tags.score < 0.5") == none
    best = [names[k] for k in proba.argmax(1)]
    assert matching("pred.tags[1] = 'even'") == [i + 1 for i in range(150) if i + 1 not in none and best[i] == "even"]
    with pytest.raises(LabelError, match="no item"):
        store.features("tags", separator=",", where="pred.tags is null")


def test_conformal_sets_are_saved_and_predicted(store):
    """A conformal head's sets are in the table and in filters: the classes at or above its threshold."""
    e = store.probe("label", head="lda", conformal_alpha=0.05, save_as="sets")
    store.predict("sets")
    X, _ = clusters(120, noise=1.0)
    member = store.head("sets").predict_set(X)
    assert np.array_equal(member, e.estimator.predict_proba(X) >= e.conformal.threshold)
    rows = store.sql("SELECT item, count(label) FROM predictions GROUP BY 1 ORDER BY 1").rows
    assert [n for _, n in rows] == member.sum(1).tolist()
    unsure = [h.item for h in store.search(1, k=120, where="len(pred.sets) > 1")]
    assert sorted(unsure) == (np.flatnonzero(member.sum(1) > 1) + 1).tolist()


def test_a_prediction_is_recorded_as_a_run(store):
    """The run has the filter and the counts."""
    store.probe("label", head="ridge", save_as="h")
    store.predict("h", where="item < 11")
    settings, result = store.sql("SELECT settings, result FROM runs WHERE verb = 'predict'").rows[0]
    assert json.loads(settings) == {"head": "h", "where": "item < 11"}
    assert json.loads(result)["items"] == 10


@pytest.mark.parametrize("block", [256, 7])
def test_the_block_size_does_not_change_the_predictions(store, monkeypatch, block):
    """One block and many blocks give the same table."""
    from embedstore.storage import vector_stream

    store.probe("label", head="ridge", save_as="h")
    store.predict("h")
    before = store.sql("SELECT * FROM predictions ORDER BY item").rows
    whole = vector_stream.VectorStream.iter_blocks
    monkeypatch.setattr(vector_stream.VectorStream, "iter_blocks", lambda self, rows=0: whole(self, block))
    store.predict("h")
    assert store.sql("SELECT * FROM predictions ORDER BY item").rows == before


def test_a_head_saved_in_another_case_replaces_the_files_too(store):
    """``Foo`` over ``foo`` leaves one head, one folder and the new predictions only."""
    store.probe("label", head="ridge", save_as="foo")
    store.predict("foo")
    store.probe("label", head="svm", save_as="Foo")
    assert [(h.name, h.kind) for h in store.heads] == [("Foo", "svm")]
    assert [p.name for p in (store.path / "heads").iterdir()] == ["Foo"]
    assert store.predict("foo").head == "Foo"


def test_dropping_a_head_deletes_what_a_killed_save_left(store):
    """Copies of replaced files and half-written folders of that head go; those of other heads stay."""
    for name in ("h", "other"):
        store.probe("label", head="ridge", save_as=name)
    for leftover in (".h.previous", ".h.abc123", ".other.previous"):
        (store.path / "heads" / leftover).mkdir()
    store.delete_head("h")
    assert sorted(p.name for p in (store.path / "heads").iterdir()) == [".other.previous", "other"]


def test_a_catalog_that_names_a_folder_outside_the_store_is_refused(store):
    """A head's name in a store from somebody else is checked before it becomes a path."""
    store.probe("label", head="ridge", save_as="h")
    with store._session.storage.writer("test") as writer, writer.transaction() as con:
        con.execute("UPDATE heads SET head = '../../h'")
    for use in (store.head, store.predict, store.delete_head):
        with pytest.raises(BadHead, match="does not fit"):
            use("../../h")


def test_predictions_and_their_run_are_one_transaction(store, monkeypatch):
    """A failure while the run is recorded leaves the predictions as they were."""
    from embedstore.storage.queries import runs

    store.probe("label", head="ridge", save_as="h")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "insert_run", fail)
    with pytest.raises(OSError, match="No space"):
        store.predict("h")
    monkeypatch.undo()
    assert store.sql("SELECT count(*) FROM predictions").rows == ((0,),)
