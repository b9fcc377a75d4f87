"""Wrong labels are found, and suggestions of what to label next are uncertain and diverse."""

import numpy as np
import pytest

import embedstore as es
from embedstore.classify.evaluation.label_quality import (
    LabelFilter,
    LabelScore,
    confident_joint,
    flag_labels,
    label_scores,
)
from embedstore.errors import LabelError
from tests.helpers.clusters import clusters, store_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """300 rows of three overlapping classes."""
    X, y = clusters(300, noise=1.6)
    return store_of(tmp_path_factory.mktemp("label_errors") / "s", X, label=y)


@pytest.fixture(scope="module")
def tagged():
    """300 rows with one of two colors and one of three letters each: vectors and sets of tags."""
    X = np.hstack([clusters(300, classes=2, noise=0.8)[0], clusters(300, classes=3, noise=0.8, seed=5)[0]])
    return X, [{("blue", "red")[n % 2], "abc"[n % 3]} for n in range(300)]


def _join(tags):
    return [None if t is None else ",".join(sorted(t)) for t in tags]


def test_flipped_labels_are_found(tmp_path):
    """With 5% of 600 labels flipped at least 24 of the first 30 issues are flipped labels (by chance 1.5)."""
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
    assert 0.05 <= found.error_rate_interval[1] < 0.2


def test_confident_joint_by_hand():
    """With thresholds .75 and .6, row 2 is labeled 0 and confident for 1; row 4 is confident for no class."""
    proba = np.array([[0.9, 0.1], [0.95, 0.05], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]], np.float32)
    other, joint = confident_joint(np.array([0, 0, 0, 1, 1]), proba)
    assert other.tolist() == [-1, -1, 1, -1, -1]
    assert joint.tolist() == [[2, 1], [0, 1]]


