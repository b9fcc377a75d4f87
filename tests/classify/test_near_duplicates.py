"""Copies of one picture are found among any rows, stay together, and nothing that is not a copy is joined."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.classify.data.copy_groups import group_copies
from embedstore.classify.data.copy_threshold import EQUAL_COSINE, LEAST_COSINE, ONLY_EQUAL, choose_copy_threshold
from embedstore.classify.data.features import Features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.data.sampling import sample_per_class
from embedstore.classify.data.self_join import nearest_pairs
from embedstore.classify.data.splits import train_test_split
from embedstore.classify.data.task import Task
from embedstore.classify.evaluation.compare_heads import SpaceCost, compare_heads
from embedstore.classify.evaluation.compare_spaces import evaluate_in_both_spaces
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.label_errors import label_errors
from embedstore.classify.evaluation.learning_curve import LearningCurveSettings, learning_curve
from embedstore.classify.evaluation.regression.compare import compare_numeric_heads
from embedstore.classify.evaluation.regression.curve import numeric_learning_curve
from embedstore.classify.evaluation.regression.holdout import evaluate_numeric_head
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.errors import LabelError
from embedstore.reports import comparison_text, evaluation_page, regression_page


def features(X, y, splits=None, groups=None, space="numbers") -> Features:
    """Labeled rows without a store."""
    n = len(X)
    return Features(
        X=np.asarray(X, np.float32),
        y=np.array([str(v) for v in y], dtype=object),
        ids=np.arange(1, n + 1),
        groups=np.arange(n) if groups is None else np.asarray(groups, np.int64),
        splits=np.array([None] * n if splits is None else splits, dtype=object),
        n_unlabeled=0,
        n_without_vector=0,
        space=space,
    )


def pictures(n, copies=1, *, dim=32, classes=4, noise=0.1, seed=0):
    """Rows of ``n`` pictures, ``copies`` of each with a little noise, their labels and the number of the picture."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    X = rng.normal(size=(classes, dim))[y] * 0.35 + rng.normal(size=(n, dim))
    rows = np.concatenate([X] + [X + noise * rng.normal(size=X.shape) for _ in range(copies - 1)])
    return rows, np.tile(y, copies), np.tile(np.arange(n), copies)


def partition(groups):
    """The sets of rows of equal group."""
    return {frozenset(np.flatnonzero(groups == g).tolist()) for g in np.unique(groups)}


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(60, 200),
    copies=st.integers(1, 4),
    dim=st.sampled_from([16, 64, 300]),
    seed=st.integers(0, 1000),
)
def test_copies_form_exactly_the_groups_of_the_pictures(n, copies, dim, seed):
    """At most one pair of different pictures is joined, whatever the number of pictures and of copies of each."""
    X, y, picture = pictures(n, copies, dim=dim, seed=seed)
    joined = NearDuplicateOptions().join(features(X, y))
    right = partition(picture) & partition(joined.groups)
    assert len(right) >= n - 2
    assert joined.near_duplicates.n_grouped >= (len(X) - 2 * copies if copies > 1 else 0)


@settings(max_examples=10, deadline=None)
@given(
    n=st.integers(60, 150),
    copies=st.integers(5, 25),
    share=st.sampled_from([0.3, 1.0]),
    noise=st.sampled_from([0.05, 0.1, 0.3]),
    seed=st.integers(0, 1000),
)
def test_many_copies_of_most_pictures_are_found(n, copies, share, noise, seed):
    """Copies that fill the nearest neighbors of every row are joined by picture, and different pictures are not."""
    X, y, picture = pictures(n, copies, dim=48, noise=noise, seed=seed)
    kept = (picture < share * n) | (np.arange(len(X)) < n)
    joined = NearDuplicateOptions().join(features(X[kept], y[kept]))
    assert len(partition(picture[kept]) & partition(joined.groups)) >= n - 2


@pytest.mark.parametrize("copies", [6, 12])
def test_many_copies_are_found_among_vectors_of_a_network(shared_data, copies):
    """Of 200 CLIP vectors with a quarter of their mean size as noise, every copy is joined and no other pair."""
    folder = shared_data / "clip_vectors"
    rows = np.random.default_rng(0).choice(500, 200, replace=False)
    X, y = (np.load(folder / f"cifar500_{name}.npy")[rows] for name in ("image_vectors", "labels"))
    noise = 0.25 * np.abs(X).mean()
    drawn = [X + noise * np.random.default_rng(c).normal(size=X.shape) for c in range(copies)]
    joined = NearDuplicateOptions().join(features(np.concatenate(drawn), np.tile(y, copies)))
    assert partition(joined.groups) == partition(np.tile(np.arange(200), copies))


