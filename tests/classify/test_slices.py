"""Figures by the values of a column: who is in a slice, which slices are ranked, and gaps that hold their level."""

import json
import math
import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.classify.data.slices import MAX_SLICES, SliceValues
from embedstore.classify.evaluation.evaluation import HeldOutPredictions
from embedstore.classify.evaluation.slices import slice_report
from embedstore.classify.metrics import slice_gaps
from embedstore.classify.metrics.shares import accuracy_rows, wilson_interval
from embedstore.cli import main
from embedstore.errors import BadOption, LabelError, UnknownColumn
from embedstore.reports import evaluation_page, slice_text
from tests.helpers.clusters import clusters, store_of
from tools.evaluation_promises import comparisons


def run(*arguments):
    """Run a command, which must succeed."""
    with pytest.raises(SystemExit) as e:
        main([str(a) for a in arguments])
    assert not e.value.code


def held_out(correct, *, groups=None, y=None):
    """Predictions of the classes a and b that are right where ``correct`` says so."""
    n = len(correct)
    labels = np.array(["a"] * n if y is None else y, dtype=object)
    right = (labels == "b").astype(int)
    column = np.where(correct, right, 1 - right)
    proba = np.eye(2, dtype=np.float32)[column]
    groups = np.arange(n) if groups is None else np.asarray(groups)
    return HeldOutPredictions(np.arange(n), labels, proba, ("a", "b"), groups)


def report(values, correct, metric="accuracy", **options):
    """The slices of rows with these values."""
    return slice_report(held_out(np.array(correct, bool), **options), SliceValues("c", dict(enumerate(values))), metric)


def test_figures_by_hand():
    """20 rows of x with 10 right, 20 of y with 18 right: 0.5 and 0.9, the worst first, a gap of 0.4."""
    found = report(["x"] * 20 + ["y"] * 20, [1, 0] * 10 + [1] * 18 + [0] * 2)
    assert [(s.value, s.rows, s.accuracy.value) for s in found.slices] == [
        ("x", 20, 0.5),
        ("y", 20, pytest.approx(0.9)),
    ]
    assert (found.slices[0].accuracy.low, found.slices[0].accuracy.high) == wilson_interval(0.5, 20)
    assert found.worst.value == "x"
    assert (found.largest_gap.high, found.largest_gap.low, found.largest_gap.gap) == ("y", "x", pytest.approx(0.4))


def test_the_interval_of_two_slices_is_newcombes():
    """56 of 70 against 48 of 80: 0.2 [0.0524, 0.3339], the example (a) of Newcombe (1998, table II, method 10)."""
    rows = [
        accuracy_rows(np.arange(n) < hits, np.arange(n) + 100 * k) for k, (hits, n) in enumerate([(56, 70), (48, 80)])
    ]
    (gap,) = slice_gaps.share_gaps(rows)
    assert (gap.difference.value, gap.difference.low, gap.difference.high) == (
        pytest.approx(0.2),
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )


def test_rows_without_a_value_are_a_slice_of_their_own():
    """They are neither dropped nor mixed with a value that is written like the words for it."""
    found = report([None] * 12 + [slice_text.NO_VALUE] * 13, [1] * 25)
    assert {s.value: s.rows for s in found.slices} == {None: 12, slice_text.NO_VALUE: 13}


def test_few_rows_are_named_and_not_ranked():
    """A slice of three wrong rows is not the worst; the note names it with its number of items."""
    found = report(["big"] * 30 + ["other"] * 30 + ["tiny"] * 3, [1] * 29 + [0] + [1] * 25 + [0] * 5 + [0] * 3)
    assert found.worst.value == "other"
    assert [s.value for s in found.small_slices] == ["tiny"]
    assert any("tiny (3)" in note for note in slice_text.slice_notes(found))
    assert {g.low for g in found.gaps} | {g.high for g in found.gaps} == {"big", "other"}


