"""Splits and folds: rows of one group are never on both sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.classify.data import splits
from embedstore.classify.data.features import load_features
from embedstore.classify.data.folds import stratified_group_folds
from embedstore.errors import LabelError, UnknownColumn
from embedstore.storage.commit import CommitBatch
from embedstore.storage.item_columns import ItemRow
from embedstore.types import ImageRef
from tests.helpers.vector_stores import digest, make, vector


def objects(values):
    """Return values as an array of objects."""
    out = np.empty(len(values), object)
    out[:] = values
    return out


def test_the_items_own_split_is_used():
    """test is held out before val; rows without a split train; the other held-out split is on neither side."""
    y = objects(["a", "b"] * 4)
    groups = np.arange(8)
    d = splits.split_rows(y, groups, objects(["train", "train", None, None, "val", "val", "test", "test"]))
    assert (d.name, d.train.tolist(), d.held_out.tolist(), d.n_leaks) == ("test", [0, 1, 2, 3], [6, 7], 0)
    d = splits.split_rows(y, groups, objects(["train", "train", None, None, "val", "val", "val", "val"]))
    assert (d.name, d.train.tolist(), d.held_out.tolist()) == ("val", [0, 1, 2, 3], [4, 5, 6, 7])


def test_training_rows_of_a_held_out_group_are_left_out_and_counted():
    """Rows 0 and 4 share a group: row 0 does not train."""
    y = objects(["a", "b", "a", "b", "a", "b"])
    d = splits.split_rows(y, np.array([7, 1, 2, 3, 7, 5]), objects(["train"] * 4 + ["val"] * 2))
    assert (d.train.tolist(), d.held_out.tolist(), d.n_leaks) == ([1, 2, 3], [4, 5], 1)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 200), classes=st.integers(2, 5), spread=st.integers(1, 4))
def test_a_hashed_split_is_stratified_stable_and_cuts_no_group(seed, n, classes, spread):
    """Every class is on both sides, at most half of it is held out, and another order of rows changes nothing."""
    rng = np.random.default_rng(seed)
    group_of = np.repeat(np.arange(n), spread)
    names = rng.integers(0, 2**62, n)[group_of]
    y = objects([f"c{g % classes}" for g in group_of])
    d = splits.split_rows(y, names, objects([None] * len(y)))
    assert d.name == "hash"
    assert not set(names[d.train].tolist()) & set(names[d.held_out].tolist())
    assert sorted([*d.train.tolist(), *d.held_out.tolist()]) == list(range(len(y)))
    assert {*y[d.train].tolist()} == {*y[d.held_out].tolist()} == {*y.tolist()}
    assert all((y[d.held_out] == label).sum() <= (y == label).sum() / 2 for label in {*y.tolist()})
    order = rng.permutation(len(y))
    again = splits.split_rows(y[order], names[order], objects([None] * len(y)))
    assert sorted(order[again.held_out].tolist()) == d.held_out.tolist()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(10, 120), classes=st.integers(1, 5), k=st.integers(2, 6))
def test_folds_cut_no_group_and_share_every_class(seed, n, classes, k):
    """Single rows balance a class: folds differ by one row of it, or by what groups of several rows contain."""
    rng = np.random.default_rng(seed)
    codes, groups = rng.integers(0, classes, n), rng.integers(0, 2 * n, n)
    part = stratified_group_folds(codes, groups, k, seed=seed)
    assert all(len(set(part[groups == g].tolist())) == 1 for g in groups)
    alone = np.isin(groups, np.flatnonzero(np.bincount(groups) == 1))
    for c in range(classes):
        held = np.bincount(part[(codes == c) & ~alone], minlength=k).max(initial=0)
        every = np.bincount(part[codes == c], minlength=k)
        assert every.max() <= max(held, every.min() + 1)
    assert part.tolist() == stratified_group_folds(codes, groups, k, seed=seed).tolist()


def test_large_groups_are_assigned_before_small_ones():
    """By hand: groups of 3, 2, 2 and 1 rows of one class in two folds make 4 and 4."""
    part = stratified_group_folds(np.zeros(8, int), np.array([0, 0, 0, 1, 1, 2, 2, 3]), 2, seed=0)
    assert part[0] == part[7] != part[3] == part[5]


@pytest.mark.parametrize(
    ("y", "split", "message"),
    [
        (["a"] * 10, [None] * 10, "one class only"),
        (["a", "b"], ["test", "test"], "training has no labeled rows"),
        (["a", "b", "a"], ["train", "val", "train"], "one class only"),
    ],
)
def test_labels_that_cannot_be_split_are_refused(y, split, message):
    """One class only, and a side without training rows, are errors."""
    with pytest.raises(LabelError, match=message):
        splits.split_rows(objects(y), np.arange(len(y)), objects(split))


def test_a_class_of_one_example_trains_in_every_fold():
    """It is never held out; where another class is in its group it does not train while that group is held out."""
    y, groups = objects(["a", "b"] * 4 + ["rare", "rare", "twin"]), np.r_[np.arange(8), 20, 20, 0]
    folds = splits.cross_validation_splits(y, groups, 4)
    assert sorted(np.concatenate([f.held_out for f in folds]).tolist()) == list(range(8))
    for fold in folds:
        assert {8, 9} <= set(fold.train.tolist())
        assert (10 in fold.train) is (0 in fold.train)


def test_a_class_of_one_example_is_named():
    """Folds never exceed the smallest class, but for classes of one example, which no fold can evaluate."""
    with pytest.raises(LabelError, match=r"1 class has one example only \('rare'\).*label more items"):
        splits.max_folds(objects(["a", "a", "rare"]), np.arange(3))
    assert splits.max_folds(objects(["a", "a", "b", "b", "rare"]), np.arange(5)) == 2
    assert splits.max_folds(objects(["a"] * 9 + ["b"] * 3), np.arange(12)) == 3
    assert splits.max_folds(objects(["a"] * 9 + ["b"] * 9), np.arange(18)) == 5


@pytest.fixture
def storage(tmp_path):
    """Items 1 … 6 in groups g0, g0, g1, none, none, none; item 7 has the content of item 3, in group g2."""
    storage = make(tmp_path / "s")
    groups = ["g0", "g0", "g1", None, None, None, "g2"]
    contents = [1, 2, 3, 4, 5, 6, 3]
    items = [
        ItemRow(ImageRef(f"/{n}", f"/{n}", n, n, "ab"[n % 2] if n != 6 else None, None, g), digest(c))
        for n, (g, c) in enumerate(zip(groups, contents, strict=True), 1)
    ]
    known = CommitBatch(items=items, digests=[digest(c) for c in range(1, 7)], vectors=[vector(c) for c in range(1, 7)])
    with storage.writer("test") as writer:
        writer.commit(known, space=storage.space())
    return storage


def test_features_are_the_labeled_items_in_order(storage):
    """X, y and ids line up; an item without a label is left out and counted; equal contents share a vector."""
    f = load_features(storage, storage.space(), "label")
    assert f.ids.tolist() == [1, 2, 3, 4, 5, 7]
    assert f.y.tolist() == ["b", "a", "b", "a", "b", "b"]
    assert f.n_unlabeled == 1
    assert np.array_equal(f.X, np.array([vector(c) for c in (1, 2, 3, 4, 5, 3)]))


def test_groups_join_through_contents(storage):
    """g0 joins 1 and 2; 3 and 7 share a content, so g1 and g2 are one group; the rest are single."""
    g = load_features(storage, storage.space(), "label").groups.tolist()
    assert g[0] == g[1]
    assert g[2] == g[5]
    assert len(set(g)) == 4


def test_group_numbers_do_not_depend_on_other_items(storage):
    """A group's number depends on its own content only, so a hashed split is stable as the store grows."""
    every = load_features(storage, storage.space(), "label")
    some = load_features(storage, storage.space(), "label", where="item >= 4 and item <= 5")
    assert some.groups.tolist() == every.groups[[3, 4]].tolist()


def test_an_unknown_label_column_is_refused(storage):
    """A column that does not exist and one that is all NULL are errors."""
    with pytest.raises(UnknownColumn, match="did you mean label"):
        load_features(storage, storage.space(), "lable")
    with pytest.raises(LabelError, match="no item has both a 'split'"):
        load_features(storage, storage.space(), "split")
