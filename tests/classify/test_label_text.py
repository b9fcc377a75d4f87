"""Labels, groups and splits are compared in one form: what looks equal is one class, what says nothing is no label."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.classify.data.features import load_features
from embedstore.errors import LabelError
from embedstore.text_form import (
    ABSENT_PATTERN,
    ABSENT_WORDS,
    SPLIT_WORDS,
    clean_name,
    clean_text,
    is_absent,
    known_split,
)
from embedstore.types import Split

SPACES = [c for c in map(chr, range(0x3001)) if c.isspace()]
INVISIBLE = ["\u200b", "\ufeff", "\u2060", "\u00ad", "\u200e"]


def store_of_labels(path, columns: dict):
    """Return a store with one random unit vector per row, and these columns."""
    rows = len(next(iter(columns.values())))
    X = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float32)
    store = es.create(path)
    store.add_vectors(X, {"uri": [f"/{n}.jpg" for n in range(rows)], **columns})
    return store


def features(store, label: str):
    """Return the features of the store's only space."""
    return load_features(store._session.storage, store.spaces[0], label)


@settings(max_examples=100, deadline=None)
@given(
    word=st.sampled_from(["cat", "café", "Ångström unit", "한국", "a  b"]),
    before=st.text(st.sampled_from(SPACES + INVISIBLE), max_size=3),
    after=st.text(st.sampled_from(SPACES + INVISIBLE), max_size=3),
    form=st.sampled_from(["NFC", "NFD"]),
)
def test_every_way_to_write_a_name_that_looks_the_same_is_one_name(word, before, after, form):
    """White space and invisible characters around it, kinds of space within, and the normal form do not matter."""
    written = before + unicodedata.normalize(form, word).replace(" ", after + "\u00a0") + after
    assert clean_text(written) == " ".join(word.split())
    assert clean_text(clean_text(written)) == clean_text(written)


@given(st.text(max_size=8) | st.sampled_from(ABSENT_WORDS))
def test_python_and_the_catalog_agree_on_what_is_absent(text):
    """The SQL condition and the function decide alike for any text."""
    import duckdb

    if "\0" in text:
        return
    with duckdb.connect() as con:
        assert con.execute("SELECT regexp_full_match(?, ?)", [text, ABSENT_PATTERN]).fetchone() == (is_absent(text),)


@pytest.mark.parametrize(
    "value",
    [None, "", " ", "\u00a0\n", "\ufeff", float("nan"), np.float32("nan"), np.datetime64("NaT"), pd.NaT, pd.NA,
     "nan", "NaN", "NaT", "<NA>", "None", "NULL", " nan\t"],
)  # fmt: skip
def test_every_notation_of_absent_is_no_name(value):
    """Values of Python, NumPy and pandas, blank text, and the words that they leave in text files."""
    assert is_absent(value)
    assert clean_name(value) is None


@pytest.mark.parametrize("value", ["none", "Nan bread", "NA", "0", 0, False, np.bool_(False), "-", "nobody"])
def test_names_that_only_resemble_an_absent_value_are_names(value):
    """Zero, false and "none" are classes."""
    assert clean_name(value) == str(value)


def test_every_word_of_a_split_is_known_in_any_case_and_with_a_year():
    """The table of words, white space, separators and years as in train2017; a number makes another word."""
    for split, words in SPLIT_WORDS.items():
        for word in words:
            for written in (word, word.upper(), f" {word}\u00a0", f"{word}2017", f"{word}_2017", word.title()):
                assert known_split(written) is split
    assert known_split("Hold-Out") is Split.TEST
    assert [known_split(w) for w in ("validation2", "fold3", "unlabeled", "tests", "trainer", "")] == [None] * 6


def test_absent_labels_of_every_notation_are_unlabeled(tmp_path):
    """They are counted as unlabeled by the features, and trained on by nobody; a float column with NaN too."""
    labels = ["cat", "dog"] * 4 + [None, "", " ", "\u00a0", "nan", "NaN", "NaT", "<NA>", "None", "NULL"]
    store = store_of_labels(tmp_path / "s", {"kind": labels, "level": [1.0, 2.0] * 4 + [float("nan")] * 10})
    for column, classes in (("kind", {"cat", "dog"}), ("level", {"1.0", "2.0"})):
        data = features(store, column)
        assert set(data.y.tolist()) == classes
        assert data.n_unlabeled == 10
    listed = store.suggest_labels("kind", k=50)
    assert len(listed.records()) == 10