@settings(max_examples=15, deadline=None)
@given(
    classes=st.integers(5, 60),
    parts=st.integers(1, 4),
    rows=st.integers(6, 25),
    noise=st.sampled_from([0.05, 0.1, 0.2]),
    seed=st.integers(0, 1000),
)
def test_classes_that_a_network_has_pulled_together_are_not_copies(classes, parts, rows, noise, seed):
    """Rows of a class, or of a few parts of it, that are far nearer to each other than to others are not joined."""
    rng = np.random.default_rng(seed)
    part = np.repeat(np.arange(classes * parts), rows)
    X = rng.normal(size=(classes * parts, 32))[part] + noise * rng.normal(size=(len(part), 32))
    found = NearDuplicateOptions().join(features(X, part % classes)).near_duplicates
    assert found.n_grouped <= 0.02 * len(part) + 4


def test_many_copies_of_rows_with_numbers_are_found():
    """Rows whose label is a number have no classes: a gap in their distances is one of copies."""
    X, _, picture = pictures(80, 8, dim=48)
    numbers = np.random.default_rng(0).normal(size=80)[picture]
    data = replace(features(X, numbers), numbers=numbers, task=Task.REGRESSION)
    assert partition(NearDuplicateOptions().join(data).groups) == partition(picture)


def test_many_copies_of_rows_with_several_labels_are_found():
    """A set of labels is a class here; rows without a label in common are none."""
    X, y, picture = pictures(80, 8, dim=48)
    labels = np.empty(len(X), dtype=object)
    labels[:] = [(f"c{v}",) if p % 2 else (f"c{v}", "odd") for v, p in zip(y, picture, strict=True)]
    data = replace(features(X, y), y=labels, multilabel=True)
    assert partition(NearDuplicateOptions().join(data).groups) == partition(picture)


def test_a_small_tight_class_is_not_taken_for_copies():
    """Twenty images of a class that are all much nearer to each other than to the other class stay twenty draws."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(2, 16)), 20, axis=0) + 0.08 * rng.normal(size=(40, 16))
    found = NearDuplicateOptions().join(features(X, ["a", "b"] * 20)).near_duplicates
    assert found.n_grouped <= 2


@pytest.mark.parametrize("dim", [6, 16, 64])
def test_few_pairs_of_rows_without_copies_are_joined(dim):
    """In 40 stores of 150 rows without copies, about 0.1 pairs each are expected; 15 in all would be 0.4."""
    found = [
        NearDuplicateOptions().join(features(*pictures(150, dim=dim, seed=s)[:2])).near_duplicates for s in range(40)
    ]
    assert sum(f.n_groups for f in found) <= 15


@pytest.mark.slow
@pytest.mark.parametrize("dim", [6, 16, 64])
def test_the_expected_number_of_wrong_pairs_holds(dim):
    """In 400 stores of 300 rows without copies, at most 0.2 pairs per store are joined."""
    found = [
        NearDuplicateOptions().join(features(*pictures(300, dim=dim, seed=s)[:2])).near_duplicates for s in range(400)
    ]
    assert sum(f.n_groups for f in found) / 400 <= 0.2


def test_a_tight_class_is_not_a_group_of_copies():
    """A class of near rows, a tenth of all, is not joined: neither as one chain nor in parts."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 1500)
    X = rng.normal(size=(10, 32))[y] + rng.normal(size=(1500, 32)) * np.where(y == 0, 0.1, 0.7)[:, None]
    assert NearDuplicateOptions().join(features(X, y)).near_duplicates.n_grouped == 0


def test_a_chain_ends_where_its_ends_are_no_copies():
    """Of 90 rows along a half circle, each near the next, no group reaches further than its threshold allows."""
    angle = np.linspace(0, np.pi, 90)
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    groups = group_copies(X, nearest_pairs(X, 4), 0.99)
    sizes = np.bincount(groups)
    assert sizes.max() < 15
    for g in np.flatnonzero(sizes > 1):
        rows = X[groups == g]
        n = len(rows)
        assert ((rows @ rows.T).sum() - n) / (n * (n - 1)) >= 1 - 2 * (1 - 0.99) - 1e-5