def test_copies_do_not_make_a_slice_large():
    """40 rows of four groups are four draws: the slice is not ranked, and its interval is that of four."""
    found = report(["x"] * 40 + ["y"] * 40, [1] * 80, groups=np.r_[np.arange(40) // 10, np.arange(40) + 100])
    (small,) = found.small_slices
    assert (small.value, small.rows, small.groups) == ("x", 40, 4)
    assert small.accuracy.low < wilson_interval(1.0, 4)[0] + 1e-9
    assert found.largest_gap is None


def test_only_the_most_frequent_values_are_kept_and_the_rest_is_counted():
    """Of 25 values the five rarest are cut, with their rows."""
    values = [f"v{k:02}" for k in range(25) for _ in range(30 - k)]
    found = report(values, [1] * len(values))
    assert len(found.slices) == MAX_SLICES
    assert (found.n_cut_values, found.n_cut_rows) == (5, sum(30 - k for k in range(20, 25)))
    assert any("5 values of c" in note for note in slice_text.slice_notes(found))


def test_recall_ranks_where_it_is_asked_for():
    """x is right on 18 of 18 a and 0 of 2 b: accuracy 0.9, mean recall 0.5; y has both at 0.8."""
    values, y = ["x"] * 20 + ["y"] * 20, ["a"] * 18 + ["b"] * 2 + ["a"] * 10 + ["b"] * 10
    correct = [1] * 18 + [0] * 2 + ([1] * 8 + [0] * 2) * 2
    assert report(values, correct, y=y).worst.value == "y"
    by_recall = report(values, correct, "mean_per_class_recall", y=y)
    assert (by_recall.worst.value, by_recall.worst.mean_recall.value) == ("x", 0.5)
    assert by_recall.largest_gap.gap == pytest.approx(0.3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["x", "y", "z", None]), st.booleans(), st.integers(0, 30)), min_size=1))
def test_slices_share_out_the_rows(rows):
    """Every row is in one slice, accuracies add up to the whole, and each interval and gap holds its own value."""
    values, correct, groups = zip(*rows, strict=True)
    found = report(values, correct, groups=groups)
    assert sum(s.rows for s in found.slices) + found.n_cut_rows == len(rows)
    assert sum(s.rows * s.accuracy.value for s in found.slices) == pytest.approx(sum(correct))
    assert all(s.accuracy.low <= s.accuracy.value <= s.accuracy.high for s in found.slices)
    assert all(-1 <= g.gap_low <= g.gap <= g.gap_high <= 1 and g.gap >= 0 for g in found.gaps)
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("grouping", ["alone", "within", "across"])
@pytest.mark.parametrize(("n_slices", "runs"), [(2, 200), (5, 100), (20, 40)])
def test_gaps_hold_for_all_pairs_together(grouping, n_slices, runs):
    """In at most 5% of test sets any interval misses the true gap, but for three standard errors of the simulation."""
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    for accuracy in (0.6, 0.9, 0.99):
        assert comparisons.false_gaps(n_slices, 50, accuracy, grouping, runs) <= limit, accuracy


@pytest.mark.slow
@pytest.mark.parametrize("grouping", ["alone", "within", "across"])
@pytest.mark.parametrize("size", [10, 50, 200])
@pytest.mark.parametrize("n_slices", [2, 5, 20])
def test_gaps_hold_in_the_long_run(grouping, size, n_slices):
    """Over 1,000 runs an interval misses in 0.06 of test sets or fewer, but for three standard errors."""
    if grouping != "alone" and size < 50:
        pytest.skip("a slice of ten items has fewer than ten groups")
    limit = 0.06 + 3 * math.sqrt(0.06 * 0.94 / 1000)
    for accuracy in (0.6, 0.8, 0.9, 0.99):
        assert comparisons.false_gaps(n_slices, size, accuracy, grouping, 1000) <= limit, accuracy


