"""Which labels are wrong, and which items to label next."""

import numpy as np
import pytest

from embedstore.classify.evaluation.label_errors import confident_joint
from embedstore.errors import LabelError
from tests.helpers.clusters import clusters, store_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """300 rows of three overlapping classes."""
    X, y = clusters(300, noise=1.6)
    return store_of(tmp_path_factory.mktemp("suspects") / "s", X, label=y)


@pytest.fixture(scope="module")
def tagged():
    """300 rows: a colour of two and a letter of three each; vectors and lists of tags."""
    X = np.hstack([clusters(300, classes=2, noise=0.8)[0], clusters(300, classes=3, noise=0.8, seed=5)[0]])
    return X, [{("blue", "red")[n % 2], "abc"[n % 3]} for n in range(300)]


def joined(tags):
    return [None if t is None else ",".join(sorted(t)) for t in tags]


def test_flipped_labels_are_found(tmp_path):
    """5% of 600 labels flipped: chance precision is 0.05; the first 30 suspects are right at least 24 times."""
    X, y = clusters(600, noise=1.0)
    flipped = np.random.default_rng(0).choice(600, 30, replace=False)
    labels = list(y)
    for n in flipped:
        labels[n] = f"c{(int(labels[n][1]) + 1) % 3}"
    found = store_of(tmp_path / "s", X, label=labels).label_errors("label")
    first = {s.item - 1 for s in found.issues[:30]}
    hits = len(first & set(flipped.tolist()))
    assert hits >= 24
    assert hits / len(first) >= 3 * 0.05
    assert all(s.suggested_label == y[s.item - 1] for s in found.issues[:10])
    assert 0.02 < found.error_rate < 0.08


def test_the_confident_joint_by_hand():
    """Thresholds are .75 and .6: row 2 is labelled 0 and counts for 1; row 4 counts for nothing."""
    proba = np.array([[0.9, 0.1], [0.95, 0.05], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]], np.float32)
    other, joint = confident_joint(np.array([0, 0, 0, 1, 1]), proba)
    assert other.tolist() == [-1, -1, 1, -1, -1]
    assert joint.tolist() == [[2, 1], [0, 1]]


@pytest.mark.parametrize("head", ["ridge", "knn"])
def test_suspects_of_any_head(store, head):
    """Every row is scored by a head that did not see it."""
    found = store.label_errors("label", head=head)
    assert (found.n_labels, found.head) == (300, head)
    assert all(s.given_label != s.suggested_label for s in found.issues)


def test_suggestions_are_uncertain_and_differ(tmp_path):
    """Unlabelled rows between two classes are suggested before rows inside them, and no two copies of one row."""
    rng = np.random.default_rng(0)
    centres = np.array([[4, 0, 0, 0], [0, 4, 0, 0]], float)
    inside = centres[np.arange(100) % 2] + 0.3 * rng.standard_normal((100, 4))
    between = centres.mean(0) + 0.3 * rng.standard_normal((10, 4))
    copies = between[:1] + 1e-4 * rng.standard_normal((5, 4))
    labels = [f"c{n % 2}" if n < 40 else None for n in range(100)] + [None] * 15
    store = store_of(tmp_path / "s", np.vstack([inside, between, copies]), label=labels)
    found = store.suggest_labels("label", k=5)
    chosen = [s.item - 1 for s in found.suggestions]
    assert found.n_candidates == 75
    assert all(n >= 100 for n in chosen[:3])
    assert sum(n in (100, *range(110, 115)) for n in chosen) <= 1
    assert found.suggestions[0].margin == min(s.margin for s in found.suggestions)


def test_suggest_needs_two_classes(tmp_path):
    """With one class labelled there is nothing to be unsure of."""
    store = store_of(tmp_path / "s", clusters(20)[0], label=["a"] * 5 + [None] * 15)
    with pytest.raises(LabelError, match="two classes"):
        store.suggest_labels("label")


@pytest.mark.parametrize("head", ["logistic", "ridge"])
def test_planted_errors_among_several_labels_are_found(tagged, tmp_path, head):
    """3% of 1,500 yes-or-no answers turned, some labels put in and some taken out: of the first 45 doubts at least
    seven in ten are among them (chance: 0.03), half of them are found, each says which label and which way, and the
    estimated share of wrong answers is near."""
    X, tags = tagged
    rng = np.random.default_rng(0)
    names = ["a", "b", "blue", "c", "red"]
    planted = {(int(n) // 5, names[int(n) % 5]) for n in rng.choice(1500, 45, replace=False)}
    wrong = [t ^ {name for row, name in planted if row == n} for n, t in enumerate(tags)]
    store = store_of(tmp_path / "s", X, tags=joined(wrong))
    found = store.label_errors("tags", separator=",", head=head)
    first = {(s.item - 1, s.given_label or s.suggested_label) for s in found.issues[:45]}
    hits = len(first & planted)
    assert hits / len(first) >= 0.7
    assert hits >= 22
    assert found.n_labels == 5 * sum(bool(t) for t in wrong)
    assert 0.01 < found.error_rate < 0.06
    for s in found.issues[:20]:
        assert (s.given_label is None) != (s.suggested_label is None)
        assert (s.given_label in wrong[s.item - 1]) is (s.suggested_label is None)


def test_a_label_that_one_item_has_is_not_doubted(tagged, tmp_path):
    """No other item can speak for or against it: it is named as not judged, and never suspected."""
    X, tags = tagged
    rare = [t | {"lone"} if n == 7 else t for n, t in enumerate(tags)]
    found = store_of(tmp_path / "s", X, tags=joined(rare)).label_errors("tags", separator=",", head="prototype")
    assert found.skipped_labels == ("lone",)
    assert "lone" not in {s.given_label for s in found.issues} | {s.suggested_label for s in found.issues}


def test_suggestions_among_several_labels_are_where_one_is_unsure(tmp_path):
    """Colour is clear everywhere; ten items lie between two letters: they come first, with a letter in question."""
    rng = np.random.default_rng(0)
    colour = np.where(np.arange(140)[:, None] % 2, [4.0, 0], [0, 4.0])
    letter = np.where(np.arange(140)[:, None] % 3 == 0, [4.0, 0], [0, 4.0])
    letter[130:] = 2.0
    X = np.hstack([colour, letter]) + 0.3 * rng.standard_normal((140, 4))
    tags = [[("blue", "red")[n % 2], "ab"[n % 3 == 0]] if n < 60 else None for n in range(140)]
    found = store_of(tmp_path / "s", X, tags=joined(tags)).suggest_labels("tags", separator=",", k=5)
    assert found.n_candidates == 80
    assert {s.item - 1 for s in found.suggestions[:4]} <= set(range(130, 140))
    assert all(s.predicted in ("a", "b") for s in found.suggestions[:4])
    assert all(s.margin == pytest.approx(abs(2 * s.confidence - 1), abs=1e-6) for s in found.suggestions)


def test_a_label_without_counterexample_makes_nobody_unsure(tmp_path):
    """ "rare" stands on one item of two: its constant one half is no reason to ask."""
    X = np.array([[1.0, 0, 0], [0, 1, 0], [0.9, 0.1, 0], [0.5, 0.5, 0.1]])
    store = store_of(tmp_path / "s", X, tags=["a,rare", "b", None, None])
    found = store.suggest_labels("tags", separator=",", k=2, head="lda")
    assert [s.margin for s in found.suggestions] == [1, 1], "three labels, no counterexample of any for this head"