@pytest.mark.parametrize(
    "X",
    [np.zeros((50, 4)), np.ones((50, 4)), np.eye(50), np.zeros((1, 4)), np.ones((2, 1)), np.full((30, 3), 1e-30)],
    ids=["zeros", "equal", "orthogonal", "one row", "two equal rows", "tiny"],
)
def test_degenerate_rows_have_a_threshold(X):
    """Whatever the rows are, the threshold lies between 0.7 and that of equal vectors, or only equal ones count."""
    threshold = choose_copy_threshold(X.astype(np.float32))
    assert LEAST_COSINE <= threshold <= EQUAL_COSINE or threshold == ONLY_EQUAL


def test_a_class_of_nothing_but_copies_stays_divisible():
    """A class of two copies of one picture is named and not joined, so that the other classes can be evaluated."""
    X, y, _ = pictures(100, dim=32)
    X = np.concatenate([X, X[:1] + 5, X[:1] + 5.001])
    joined = NearDuplicateOptions().join(features(X, [*y, "twin", "twin"]))
    assert joined.near_duplicates.separated_classes == ("twin",)
    assert joined.groups[-1] != joined.groups[-2]
    assert evaluate_head("prototype", joined).n_held_out > 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), copies=st.integers(2, 4))
def test_no_split_or_fold_separates_copies(seed, copies):
    """A drawn split and drawn folds hold all copies of a picture on one side."""
    X, y, picture = pictures(80, copies, seed=seed % 50)
    data = NearDuplicateOptions().join(features(X, y))
    split = train_test_split(data, seed=seed)
    assert not set(picture[split.train]) & set(picture[split.held_out])
    e = evaluate_head("prototype", data, EvaluationSettings(folds=3, seed=seed))
    assert e.near_duplicates.count == 0
    assert e.leak is None


def test_a_given_split_is_kept_and_its_leaks_are_told_from_the_test_side():
    """Of 100 held-out rows 40 are copies of training rows: counted, listed, scored apart, left out on request."""
    X, y, _ = pictures(300, dim=32)
    rng = np.random.default_rng(1)
    X[200:240] = X[:40] + 0.05 * rng.normal(size=(40, 32))
    y[200:240] = y[:40]
    data = features(X, y, ["train"] * 200 + ["test"] * 100)
    kept = evaluate_head("knn", data, k=1)
    assert (kept.n_train, kept.near_duplicates.count) == (200, 40)
    assert {(p.train_item, p.held_out_item) for p in kept.near_duplicates.pairs} == {(i, i + 200) for i in range(1, 41)}
    leak = kept.leak
    assert (leak.n_near, leak.n_other, leak.score_near, leak.dropped) == (40, 60, 1.0, False)
    assert leak.score_other < 0.9
    assert kept.accuracy == pytest.approx((40 * leak.score_near + 60 * leak.score_other) / 100)
    assert kept.to_json()["leak"]["n_near"] == 40
    dropped = evaluate_head("knn", data, EvaluationSettings(near_duplicates="drop"), k=1)
    assert (dropped.n_train, dropped.leak.dropped) == (160, True)
    assert dropped.leak.score_near < 1
    ignored = evaluate_head("knn", data, EvaluationSettings(near_duplicates="ignore"), k=1)
    assert (ignored.near_duplicates, ignored.leak) == (None, None)


def test_calibration_rows_are_no_copies_of_either_side():
    """Val rows that are copies of test rows or of training rows do not calibrate."""
    X, y, _ = pictures(400, dim=32)
    X[200:240], y[200:240] = X[300:340] + 0.01, y[300:340]
    X[240:250], y[240:250] = X[:10] + 0.01, y[:10]
    data = features(X, y, ["train"] * 200 + ["val"] * 100 + ["test"] * 100)
    e = evaluate_head("prototype", data, EvaluationSettings(calibrate="temperature"))
    assert e.calibration.rows == 50
    ignored = evaluate_head("prototype", data, EvaluationSettings(calibrate="temperature", near_duplicates="ignore"))
    assert ignored.calibration.rows == 100