def noisy_probabilities(seed, n=600, k=4, share=0.1):
    """Probabilities, given labels of which a share is wrong, and which are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 2.5 * np.eye(k)[true]
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = rng.random(n) < share
    return proba, np.where(wrong, (true + rng.integers(1, k, n)) % k, true), wrong


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("score", [s for s in LabelScore if s is not LabelScore.NEIGHBORS])
def test_scores_equal_those_of_cleanlab(seed, score):
    """Every score ranks the labels as the reference does, and two of them are equal to it."""
    rank = pytest.importorskip("cleanlab.rank")
    proba, given, _ = noisy_probabilities(seed)
    method = "confidence_weighted_entropy" if score is LabelScore.WEIGHTED_ENTROPY else score.value
    reference = rank.get_label_quality_scores(given, proba, method=method, adjust_pred_probs=False)
    assert label_scores(given, proba, score) == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", list(LabelFilter))
def test_flags_agree_with_cleanlab(seed, by):
    """At most 3% of the flagged labels differ from the reference, none by confident learning."""
    cleanlab = pytest.importorskip("cleanlab.filter")
    proba, given, _ = noisy_probabilities(seed, share=0.05 * (seed + 1))
    reference = cleanlab.find_label_issues(given, proba, filter_by=by.value, n_jobs=1)
    flagged = flag_labels(given, proba, by)
    differ = (flagged ^ reference).sum()
    assert differ <= (0 if by is LabelFilter.CONFIDENT_LEARNING else 0.03 * reference.sum() + 1)


@pytest.mark.parametrize("by", list(LabelFilter))
@pytest.mark.parametrize("k", [2, 3, 7])
def test_degenerate_probabilities_flag_without_error(by, k):
    """One class only, ties and probabilities of 0 and 1 give scores in [0, 1] and no flag of the best label."""
    for proba in (np.eye(k)[np.arange(20) % k], np.full((20, k), 1 / k)):
        for given in (np.zeros(20, int), np.arange(20) % k):
            flagged = flag_labels(given, proba, by)
            assert not (flagged & (proba.argmax(1) == given)).any()
            for score in LabelScore:
                values = label_scores(given, proba, score)
                assert ((values >= 0) & (values <= 1)).all()


def test_all_labels_are_ranked_and_the_flagged_ones_marked(store):
    """The ranking has every item once, ascending by score; the issues are its flagged labels in order."""
    found = store.label_errors("label")
    top = found.ranking.top()
    assert sorted(i.item for i in top) == list(range(1, 301))
    assert [i.score for i in top] == sorted(i.score for i in top)
    assert [i for i in top if i.flagged] == list(found.issues)
    assert found.ranking.top(7) == top[:7]
    with pytest.raises(LabelError, match="ranked_by must be self_confidence"):
        store.label_errors("label", ranked_by="margin")


def test_confirmed_labels_are_not_listed_until_they_change(tmp_path):
    """A confirmed item leaves the ranking, also in another process, and returns when its label is edited."""
    X, y = clusters(120, noise=1.6)
    store = store_of(tmp_path / "s", X, label=y)
    first = store.label_errors("label").ranking.top(3)
    assert store.confirm_labels([first[0].item, first[1].item], "label").items == 2
    again = es.open(tmp_path / "s").label_errors("LABEL")
    assert again.n_confirmed == 2
    assert not {first[0].item, first[1].item} & {i.item for i in again.ranking.top()}
    other = "c0" if first[0].given_label != "c0" else "c1"
    store.edit({"label": f"'{other}'"}, where=f"item = {first[0].item}")
    changed = store.label_errors("label")
    assert changed.n_confirmed == 1
    assert first[0].item in {i.item for i in changed.ranking.top()}
    with pytest.raises(LabelError, match="items 9999 lack a 'label'"):
        store.confirm_labels([9999], "label")


@pytest.mark.parametrize("head", ["ridge", "knn"])
def test_label_errors_of_any_head(store, head):
    """Every row is checked, and the suggested label differs from the given one."""
    found = store.label_errors("label", head=head)
    assert (found.n_labels, found.head) == (300, head)
    assert all(s.given_label != s.suggested_label for s in found.issues)


def test_suggestions_are_uncertain_and_diverse(tmp_path):
    """Rows between two classes come before rows inside a class, and only one of several copies is suggested."""
    rng = np.random.default_rng(0)
    centers = np.array([[4, 0, 0, 0], [0, 4, 0, 0]], float)
    inside = centers[np.arange(100) % 2] + 0.3 * rng.standard_normal((100, 4))
    between = centers.mean(0) + 0.3 * rng.standard_normal((10, 4))
    copies = between[:1] + 1e-4 * rng.standard_normal((5, 4))
    labels = [f"c{n % 2}" if n < 40 else None for n in range(100)] + [None] * 15
    store = store_of(tmp_path / "s", np.vstack([inside, between, copies]), label=labels)
    found = store.suggest_labels("label", k=5)
    chosen = [s.item - 1 for s in found.suggestions]
    assert found.n_candidates == 75
    assert all(n >= 100 for n in chosen[:3])
    assert sum(n in (100, *range(110, 115)) for n in chosen) <= 1
    assert found.suggestions[0].margin == min(s.margin for s in found.suggestions)


@pytest.mark.parametrize("head", ["logistic", "ridge"])
def test_flipped_labels_of_multilabel_items_are_found(tagged, tmp_path, head):
    """3% of 1,500 yes-or-no labels are flipped: at least seven in ten of the first 45 issues are flipped labels (by
    chance 3%), about half of the flipped labels are among them, each issue names the label and the direction, and the
    limit of the share of errors is not below 3%."""
    X, tags = tagged
    rng = np.random.default_rng(0)
    names = ["a", "b", "blue", "c", "red"]
    planted = {(int(n) // 5, names[int(n) % 5]) for n in rng.choice(1500, 45, replace=False)}
    wrong = [t ^ {name for row, name in planted if row == n} for n, t in enumerate(tags)]
    store = store_of(tmp_path / "s", X, tags=_join(wrong))
    found = store.label_errors("tags", separator=",", head=head)
    first = {(s.item - 1, s.given_label or s.suggested_label) for s in found.issues[:45]}
    hits = len(first & planted)
    assert hits / len(first) >= 0.7
    assert hits >= 22
    assert found.n_labels == 5 * sum(bool(t) for t in wrong)
    assert 0.03 <= found.error_rate_interval[1] < 0.2
    for s in found.issues[:20]:
        assert (s.given_label is None) != (s.suggested_label is None)
        assert (s.given_label in wrong[s.item - 1]) is (s.suggested_label is None)


def test_a_label_of_one_item_is_skipped(tagged, tmp_path):
    """It cannot be cross-validated: the report lists it as skipped and has no issue with it."""
    X, tags = tagged
    rare = [t | {"lone"} if n == 7 else t for n, t in enumerate(tags)]
    found = store_of(tmp_path / "s", X, tags=_join(rare)).label_errors("tags", separator=",", head="prototype")
    assert found.skipped_labels == ("lone",)
    assert "lone" not in {s.given_label for s in found.issues} | {s.suggested_label for s in found.issues}


def test_multilabel_suggestions_are_where_one_label_is_uncertain(tmp_path):
    """The color of all items is clear; ten items between two letters come first, with a letter as the label."""
    rng = np.random.default_rng(0)
    color = np.where(np.arange(140)[:, None] % 2, [4.0, 0], [0, 4.0])
    letter = np.where(np.arange(140)[:, None] % 3 == 0, [4.0, 0], [0, 4.0])
    letter[130:] = 2.0
    # twelve more numbers of noise: in four numbers alone, the items of one color and letter look like copies
    X = np.hstack([color, letter, np.zeros((140, 12))]) + 0.3 * rng.standard_normal((140, 16))
    tags = [[("blue", "red")[n % 2], "ab"[n % 3 == 0]] if n < 60 else None for n in range(140)]
    found = store_of(tmp_path / "s", X, tags=_join(tags)).suggest_labels("tags", separator=",", k=5)
    assert found.n_candidates == 80
    assert {s.item - 1 for s in found.suggestions[:4]} <= set(range(130, 140))
    assert all(s.predicted in ("a", "b") for s in found.suggestions[:4])
    assert all(s.margin == pytest.approx(abs(2 * s.confidence - 1), abs=1e-6) for s in found.suggestions)


def test_a_constant_label_does_not_make_an_item_uncertain(tmp_path):
    """ "rare" has a constant probability of one half, so that its margin counts as 1."""
    X = np.array([[1.0, 0, 0], [0, 1, 0], [0.9, 0.1, 0], [0.5, 0.5, 0.1]])
    store = store_of(tmp_path / "s", X, tags=["a,rare", "b", None, None])
    found = store.suggest_labels("tags", separator=",", k=2, head="lda")
    assert [s.margin for s in found.suggestions] == [1, 1], "three labels, no counterexample of any for this head"


@pytest.mark.parametrize("separator", [None, ","])
def test_neighbors_see_what_the_head_cannot(tmp_path, separator):
    """Four corners, of which opposite ones are one class: no line separates them. A tenth of the labels is wrong."""
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 2, (300, 2))
    X = np.hstack([6.0 * corner - 3, np.zeros((300, 4))]) + rng.standard_normal((300, 6))
    wrong = set(rng.choice(300, 30, replace=False).tolist())
    labels = [("odd", "even")[int((a == b) != (n in wrong))] for n, (a, b) in enumerate(corner)]
    store = store_of(tmp_path / "s", X, label=labels)
    hits = {}
    for score in ("self_confidence", "neighbors"):
        found = store.label_errors("label", ranked_by=score, separator=separator, near_duplicates="ignore")
        items = dict.fromkeys(int(i) - 1 for i in found.ranking.items)  # an item of several labels is ranked for each
        hits[score] = len(set(list(items)[:30]) & wrong)
    assert hits["self_confidence"] < 10
    assert hits["neighbors"] > 20