def test_a_true_gap_is_found():
    """0.95 against 0.70 on 200 items each is shown in nearly every test set."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(50):
        rows = [accuracy_rows(rng.random(200) < p, np.arange(200) + 1000 * k) for k, p in enumerate((0.95, 0.9, 0.7))]
        found += slice_gaps.share_gaps(rows)[0].difference.low > 0
    assert found >= 48


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """300 rows of three classes; a camera that is noisy, a year, a list, and classes as text vectors."""
    X, y = clusters(300, noise=0.5)
    rng = np.random.default_rng(0)
    camera = [("old", "new", None)[n // 3 % 3] for n in range(300)]
    noisy = np.array([c == "old" for c in camera])
    X[noisy] += 3 * rng.standard_normal((int(noisy.sum()), 16)).astype(np.float32)
    return store_of(
        tmp_path_factory.mktemp("slices") / "s",
        X,
        label=y,
        camera=camera,
        year=[1900 + n % 100 for n in range(300)],
        day=[f"2020-{1 + n % 12:02}-{1 + n % 28:02}" for n in range(300)],
        site=[f"s{n}" for n in range(300)],
        tags=[["a", "b"] for _ in range(300)],
    )


def test_every_evaluation_of_a_store_has_slices(store):
    """probe, knn, zero-shot and few-shot report the same column, and the slices hold all of their held-out items."""
    vectors = clusters(3, noise=0.0)[0]
    classes = ["c0", "c1", "c2"]
    found = [
        store.probe("label", by="camera", head="prototype"),
        store.knn("label", by="camera", folds=3),
        store.zero_shot(classes, class_vectors=vectors).evaluate("label", by="camera"),
        store.few_shot("label", classes, class_vectors=vectors, shots=4, by="camera"),
    ]
    for e in found:
        assert sum(s.rows for s in e.slices.slices) == e.n_held_out
        total = sum(s.rows * s.accuracy.value for s in e.slices.slices)
        assert total / e.n_held_out == pytest.approx(e.accuracy)
    assert found[1].slices.worst.value == "old"
    assert found[1].slices.largest_gap.is_shown
    frame = found[1].slices.df()
    assert frame["value"].tolist()[0] == "old"
    assert frame["items"].sum() == 300
    assert "camera" in evaluation_page.evaluation_page(found[1], {})


def test_slices_are_in_the_record_of_the_run(store):
    """The runs table has the column that was asked for and the figures."""
    store.knn("label", by="camera", by_metric="mean_per_class_recall")
    settings_, result = store.sql("SELECT settings, result FROM runs ORDER BY started DESC LIMIT 1").rows[0]
    assert json.loads(settings_)["by"] == "camera"
    assert json.loads(result)["slices"]["metric"] == "mean_per_class_recall"


def test_columns_that_make_no_slices_are_refused(store):
    """An unknown column, a list, numbers with many values, and a metric without a column."""
    with pytest.raises(UnknownColumn, match="did you mean camera"):
        store.probe("label", by="camrea")
    with pytest.raises(LabelError, match="one value per item"):
        store.probe("label", by="tags")
    with pytest.raises(LabelError, match="100 different values"):
        store.probe("label", by="year")
    with pytest.raises(BadOption, match="mean_per_class_recall"):
        store.probe("label", by="camera", by_metric="recall")
    with pytest.raises(BadOption, match="give by"):
        store.knn("label", by_metric="mean_per_class_recall")


@pytest.mark.parametrize("column", ["year", "when"])
def test_the_cure_for_many_numbers_works(store, capsys, column):
    """The command in the message makes a column that can be given, of numbers and of dates."""
    if column == "when":
        store.edit({"when": "day::DATE"}, "true", create_columns=True)
    with pytest.raises(LabelError) as e:
        store.probe("label", by=column, head="prototype")
    command = str(e.value).split("`")[1].replace("STORE", str(store.path))
    run(*shlex.split(command)[1:])
    capsys.readouterr()
    halves = store.knn("label", by=f"high_{column}", folds=2).slices.slices
    assert {s.value for s in halves} == {"true", "false"}


def test_the_terminal_shows_the_slices(store, capsys):
    """A table by camera, the worst value and the largest gap; the JSON document has them, too."""
    run("knn", store.path, "label", "--by", "camera", "--folds", 3)
    out = capsys.readouterr()
    assert "by camera, the lowest accuracy first" in out.out
    assert "worst of camera: old" in out.err
    assert "(no value)" in out.out
    run("knn", store.path, "label", "--by", "camera", "--folds", 3, "--json")
    slices = json.loads(capsys.readouterr().out)["slices"]
    assert {s["value"] for s in slices["slices"]} == {"old", "new", None}
    assert slices["worst"]["value"] == "old"


def test_many_texts_are_cut_not_refused(store):
    """A column of names of their own has no gap, and the rest is counted."""
    found = store.knn("label", by="site", folds=2).slices
    assert (found.n_cut_values, found.gaps) == (280, ())