def test_copies_inside_training_change_nothing_that_is_promised():
    """With five copies of 80 pictures, C, log-loss and the coverage of sets are as if the pictures were declared."""
    X, y, _ = pictures(480, dim=32)
    X = np.concatenate([X[:80] + 0.1 * np.random.default_rng(i).normal(size=(80, 32)) for i in range(5)] + [X[80:]])
    y = np.concatenate([np.tile(y[:80], 5), y[80:]])
    declared = np.concatenate([np.tile(np.arange(80), 5), np.arange(100, 500)])
    splits = ["train"] * 400 + ["test"] * 400
    settings_ = EvaluationSettings(conformal_alpha=0.1)
    found = evaluate_head("logistic", features(X, y, splits), settings_)
    known = evaluate_head("logistic", features(X, y, splits, groups=declared), settings_)
    hidden = evaluate_head(
        "logistic", features(X, y, splits), EvaluationSettings(conformal_alpha=0.1, near_duplicates="ignore")
    )
    assert found.hyperparameters["C"] == known.hyperparameters["C"]
    assert found.conformal.coverage == pytest.approx(known.conformal.coverage, abs=0.02)
    assert found.conformal.coverage > 0.85
    assert hidden.conformal.coverage < 0.7
    assert found.report["log_loss"] < hidden.report["log_loss"] / 2


def test_a_wrong_label_with_a_copy_is_found():
    """Wrong labels whose copies carry the same wrong label are found as often as without copies."""
    X, y, _ = pictures(300, dim=16, classes=3, seed=3)
    X += 3 * np.eye(3, 16)[y]
    rng = np.random.default_rng(0)
    wrong = rng.choice(300, 30, replace=False)
    y[wrong] = (y[wrong] + 1) % 3
    alone = {i.item - 1 for i in label_errors(features(X, y)).issues} & set(wrong.tolist())
    both = np.concatenate([X, X[wrong] + 0.01 * rng.normal(size=(30, 16))]), np.concatenate([y, y[wrong]])
    with_copies = {i.item - 1 for i in label_errors(features(*both)).issues} & set(wrong.tolist())
    assert len(alone) > 20
    assert len(with_copies) >= len(alone) - 2


def test_labels_are_counted_by_picture():
    """Eight labels per class are eight pictures, and budgets end at the number of pictures."""
    X, y, picture = pictures(60, 4, classes=3)
    data = NearDuplicateOptions().join(features(X, y))
    rows = sample_per_class(data, np.arange(len(data)), 8, seed=0)
    assert len(np.unique(picture[rows])) == len(rows) == 24
    curve = learning_curve("prototype", data, LearningCurveSettings((2, 50), repeats=2))
    assert [p.labels_per_class for p in curve.points] == [2, None]
    assert "training items" in curve.skipped_budgets[0][1]


def test_a_wrong_policy_is_refused():
    """A name or a cosine that does not exist is one line with the possible ones."""
    with pytest.raises(LabelError, match="near_duplicates must be group, ignore or drop, not 'grup'"):
        NearDuplicateOptions("grup")
    with pytest.raises(LabelError, match=r"near_duplicate_threshold must be a cosine in \[0, 1\], not 2"):
        EvaluationSettings(near_duplicate_threshold=2)


def test_leaks_of_every_classifier_come_before_the_figures(tmp_path):
    """In a comparison, in text, JSON and HTML, the copies across the split are the first line; all train alike."""
    X, y, _ = pictures(300, dim=32)
    X[200:240], y[200:240] = X[:40] + 0.01, y[:40]
    other = X @ np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0]
    splits = ["train"] * 200 + ["test"] * 100
    cost = SpaceCost(32, 128, None)
    spaces = [(features(X, y, splits, space="a"), cost), (features(other, y, splits, space="b"), cost)]
    c = compare_heads(spaces, heads=("prototype", "knn"))
    line = comparison_text.comparison_leak_headline(c)
    assert line.startswith("40 of 100 held-out items have a near copy in training: accuracy on them / on the others: ")
    assert all(f"{r.evaluation.head} in {r.evaluation.space} " in line for r in c.results)
    assert [r.to_json()["leak"]["n_near"] for r in c.results] == [40] * 4
    page = evaluation_page.comparison_page(c)
    assert page.index("40 of 100 held-out") < page.index("<h1>")
    dropped = compare_heads(spaces, heads=("prototype", "knn"), settings=EvaluationSettings(near_duplicates="drop"))
    assert {r.evaluation.n_train for r in dropped.results} == {160}
    assert (
        comparison_text.comparison_leak_headline(
            compare_heads(spaces, heads=("knn",), settings=EvaluationSettings(near_duplicates="ignore"))
        )
        is None
    )


