"""Sets of items that nobody plans for: each verb gives figures with intervals, or one line that says what to do."""

import json
import math
import warnings

import numpy as np
import pytest

from embedstore.classify.evaluation.curve_interval import HeldOutScore, mean_interval
from embedstore.classify.metrics.intervals import metric_interval
from embedstore.classify.metrics.regression import ordinal_report
from embedstore.classify.metrics.resampling import studentized_interval
from embedstore.classify.retrieval.metrics import mean_estimate
from embedstore.errors import EmbedstoreError, LabelError
from embedstore.reports.comparison_text import comparison_notes
from embedstore.reports.evaluation_text import all_pairs, evaluation_notes
from tests.helpers.clusters import add, clusters, store_of

AB = ["a", "b"]
SETS = {
    "one class": {"label": ["a"] * 20},
    "one item": {"label": ["a"]},
    "two items": {"label": AB},
    "four items": {"label": AB * 2},
    "no label": {"label": [None] * 20},
    "labels absent or empty": {"label": [None, "a", "", "b"] * 10},
    "numbers absent or NaN": {"label": [None, 1.5, math.nan, 2.5, 3.5] * 10},
    "two levels": {"label": [1, 2] * 20},
    "numbers": {"label": [n + 0.5 for n in range(40)]},
    "one number": {"label": [1.5] * 20},
    "a number without end": {"label": [1.5e300, *(n + 0.5 for n in range(40))]},
    "a class in test only": {"label": [*AB * 10, *"zzab"], "split": ["train"] * 20 + ["test"] * 4},
    "test has only an unknown class": {"label": [*AB * 10, *"zzzz"], "split": ["train"] * 20 + ["test"] * 4},
    "test has one class": {"label": [*AB * 10, *"aaaa"], "split": ["train"] * 20 + ["test"] * 4},
    "one test item": {"label": [*AB * 10, "a"], "split": ["train"] * 20 + ["test"]},
    "training has one class": {"label": ["a"] * 20 + AB * 5, "split": ["train"] * 20 + ["test"] * 10},
    "all test": {"label": AB * 10, "split": ["test"] * 20},
    "one group": {"label": AB * 10, "group": ["g"] * 20},
    "a group is a class": {"label": AB * 10, "group": AB * 10},
    "many small classes": {"label": [f"c{n % 30}" for n in range(90)]},
    "pairs": {"label": [f"c{n // 2}" for n in range(80)], "camera": list(range(80))},
    "copies are a class": {"label": [*AB * 10, "z", "z"], "group": [*map(str, range(20)), "z", "z"]},
    "a class of two": {"label": [*AB * 10, "z", "z"]},
    "all labels on all items": {"label": ["a|b"] * 20, "separator": "|"},
    "rare labels": {"label": ["a|b", "a", "b"] * 7 + ["z"], "separator": "|"},
    "labels in test only": {"label": ["a", "b"] * 10 + ["z|a", "b"] * 2, "split": ["train"] * 20 + ["test"] * 4,
                            "separator": "|"},
}  # fmt: skip
VERBS = {
    "probe": lambda s, o: s.probe(calibrate="temperature", **o),
    "abstain": lambda s, o: s.probe(abstain_precision=0.9, conformal_alpha=0.1, **o),
    "knn": lambda s, o: s.knn(by="label", **o),
    "protocol": lambda s, o: s.knn(protocol="dinov2", **o),
    "compare_heads": lambda s, o: s.compare_heads(heads=["logistic", "knn"], **o),
    "compare_spaces": lambda s, o: s.compare_spaces("label", "half", "numbers"),
    "learning_curve": lambda s, o: s.learning_curve(head="prototype", repeats=2, **o),
    "label_errors": lambda s, o: s.label_errors(**o),
    "retrieval": lambda s, o: s.retrieval("label", **o),
    "advise": lambda s, o: s.advise(space="numbers"),
    "shift": lambda s, o: s.shift(),
    "suggest_labels": lambda s, o: s.suggest_labels("label"),
    "checkup": lambda s, o: s.checkup(),
}


@pytest.fixture(scope="module", params=SETS)
def odd(request, tmp_path_factory):
    """A store of an odd set in two spaces, and the options of its label."""
    columns = dict(SETS[request.param])
    options = {name: columns.pop(name) for name in ("separator",) if name in columns}
    X, _ = clusters(len(columns["label"]), 2)
    store = store_of(tmp_path_factory.mktemp("odd") / "s", X, **columns)
    add(store, X[:, :8], "half")
    store.set_default("numbers")
    return store, options


def estimates(tree):
    """Yield every value with an interval in plain JSON types."""
    if isinstance(tree, dict):
        if {"value", "low", "high"} <= tree.keys():
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from estimates(part)


