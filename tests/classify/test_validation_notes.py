"""Notes on val items that were not used: what they propose works for the head that was evaluated."""

import pytest

from embedstore.reports.comparison_text import comparison_notes
from embedstore.reports.evaluation_text import evaluation_notes
from tests.helpers.clusters import clusters, store_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """240 rows: half train, a quarter is val, a quarter is test."""
    X, y = clusters(240, noise=2.0)
    split = [("train", "train", "val", "test")[n % 4] for n in range(240)]
    return store_of(tmp_path_factory.mktemp("validation") / "s", X, label=y, split=split)


@pytest.mark.parametrize(
    ("options", "cures"),
    [
        ({}, {"choose_on": "val", "refit": True}),
        ({"head_options": {"C": 1.0}}, {"refit": True}),
        ({"head": "lda"}, {"refit": True}),
        ({"head": "knn"}, {"refit": True}),
        ({"head": "kernel"}, {"refit": True}),
    ],
)
def test_what_the_note_proposes_works_for_this_head(store, options, cures):
    """A head that selects no C is not told to select it on val, which it would refuse."""
    (note,) = [n for n in evaluation_notes(store.probe("label", **options)) if "were not used" in n]
    assert ("--choose-on val" in note) is ("choose_on" in cures)
    assert "--refit" in note
    for name, value in cures.items():
        assert store.probe("label", **options, **{name: value}).n_unused_validation == 0


def test_a_protocol_that_uses_no_validation_items_proposes_nothing(store):
    """A protocol refuses both options."""
    notes = evaluation_notes(store.probe("label", protocol="mteb"))
    assert "60 items of the split val were not used" in notes


def test_a_comparison_reports_unused_items_and_those_without_a_split(tmp_path, store):
    """As the evaluation of one head does; what it proposes works."""
    note = "60 items of the split val were not used by logistic, prototype; --refit trains on them"
    options = {"heads": ["logistic", "prototype"]}
    assert note in {n.replace("prototype, logistic", "logistic, prototype") for n in notes_of(store, options)}
    assert not any("not used" in n for n in notes_of(store, options | {"refit": True}))
    X, y = clusters(120)
    other = store_of(tmp_path / "s", X, label=y, split=[("train", None, "test")[n % 3] for n in range(120)])
    assert "40 items without a split of their own train, too" in notes_of(other, options)


def notes_of(store, options):
    return comparison_notes(store.compare_heads("label", **options))