def test_labels_that_look_equal_are_one_class_and_the_spellings_are_named(tmp_path):
    """``cat``, ``cat`` + newline and ``cat`` + no-break space are one class; the evaluation names them."""
    X = np.repeat(np.eye(2, 8, dtype=np.float32), 20, axis=0) + np.random.default_rng(1).normal(0, 0.05, (40, 8))
    cats = ["cat", "cat\n", "cat\u00a0", "cat\u200b"] * 5
    cafes = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")] * 10
    store = es.create(tmp_path / "s")
    store.add_vectors(X.astype(np.float32), {"uri": [f"/{n}" for n in range(40)], "kind": cats + cafes})
    evaluation = store.probe("kind")
    assert evaluation.classes == ("café", "cat")
    assert evaluation.accuracy == 1.0
    (note,) = evaluation.label_notes
    assert "2 labels are written in several ways" in note
    assert r"'cat', 'cat\n', 'cat\xa0', 'cat\u200b'" in note
    assert evaluation.to_json()["label_notes"] == [note]


def test_labels_that_differ_in_case_only_are_classes_and_named(tmp_path):
    """``Cat`` and ``cat`` may be two classes, so they stay two, and a note names them; so with groups."""
    X = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    columns = {
        "kind": ["Cat", "cat", " cat", "dog", "DOG", "bird"] * 10,
        "group": [f"{'p' if n % 2 else 'P'}{n // 2}" for n in range(60)],
    }
    store = es.create(tmp_path / "s")
    store.add_vectors(X, {"uri": [f"/{n}" for n in range(60)], **columns})
    notes = store.probe("kind", head="prototype").label_notes
    twins = [note for note in notes if "case only" in note]
    assert twins[0] == (
        "4 labels differ in upper and lower case only and count as different ones: 'Cat', 'cat'; 'DOG', 'dog'"
    )
    assert twins[1].startswith("60 groups differ in upper and lower case only")
    assert twins[1].endswith("and 25 more")


def test_members_of_a_list_of_labels_are_compared_in_one_form(tmp_path):
    """Absent members are none; spellings are one label."""
    store = store_of_labels(tmp_path / "s", {"tags": [["red", "blue\u00a0"], ["blue", "nan"], [" red", None], []]})
    assert features(store, "tags").y.tolist() == [("blue", "red"), ("blue",), ("red",), ()]


def test_groups_that_look_equal_stay_on_one_side(tmp_path):
    """``visit7`` and ``visit7 `` are one group: a leak otherwise."""
    store = store_of_labels(tmp_path / "s", {"kind": ["a", "b", "a"], "group": ["visit7", "visit7\u00a0", "visit8"]})
    groups = features(store, "kind").groups
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize("word", ["dev", "EVAL", "Holdout", " test", "validation\u00a0"])
def test_words_for_a_split_that_are_stored_already_are_understood(tmp_path, word):
    """Stores that hold such words evaluate on those items."""
    store = store_of_labels(tmp_path / "s", {"kind": ["a", "b"] * 10})
    store._session.storage  # noqa: B018 - the store as an older version wrote it
    with store._session.storage.writer("test") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET split = CASE WHEN item <= 14 THEN 'train' ELSE ? END", [word])
    evaluation = store.probe("kind")
    assert (evaluation.split, evaluation.n_train, evaluation.n_held_out) == (
        "val" if word in ("dev", "validation\u00a0") else "test", 14, 6,
    )  # fmt: skip


def test_a_split_that_is_not_understood_is_refused_with_the_word_and_a_cure_that_works(tmp_path):
    """Its items would train otherwise; folds do not need the split."""
    store = store_of_labels(tmp_path / "s", {"kind": ["a", "b"] * 10})
    with store._session.storage.writer("test") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET split = CASE WHEN item <= 14 THEN 'train' ELSE 'fold''3' END")
    for evaluate in (store.probe, store.learning_curve):
        with pytest.raises(LabelError, match="fold'3"):
            evaluate("kind")
    assert store.probe("kind", folds=2).n_held_out == 20
    with pytest.raises(LabelError) as e:
        store.probe("kind")
    assert "--where \"split='fold''3'\"" in str(e.value)
    store.edit({"split": "'test'"}, "split='fold''3'")
    assert store.probe("kind").split == "test"