@pytest.mark.parametrize("verb", VERBS)
def test_an_odd_set_has_figures_or_one_line(odd, verb):
    """Nothing but an error of one line, or JSON without NaN in which each interval holds its value and has a width."""
    with warnings.catch_warnings():
        for category in (RuntimeWarning, UserWarning):
            warnings.simplefilter("error", category)
        try:
            result = VERBS[verb](*odd)
        except EmbedstoreError as error:
            result, message = None, str(error)
    if result is None:
        assert message.strip()
        assert "\n" not in message
        assert "()" not in message
        return
    facts = result.to_json()
    assert "()" not in json.dumps(facts, allow_nan=False)
    for e in estimates(facts):
        if None not in e.values():
            assert e["low"] <= e["value"] <= e["high"], e
            assert e["low"] < e["high"], e


@pytest.mark.parametrize(
    ("labels", "separator"), [(["a"] * 20, None), (["a|b"] * 20, "|")], ids=["one class", "all labels on all items"]
)
@pytest.mark.parametrize("verb", ["probe", "knn", "compare_heads", "learning_curve", "label_errors", "retrieval"])
def test_labels_that_do_not_vary_have_no_figure(tmp_path, labels, separator, verb):
    """Any head is right and any ranking perfect, which is no figure of the vectors."""
    X, _ = clusters(20, 2)
    store = store_of(tmp_path / "s", X, label=labels)
    with pytest.raises(LabelError):
        getattr(store, verb)("label", separator=separator)


def test_retrieval_of_one_image_has_no_figure(tmp_path):
    """The only image is the first for each of its captions, whatever the vectors are."""
    store = store_of(tmp_path / "s", np.eye(1, 4), caption=["a dog"])
    with pytest.raises(LabelError, match="any order is perfect"):
        store.retrieval(captions="caption", caption_vectors=np.eye(1, 4, 2, dtype=np.float32))


@pytest.mark.parametrize("verb", ["probe", "knn"])
def test_a_protocol_does_not_read_a_quantity_as_classes(tmp_path, verb):
    """Forty numbers are no forty classes of one example; `task` says so where they are classes."""
    X, _ = clusters(40, 2)
    store = store_of(tmp_path / "s", X, label=[n + 0.5 for n in range(40)], half=[(n % 2) + 0.5 for n in range(40)])
    with pytest.raises(LabelError, match="protocol dinov2 needs classes, and 'label' holds numbers"):
        getattr(store, verb)(protocol="dinov2")
    assert store.probe("half", protocol="dinov2", task="classification").report.classes == ("0.5", "1.5")


@pytest.mark.parametrize("largest", [1e101, 1e-101])
def test_numbers_whose_squares_cannot_be_computed_are_refused(tmp_path, largest):
    """No R squared of NaN and no infinite error, but the largest number and what to do."""
    X, _ = clusters(40, 2)
    store = store_of(tmp_path / "s", X, label=(np.linspace(0.1, 1, 40) * largest).tolist())
    message = rf"{largest:.0e} without its sign, and only numbers from 1e-100 to 1e\+100".replace("e+101", r"e\+101")
    with pytest.raises(LabelError, match=message):
        store.probe()


def test_one_large_loss_among_losses_of_zero_shows_no_upper_limit():
    """A third of the resamplings lack the row that differs and have no spread: they are no reason for a low limit."""
    losses = np.r_[np.zeros(19), 16.0]
    assert studentized_interval(losses, None)[1] == math.inf
    y, proba = np.zeros(20, int), np.tile(np.float32([1, 0]), (20, 1))
    proba[0] = [0, 1]
    low, high = metric_interval("log_loss", y, proba)
    assert low == 0
    assert 3 < high < 4  # Wilson's end of 1 in 20, 0.236, times the largest loss, 15.9


def test_equal_losses_say_as_little_of_lower_ones_as_of_higher_ones():
    """Twenty rows with the worst loss: one in six unseen rows may be right, as with twenty rows without loss."""
    wrong = np.tile([0.0, 1.0], (20, 1))
    low, high = metric_interval("brier_score", np.zeros(20, int), wrong)
    assert (low / 2, high) == pytest.approx((0.8389, 2), abs=1e-4)
    assert metric_interval("brier_score", np.ones(20, int), wrong)[1] / 2 == pytest.approx(1 - 0.8389, abs=1e-4)


def test_the_error_of_levels_has_an_end_within_the_levels():
    """One of twenty levels is two off, of a range of four: at most what one in twenty with four would allow."""
    y = np.tile([1.0, 2, 3, 4, 5], 4)
    predicted = y.copy()
    predicted[0] = 3
    mae = ordinal_report(y, predicted, np.arange(20), baseline=np.full(20, 3.0)).scores["mae"]
    assert mae.value == 0.1
    assert 0.3 < mae.high < 1


