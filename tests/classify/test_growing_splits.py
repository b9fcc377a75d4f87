"""The hashed split of a store that grows, shrinks or is built in another order: what was held out once never trains."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.classify.data.arrival import sides_by_arrival
from embedstore.classify.data.features import Features
from embedstore.classify.data.hash_holdout import hash_holdout_mask, hash_keys, in_hash_fifth
from embedstore.classify.data.item_groups import item_groups
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.data.splits import hash_sides, train_test_split
from embedstore.classify.data.task import Task
from embedstore.classify.evaluation.validation_fit import concatenate_rows
from tests.classify.test_near_duplicates import features
from tests.helpers.clusters import clusters


def held_out(data, seed=0):
    """The ids of the held-out rows, and of the training rows."""
    split = train_test_split(data, seed=seed)
    return set(data.ids[split.held_out].tolist()), set(data.ids[split.train].tolist())


def items(n, kind="classes", seed=0, classes=10):
    """Rows of three kinds of labels, each item in a group of its own with a random number."""
    rng = np.random.default_rng(seed)
    data = features(rng.normal(size=(n, 4)), rng.integers(0, classes, n), groups=rng.integers(0, 2**62, n))
    if kind == "numbers":
        return replace(data, task=Task.REGRESSION, numbers=rng.normal(size=n))
    if kind == "sets":
        y = np.empty(n, object)
        y[:] = [tuple(f"l{k}" for k in range(5) if rng.random() < 0.3) for _ in range(n)]
        return replace(data, y=y, multilabel=True)
    return data


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["classes", "numbers", "sets"]),
    steps=st.lists(st.tuples(st.floats(0.3, 1), st.integers(0, 1000)), min_size=2, max_size=4),
    seed=st.integers(0, 5),
)
def test_an_item_keeps_its_side_whatever_else_the_store_holds(kind, steps, seed):
    """Any two selections of 1,200 items, in any order: an item that is in both is on the same side of both."""
    every = items(1200, kind, seed)
    sides = {}
    for share, draw in steps:
        rows = np.random.default_rng(draw).permutation(1200)[: int(share * 1200)]
        test, train = held_out(every.take(rows), seed=seed)
        for side, ids in (("test", test), ("train", train)):
            for item in ids:
                assert sides.setdefault(item, side) == side


def test_a_fifth_is_held_out():
    """On average over seeds a fifth, of every class, and another seed holds out another fifth."""
    data = items(2000)
    masks = np.array([hash_holdout_mask(data.y, data.groups, seed=seed) for seed in range(60)])
    assert masks.mean() == pytest.approx(0.2, abs=0.005)
    assert all(masks[:, data.y == label].mean() == pytest.approx(0.2, abs=0.02) for label in set(data.y))
    assert 0.15 < masks[1][masks[0]].mean() < 0.25
    other = hash_holdout_mask(data.y, data.groups, seed=0, purpose="val")
    assert 0.15 < other[masks[0]].mean() < 0.25, "another purpose is independent of the test side"


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 60), min_size=2, max_size=12), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_a_class_has_both_sides_and_half_of_its_rows_train(sizes, seed):
    """Whatever the sizes of the groups; also a class of two, and one that is mostly one group."""
    groups = np.repeat(np.arange(sum(map(len, sizes))), np.concatenate(sizes))
    y = np.repeat([f"c{k}" for k in range(len(sizes))], [sum(s) for s in sizes]).astype(object)
    mask = hash_holdout_mask(y, groups, seed=seed)
    for label in set(y):
        assert 0 < mask[y == label].mean() <= 0.5
    assert all(len(set(mask[groups == g].tolist())) == 1 for g in np.unique(groups))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=4, max_size=40), st.integers(0, 100))
def test_labels_and_groups_of_several_classes_leave_training_rows(sets, seed):
    """With several labels per row, in groups of two rows, no label of several groups is without a training row."""
    y = np.empty(len(sets), object)
    y[:] = [tuple(sorted({f"l{k}" for k in labels})) for labels in sets]
    groups = np.arange(len(sets)) // 2
    mask = hash_holdout_mask(y, groups, seed=seed)
    for label in {name for row in y for name in row}:
        rows = np.array([label in row for row in y])
        if len(set(groups[rows].tolist())) > 1:
            assert not mask[rows].all()


def test_a_small_class_says_that_its_item_can_change_sides():
    """One of two items of a class is held out; where the hash holds out none, or both, that is counted."""
    swapped, both = [], []
    for seed in range(200):
        data = features(np.zeros((4, 2)), ["a", "a", "b", "b"], groups=[11, 22, 33, 44])
        split = train_test_split(data, seed=seed)
        own = in_hash_fifth(hash_keys(data.groups, seed=seed))
        assert len(split.held_out) == 2
        swapped.append(split.n_swapped)
        both.append(sum(own[rows].sum() != 1 for rows in (slice(0, 2), slice(2, 4))))
    assert swapped == both
    assert 0 < np.mean(both) < 2


# Copies and groups: the rows of a group follow the first one that came.


def growing(n, rng, copies_of, noise=0.02):
    """Pictures, and then copies of some of them in the order given: rows, and the picture of each row."""
    X = rng.normal(size=(n, 64))
    picture = np.concatenate([np.arange(n), copies_of]).astype(int)
    rows = X[picture]
    rows[n:] += noise * rng.normal(size=(len(copies_of), 64))
    return rows, picture


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 59), min_size=1, max_size=60))
def test_copies_that_come_later_follow_their_picture(seed, copies_of):
    """A copy of a held-out picture is held out, one of a training picture trains; nothing else moves."""
    rng = np.random.default_rng(seed)
    X, picture = growing(60, rng, copies_of)
    numbers = rng.integers(0, 2**62, len(X))
    data = features(X, np.arange(len(X)) % 2 * 0, groups=numbers)
    data = replace(data, task=Task.REGRESSION, numbers=np.arange(len(X), dtype=float))
    before = held_out(NearDuplicateOptions().join(data.take(np.arange(60))))[0]
    after = held_out(NearDuplicateOptions().join(data))[0]
    assert before == {i for i in after if i <= 60}
    assert after == {i + 1 for i in range(len(X)) if picture[i] + 1 in before}


def test_copies_are_held_out_no_more_often_than_other_pictures():
    """Pictures with five copies, that came at once: a fifth of them is held out, not 1 - 0.8 ** 5 of them."""
    shares = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        X, _ = growing(100, rng, np.tile(np.arange(100), 4))
        data = features(X, np.zeros(500), groups=rng.integers(0, 2**62, 500))
        data = replace(data, task=Task.REGRESSION, numbers=np.zeros(500))
        shares.append(hash_sides(NearDuplicateOptions().join(data)).held_out.mean())
    assert np.mean(shares) == pytest.approx(0.2, abs=0.025)


def test_a_link_between_both_sides_holds_out_all_of_them():
    """By hand: rows 0 and 1 are on both sides, row 2 links them; rows 4 and 5 follow row 3."""
    units = np.array([10, 20, 30, 40, 50, 60])
    own = np.array([False, True, False, True, False, False])
    sides = sides_by_arrival(units, np.array([[0, 2], [1, 2], [4, 3], [5, 3]]), own)
    assert sides.held_out.tolist() == [True, True, True, True, True, True]
    assert sides.joined.tolist() == [True, True, True, False, False, False]
    sides = sides_by_arrival(units, np.array([[0, 3], [5, 4]]), own)
    assert sides.held_out.tolist() == [False, True, False, False, False, False], "row 3 follows row 0"
    assert not sides.joined.any()


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 25).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(0, 12), min_size=n, max_size=n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=n),
            st.lists(st.booleans(), min_size=13, max_size=13),
            st.integers(1, n),
        )
    )
)
def test_whatever_links_come_later_no_held_out_row_trains(drawn):
    """Rows, units and links of any kind: the held-out rows of the first m rows are held out among all rows, too."""
    units, links, own, m = np.array(drawn[0]), np.array(drawn[1], int).reshape(-1, 2), np.array(drawn[2]), drawn[3]
    early = links[(links < m).all(axis=1)]
    before = sides_by_arrival(units[:m], early, own[units[:m]]).held_out
    after = sides_by_arrival(units, links, own[units]).held_out
    assert not (before & ~after[:m]).any()
    for a, b in links:
        assert after[a] == after[b]
    assert all(len(set(after[units == u].tolist())) == 1 for u in units)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(-6, 6)), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_groups_do_not_depend_on_the_order_of_the_items(pairs, random):
    """The same numbers in any order, for contents and declared groups that are joined in any way."""
    rows = [(f"c{c}", None if g < 0 else f"g{g}") for c, g in pairs]
    order = random.sample(range(len(rows)), len(rows))
    first = item_groups([c for c, _ in rows], [g for _, g in rows])
    again = item_groups([rows[i][0] for i in order], [rows[i][1] for i in order])
    assert first.groups[order].tolist() == again.groups.tolist()
    assert first.units[order].tolist() == again.units.tolist()


def test_a_selection_and_two_joined_selections_have_all_arrays_of_their_rows():
    """Every array of a row is taken: those that are forgotten keep the length of the whole."""
    data = replace(items(30, "numbers"), exact_groups=np.arange(30), units=np.arange(30), weights=np.ones(30))
    per_row = [f.name for f in fields(Features) if np.shape(getattr(data, f.name))[:1] == (30,)]
    assert {"X", "y", "ids", "groups", "splits", "exact_groups", "units", "numbers", "weights"} == set(per_row)
    part = data.take(np.arange(0, 30, 3))
    both = concatenate_rows(part, data.take(np.arange(1, 30, 3)))
    assert [len(getattr(part, name)) for name in per_row] == [10] * len(per_row)
    assert [len(getattr(both, name)) for name in per_row] == [20] * len(per_row)


# Whole stores.


def sides_of(store):
    """The uris of the held-out items and of the training items of a probe."""
    result = store.probe("label", head="prototype")
    uris = dict(store.sql("SELECT item, uri FROM items WHERE present").rows)
    test = {uris[i] for i in result.held_out_predictions.ids.tolist()}
    return test, set(uris.values()) - test


def test_a_store_that_is_grown_twice_reordered_and_thinned(tmp_path):
    """A held-out item stays held out in every later form of the store; groups and equal contents included."""
    X, y = clusters(600, 4)
    groups = [f"g{n // 3}" if n % 2 else None for n in range(600)]
    table = {"uri": [f"/{n}" for n in range(600)], "label": y, "group": groups}

    def rows(chosen):
        return X[chosen], {name: [values[n] for n in chosen] for name, values in table.items()}

    store = es.create(tmp_path / "a.store")
    store.add_vectors(*rows(range(300)), space="s")
    test, train = sides_of(store)
    assert 30 < len(test) < 90
    for more in (range(300, 450), range(450, 600)):
        store.add_vectors(*rows(more), space="s")
        larger, _ = sides_of(store)
        assert test <= larger
        test = larger
    other = es.create(tmp_path / "b.store")
    order = np.random.default_rng(0).permutation(600).tolist()
    other.add_vectors(*rows(order), space="s")
    assert sides_of(other)[0] == test
    store.delete("item % 3 = 0")
    thinned, train = sides_of(store)
    assert not test & train
    assert thinned <= test