def test_leaks_come_before_the_figures_of_numbers_and_curves():
    """A head of numbers and a learning curve count the copies, too, and score them apart, before title and table."""
    X, y, _ = pictures(300, dim=32)
    X[200:240], y[200:240] = X[:40] + 0.01, y[:40]
    ages = X[:, 0] * 10 + 50 + np.random.default_rng(0).normal(size=300) * 20
    ages[200:240] = ages[:40]
    splits = ["train"] * 200 + ["test"] * 100
    curve = learning_curve("knn", features(X, y, splits), LearningCurveSettings((2,), repeats=2), k=1)
    assert (curve.leak.n_near, curve.leak.n_other, curve.leak.score_near) == (40, 60, 1.0)
    assert curve.points[-1].mean == pytest.approx((40 + 60 * curve.leak.score_other) / 100)
    assert curve.to_json()["leak"]["accuracy_near"] == 1.0
    sentence = "40 of 100 held-out items have a near copy in training: accuracy with all labels 1.000 on them, "
    page = evaluation_page.learning_curve_page(curve)
    assert page.index(sentence) < page.index("<h1>")
    numbers = replace(features(X, y, splits), y=ages.astype(object), numbers=ages, task=Task.REGRESSION)
    e = evaluate_numeric_head("knn", numbers, EvaluationSettings(), k=1)
    assert (e.leak.n_near, e.leak.n_other, e.leak.score_near) == (40, 60, 0.0)
    assert e.scores["mae"].value == pytest.approx(0.6 * e.leak.score_other)
    assert e.to_json()["leak"]["mae_near"] == 0
    page = regression_page.regression_page(e, {})
    assert page.index("mean absolute error 0 on them, ") < page.index("<h1>")
    last = numeric_learning_curve("knn", numbers, LearningCurveSettings((20,), repeats=2), k=1)
    assert last.leak == e.leak
    spaces = [(numbers, SpaceCost(32, 128, None))]
    c = compare_numeric_heads(spaces, heads=("knn", "ridge"), settings=EvaluationSettings())
    page = regression_page.regression_comparison_page(c)
    assert page.index("mean absolute error on them / on the others: ") < page.index("<h1>")


def test_a_copy_in_one_space_is_a_copy_in_every_space():
    """A pair that only one of two spaces shows is joined in both, so that both train on the same rows."""
    X, y, _ = pictures(200, dim=32)
    other = pictures(200, dim=32, seed=9)[0]
    X[150:160] = X[:10] + 0.01
    one, two = NearDuplicateOptions().join_shared([features(X, y, space="a"), features(other, y, space="b")])
    assert (one.groups == two.groups).all()
    assert one.near_duplicates.n_groups == 10
    assert set(one.near_duplicates.thresholds) == {"a", "b"}


def test_a_copy_in_one_space_changes_the_split_of_both():
    """Two spaces are compared on the same drawn split, though only one of them shows that items are copies."""
    X, y, _ = pictures(200, dim=32)
    X[150:190], y[150:190] = X[:40] + 0.01, y[:40]
    other = pictures(200, dim=32, seed=9)[0]
    (pair,) = evaluate_in_both_spaces(features(X, y, space="a"), features(other, y, space="b"), heads=["prototype"])
    assert set(pair.baseline.held_out_predictions.ids) == set(pair.candidate.held_out_predictions.ids)
    assert pair.baseline.n_train == pair.candidate.n_train
    assert pair.baseline.near_duplicates.found.n_groups == pair.candidate.near_duplicates.found.n_groups == 40


@pytest.mark.parametrize("labels_per_class", [(), (20,)])
def test_a_learning_curve_selects_c_without_copies(labels_per_class):
    """The last point of a curve is the figure of a probe: its folds hold the copies of a picture together, too."""
    X, y, _ = pictures(480, dim=32)
    X = np.concatenate([X[:80] + 0.1 * np.random.default_rng(i).normal(size=(80, 32)) for i in range(5)] + [X[80:]])
    y = np.concatenate([np.tile(y[:80], 5), y[80:]])
    data = features(X, y, ["train"] * 400 + ["test"] * 400)
    curve = learning_curve("logistic", data, LearningCurveSettings(labels_per_class, repeats=1))
    assert curve.points[-1].mean == evaluate_head("logistic", data).accuracy
    hidden = evaluate_head("logistic", data, EvaluationSettings(near_duplicates="ignore"))
    assert curve.points[-1].mean != hidden.accuracy