def test_a_curve_of_a_perfect_score_has_a_width():
    """Three heads with a mean average precision of 1 on 20 rows are as uncertain as 20 right rows."""
    low, high = mean_interval([HeldOutScore(1.0, standard_error=0.0)] * 3, np.arange(20))
    assert (round(low, 3), high) == (0.839, 1.0)


def test_the_share_of_wrong_labels_is_not_above_its_own_limit(tmp_path):
    """Rare labels at random are nearly never predicted; the joint then expects half of the answers to be wrong."""
    rng = np.random.default_rng(3)
    labels = [f"l{n % 50}|l{n * 7 % 50}" for n in range(150)]
    store = store_of(tmp_path / "s", rng.normal(size=(150, 16)), label=labels)
    report = store.label_errors(separator="|")
    assert report.error_rate is None
    assert report.error_rate_interval[1] < 0.1


LEFT_OUT = {
    "probe": lambda s: evaluation_notes(s.probe()),
    "knn": lambda s: evaluation_notes(s.knn()),
    "compare_heads": lambda s: comparison_notes(s.compare_heads(spaces=["numbers"])),
    "compare_spaces": lambda s: s.compare_spaces("label", "numbers", "whole").notes,
    "learning_curve": lambda s: s.learning_curve(head="prototype", repeats=2).notes,
    "label_errors": lambda s: s.label_errors().notes,
    "advise": lambda s: s.advise().notes,
}


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory):
    """A store of 60 items: two have no label, and three labeled ones no vector in the default space."""
    X, labels = clusters(60, 3)
    store = store_of(tmp_path_factory.mktemp("incomplete") / "s", X, space="whole", label=[None, None, *labels[2:]])
    add(store, X[:57], "numbers")
    store.set_default("numbers")
    return store


@pytest.mark.parametrize("verb", LEFT_OUT)
def test_every_verb_says_what_it_left_out(incomplete, verb):
    """Items without a label, and labeled ones without a vector in the space, are in no figure of any verb."""
    notes = " ".join(LEFT_OUT[verb](incomplete))
    assert "2 items have no label and were left out" in notes
    assert "3 labeled items have no vector in space numbers and were left out; `embedstore failures STORE`" in notes


def test_groups_of_held_out_items_are_counted_in_a_comparison(tmp_path):
    """Two groups show no difference: a detectable one of 470 points is none."""
    X, labels = clusters(200, 4)
    store = store_of(tmp_path / "s", X, label=labels, split=["train"] * 188 + ["test"] * 12,
                     group=[n // 8 for n in range(200)])  # fmt: skip
    notes = comparison_notes(store.compare_heads(heads=["logistic", "knn"]))
    assert "the 12 held-out items are 2 groups; a group is one draw in every interval" in notes
    assert any(n.startswith("12 held-out items of so few groups show no difference") for n in notes)


def test_a_threshold_needs_groups_where_a_group_is_one_draw(tmp_path):
    """96 items of 12 groups show nothing that 31 groups show."""
    X, labels = clusters(120, 2)
    store = store_of(tmp_path / "s", X, label=labels, split=["train"] * 96 + ["test"] * 24,
                     group=[n // 8 for n in range(120)])  # fmt: skip
    note = evaluation_notes(store.probe(abstain_precision=0.9))[-1]
    assert note.startswith("answers nothing: 96 items of 12 groups show no threshold")
    assert note.endswith("about 31 groups would show one")


def test_val_items_that_are_copies_of_test_items_are_counted(tmp_path):
    """They calibrate nothing, which no line said."""
    X, labels = clusters(90, 3)
    X[30:40] = X[60:70] + np.float32(1e-4)
    store = store_of(tmp_path / "s", X, label=labels, split=["train"] * 30 + ["val"] * 30 + ["test"] * 30)
    result = store.probe(calibrate="temperature")
    assert result.calibration.rows == 20
    (note,) = (n for n in result.split_notes if "split val" in n)
    assert note.startswith("10 items of the split val share a picture or a group with training or held-out items")


def test_an_interval_of_two_slices_is_not_of_all_1_pair():
    """A statement on several pairs is made of several."""
    assert all_pairs(1) == ""
    assert all_pairs(3) == "; the interval holds for all 3 pairs together"


def test_one_imperfect_ranking_leaves_the_interval_of_a_share():
    """Resamplings that mostly lack the only imperfect query gave an interval from 0 to 1 to a mean of 0.9996."""
    values = np.r_[np.full(234, 1.0), 0.9]
    estimate = mean_estimate(values, np.arange(235))
    assert 0.97 < estimate.low < estimate.value < estimate.high
