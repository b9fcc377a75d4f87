"""Evaluations have no leaks, their intervals hold, and differences come with their significance."""

import json

import numpy as np
import pytest

from embedstore.classify import metrics
from embedstore.classify.data.labels import encode_labels
from embedstore.classify.data.sampling import sample_per_class
from embedstore.classify.evaluation import EvaluationSettings
from embedstore.classify.evaluation.learning_curve import LearningCurvePoint
from embedstore.classify.metrics.simultaneous import holm_correction
from embedstore.errors import BadHead, LabelError, UnknownHead
from embedstore.reports.evaluation_text import curve_notes
from tests.helpers.clusters import add, clusters, store_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """300 rows of three overlapping classes; every fourth is ``val``."""
    X, y = clusters(300, noise=1.6)
    split = ["val" if n % 4 == 3 else "train" for n in range(300)]
    return store_of(tmp_path_factory.mktemp("evaluate") / "s", X, label=y, split=split)


@pytest.mark.parametrize("head", ["logistic", "knn", "prototype", "lda", "svm", "ridge", "mlp"])
def test_every_head_is_evaluated_by_its_name(store, head):
    """Accuracy is far above chance (1/3) on the same 75 held-out rows, and the recorded keys are unchanged."""
    e = store.probe("label", head=head)
    found = e.to_json()
    assert (e.head, e.split, e.n_train, e.n_held_out) == (head, "val", 225, 75)
    assert e.accuracy >= 0.8
    assert found["accuracy"] == e.accuracy
    assert found["seconds"] > 0
    assert ("C" in found) is (head == "logistic")
    assert sum(map(sum, found["confusion"])) == 75
    assert len(found["mistakes"]) == 75 - round(75 * e.accuracy)
    json.dumps(found, allow_nan=False)


def test_top5_accuracy_is_reported_only_above_five_classes(store, tmp_path):
    """It is left out for three classes, and reported for six."""
    assert "top5_accuracy" not in store.probe("label", head="ridge").scores
    X, y = clusters(120, classes=6, noise=2)
    assert "top5_accuracy" in store_of(tmp_path / "s", X, label=y).probe("label", head="ridge").scores


def test_folds_hold_out_every_row_once(store):
    """Five folds cover all 300 rows whatever their split; the estimator is fitted on all rows."""
    e = store.probe("label", head="ridge", folds=5)
    assert (e.split, e.n_train, e.n_held_out, len(e.fold_accuracy)) == ("5 folds", 300, 300, 5)
    assert sorted(e.held_out_predictions.ids.tolist()) == list(range(1, 301))
    assert e.accuracy == pytest.approx(np.mean(e.fold_accuracy), abs=0.02)
    direct = metrics.compute_metric(
        "accuracy",
        encode_labels(e.held_out_predictions.y, e.held_out_predictions.classes),
        e.held_out_predictions.proba,
    )
    assert e.accuracy == pytest.approx(direct)


def test_another_seed_gives_another_split(tmp_path):
    """Without a split column one seed always holds out the same fifth, and another seed a different one."""
    X, y = clusters(200)
    store = store_of(tmp_path / "s", X, label=y)
    a, b, c = (store.probe("label", head="prototype", seed=s) for s in (0, 0, 1))
    assert a.split == "hash"
    assert a.held_out_predictions.ids.tolist() == b.held_out_predictions.ids.tolist()
    assert set(a.held_out_predictions.ids.tolist()) != set(c.held_out_predictions.ids.tolist())
    assert all(23 <= n <= 57 for n in (a.n_held_out, c.n_held_out))  # a fifth, within three standard deviations


def test_shuffled_labels_give_chance_accuracy(tmp_path):
    """For random labels of two balanced classes the 95% interval of the accuracy holds one half."""
    X, _ = clusters(800)
    rng = np.random.default_rng(1)
    labels = rng.permutation(["a", "b"] * 400)
    e = store_of(tmp_path / "s", X, label=labels).probe("label", folds=5)
    score = e.scores["accuracy"]
    assert score.low <= 0.5 <= score.high
    assert abs(e.accuracy - 0.5) < 0.06


def test_near_duplicates_across_the_split_are_counted_and_dropped(tmp_path):
    """Ten held-out rows with a little noise and a wrong label in training are counted, listed and left out."""
    X, y = clusters(200, noise=1.0)
    split = ["val" if n % 4 == 3 else "train" for n in range(200)]
    copied = [n for n in range(200) if split[n] == "val"][:10]
    noise = np.random.default_rng(0).standard_normal((10, X.shape[1])) * 0.02
    store = store_of(
        tmp_path / "s",
        np.vstack([X, X[copied] + noise]),
        label=y + ["c0"] * 10,
        split=split + ["train"] * 10,
    )
    found = store.probe("label", head="knn", near_duplicate_threshold=0.999)
    assert found.near_duplicates.count == 10
    assert {(p.train_item - 1, p.held_out_item - 1) for p in found.near_duplicates.pairs} == set(
        zip(range(200, 210), copied, strict=True)
    )
    assert min(p.cosine for p in found.near_duplicates.pairs) >= 0.999
    dropped = store.probe("label", head="knn", near_duplicate_threshold=0.999, drop_near_duplicates=True)
    assert (found.n_train, dropped.n_train) == (160, 150)
    assert dropped.near_duplicates.dropped
    assert store.probe("label", head="knn", near_duplicate_threshold=0).near_duplicates is None


def test_equal_contents_stay_in_one_fold(tmp_path):
    """With every row twice no fold trains on a copy of a held-out row, so that accuracy stays at chance."""
    X, _ = clusters(120, noise=1.0)
    labels = list(np.random.default_rng(0).permutation(["a", "b"] * 60))
    store = store_of(tmp_path / "s", np.vstack([X, X]), label=labels * 2)
    e = store.probe("label", head="knn", folds=5)
    assert e.near_duplicates.count == 0
    assert e.accuracy < 0.65


def test_items_without_a_label_are_counted(tmp_path):
    """NULL, empty text and blanks neither train nor evaluate."""
    X, y = clusters(90)
    labels = [None if n < 5 else "" if n < 9 else " " if n == 9 else label for n, label in enumerate(y)]
    e = store_of(tmp_path / "s", X, label=labels).probe("label", head="ridge", folds=3)
    assert (e.n_unlabeled, e.n_held_out) == (10, 80)


@pytest.mark.parametrize(
    ("labels", "how", "message"),
    [
        (["a"] * 20, {}, "one class only"),
        (["a"] * 20, {"folds": 3}, "one class only"),
        (["a"] * 19 + ["b"], {"folds": 3}, "one example only"),
        (["a", "b"] * 10, {"folds": 11}, "`--folds 10` at most"),
        (["a", "b"] * 10, {"folds": 1}, "at least 2"),
        (["a", "b"] * 10, {"near_duplicate_threshold": 2}, "cosine"),
    ],
)
def test_labels_that_support_no_split_are_refused(tmp_path, labels, how, message):
    """One class, one example or fewer rows than folds is an error that states the limit."""
    store = store_of(tmp_path / "s", clusters(20)[0], label=labels)
    with pytest.raises(LabelError, match=message):
        store.probe("label", **how)


def test_an_unknown_head_or_option_is_refused_with_the_near_names(store):
    """The error names the near names or the possible values; it is never one of scikit-learn."""
    with pytest.raises(UnknownHead, match="did you mean logistic"):
        store.probe("label", head="logistics")
    with pytest.raises(BadHead, match="has no option 'kk'"):
        store.probe("label", head="knn", head_options={"kk": 3})
    with pytest.raises(BadHead, match="at least 1, not 0"):
        store.knn("label", k=0)
    with pytest.raises(BadHead, match="temperature or isotonic"):
        EvaluationSettings(calibrate="platt")
    with pytest.raises(BadHead, match="precision"):
        EvaluationSettings(abstain_precision=1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "knn", "head_options": {"k": "many"}}, "whole number of at least 1, not 'many'"),
        ({"head": "knn", "head_options": {"weights": "gauss"}}, "softmax or uniform or distance, not 'gauss'"),
        ({"head_options": {"Cs": -1}}, r"Cs must be the values of C, or how many to try \(at least 2\), not -1"),
        ({"head_options": {"scale": "unit"}}, "none or standard, not 'unit'"),
    ],
)
def test_a_wrong_option_value_is_refused_with_the_possible_values(store, options, message):
    """The error lists the words or numbers that the option accepts."""
    with pytest.raises(BadHead, match=message):
        store.probe("label", **options)


def test_with_k_above_the_training_rows_all_rows_vote(store):
    """The reported k is the number of training rows."""
    e = store.probe("label", head="knn", head_options={"k": 10_000})
    assert e.hyperparameters == {"k": e.n_train}


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("head", ["logistic", "knn", "mlp", "svm", "ridge", "kernel", "prototype"])
def test_a_class_with_one_example_trains_and_is_not_evaluated(tmp_path, head, folds):
    """Two copies of one picture cannot be on both sides: they train, no figure counts them, and a note names them."""
    X, y = clusters(60)
    groups = [None] * 58 + ["twin"] * 2
    store = store_of(tmp_path / "s", X, label=[*y[:-2], "rare 'one'", "rare 'one'"], group=groups)
    e = store.probe("label", head=head, folds=folds)
    assert "rare 'one'" in e.classes
    assert not {59, 60} & set(e.held_out_predictions.ids.tolist())
    assert any("1 class has one example only (\"rare 'one'\": 2 items)" in note for note in e.split_notes)


def test_c_is_chosen_without_a_class_of_one_training_example(tmp_path):
    """Its training row is in no loss that chooses C: nearly the same C is chosen without it, and a note says so."""
    X, y = clusters(60)
    split = (["train"] * 4 + ["test"]) * 12
    store = store_of(tmp_path / "s", np.r_[X, X[:1] + 3], label=[*y, "rare"], split=[*split, "train"])
    without = store.probe("label", where="label <> 'rare'")
    e = store.probe("label", calibrate="temperature")
    assert e.split_notes == (
        "1 class has one example only among the 49 training items ('rare'), copies and groups counted once: C was "
        "chosen without it",
    )
    assert without.split_notes == ()
    assert abs(np.log10(e.hyperparameters["C"] / without.hyperparameters["C"])) <= 0.5
    assert e.calibration.rows == 48


def test_a_comparison_without_heads_is_refused(store):
    """The error says to name at least one head."""
    with pytest.raises(UnknownHead, match="at least one head"):
        store.compare_heads("label", heads=[])


def test_calibration_lowers_the_calibration_error_of_held_out_rows(store):
    """The softmax of ridge margins is underconfident: out-of-fold calibration lowers both errors."""
    e = store.probe("label", head="ridge", calibrate="temperature")
    c = e.calibration
    assert c.rows == 225
    assert c.calibration_error_after < c.calibration_error_before
    assert c.log_loss_after < c.log_loss_before
    assert e.report["calibration_error"] == pytest.approx(c.calibration_error_after, abs=1e-6)


def test_abstention_reports_precision_and_coverage_of_held_out_rows(store):
    """Both equal the values that are recomputed from the probabilities."""
    e = store.probe("label", head="logistic", abstain_precision=0.9)
    sure = e.held_out_predictions.proba.max(1) >= e.abstain.threshold
    right = np.array(e.held_out_predictions.classes)[e.held_out_predictions.proba.argmax(1)] == e.held_out_predictions.y
    assert e.abstain.coverage == pytest.approx(sure.mean())
    assert e.abstain.precision == pytest.approx(right[sure].mean())
    assert 0.3 < e.abstain.coverage < 1
    assert e.abstain.precision >= e.accuracy


def test_intervals_hold_the_true_accuracy(tmp_path):
    """At least 85% of the 95% intervals of 60 small test sets hold the accuracy of their population."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60_000)
    score = np.clip(0.5 + (y - 0.5) * 0.5 + 0.35 * rng.standard_normal(len(y)), 0.01, 0.99)
    proba = np.stack([1 - score, score], axis=1)
    truth = metrics.compute_metric("accuracy", y, proba)
    covered = 0
    for n in range(60):
        rows = slice(n * 150, (n + 1) * 150)
        low, high = metrics.metric_interval("accuracy", y[rows], proba[rows], n_replicates=500, seed=n)
        covered += low <= truth <= high
    assert covered >= 51


def test_a_learning_curve_rises_with_the_number_of_labels(store):
    """It has five draws per budget below the class sizes and one with all labels; the draws are nested."""
    found = store.learning_curve("label", head="prototype", labels_per_class=(1, 4, 1000))
    assert [(p.labels_per_class, p.n_train, len(p.values)) for p in found.points] == [
        (1, 3, 5),
        (4, 12, 5),
        (None, 225, 1),
    ]
    assert found.points[0].mean < found.points[2].mean
    assert found.points[2].std == 0
    assert found.points[2].mean == pytest.approx(store.probe("label", head="prototype").accuracy)
    data = store.features("label")
    rows = np.arange(len(data))
    assert set(sample_per_class(data, rows, 2, 7)) < set(sample_per_class(data, rows, 4, 7))


def test_a_learning_curve_lists_the_budgets_that_a_head_cannot_learn_from(store):
    """LDA needs more rows than classes; logistic regression with one example per class takes C = 1."""
    found = store.learning_curve("label", head="lda", labels_per_class=(1, 8), repeats=2)
    assert [s for s, _ in found.skipped_budgets] == [1]
    assert [p.labels_per_class for p in found.points] == [8, None]
    assert [p.labels_per_class for p in store.learning_curve("label", labels_per_class=(1,), repeats=2).points] == [
        1,
        None,
    ]


def test_budgets_that_are_skipped_for_one_reason_are_one_sentence(tmp_path):
    """One label is in the singular, and five equal draws do not vary."""
    few = store_of(tmp_path / "few", np.eye(4, dtype=np.float32), label=["a", "a", "b", "b"])
    (note,) = curve_notes(few.learning_curve("label"))
    assert note == "1, 2, 4, 8, 16 labels per class were skipped: no class has more than 1 training item"
    (note,) = curve_notes(few.learning_curve("label", labels_per_class=(1,)))
    assert note == "1 label per class was skipped: no class has more than 1 training item"
    assert LearningCurvePoint(1, 2, (10 / 11,) * 5, 0.0, 1.0).std == 0


def test_spaces_and_heads_are_compared_on_the_same_rows(tmp_path):
    """A noisy copy of the vectors has a significant accuracy gap, and the run records the comparison."""
    X, y = clusters(400, noise=0.9)
    split = ["val" if n % 4 == 3 else "train" for n in range(400)]
    store = store_of(tmp_path / "s", X, "clear", label=y, split=split)
    add(store, X + 4 * np.random.default_rng(1).standard_normal(X.shape), "noisy")
    found = store.compare_heads("label", heads=["ridge", "prototype"])
    names = [(c.evaluation.space, c.evaluation.head) for c in found.results]
    assert {names[0][0], names[1][0]} == {"clear"}
    assert (found.split, found.n_held_out, found.n_without_shared_vector) == ("val", 100, 0)
    worst = found.results[-1]
    assert worst.p_value < 0.01
    assert worst.accuracy_gap.low > 0
    best = found.results[0].evaluation
    assert worst.accuracy_gap.value == pytest.approx(best.accuracy - worst.evaluation.accuracy)
    run = json.loads(store.sql("SELECT result FROM runs WHERE verb = 'compare_heads'").rows[0][0])
    assert [c["space"] for c in run["contestants"]] == [s for s, _ in names]
    assert run["contestants"][0]["bytes_per_item"] == 64


def test_a_comparison_with_label_budgets_has_a_learning_curve_per_head(tmp_path):
    """Each curve equals that of the head alone, and its last point is the compared accuracy."""
    X, y = clusters(120, noise=1.5)
    store = store_of(tmp_path / "s", X, label=y)
    found = store.compare_heads("label", heads=["ridge", "prototype"], labels_per_class=(1, 4))
    for c in found.results:
        own = store.learning_curve("label", head=c.evaluation.head, labels_per_class=(1, 4))
        assert [p.labels_per_class for p in c.learning_curve.points] == [1, 4, None]
        assert [p.values for p in c.learning_curve.points] == [p.values for p in own.points]
        assert c.learning_curve.points[-1].values == (c.evaluation.accuracy,)
        assert c.to_json()["curve"][0]["shots"] == 1
    assert store.compare_heads("label", heads=["ridge"]).results[0].to_json()["curve"] is None


def test_results_are_tables(store):
    """An evaluation, a learning curve and a comparison give one record per metric, budget and head, and HTML."""
    e = store.probe("label", head="ridge")
    assert {r["metric"]: r["value"] for r in e.records()} == {name: s.value for name, s in e.scores.items()}
    curve = store.learning_curve("label", head="ridge", labels_per_class=(4,), repeats=2)
    assert [(r["labels_per_class"], r["n_train"], r["draws"]) for r in curve.records()] == [(4, 12, 2), (None, 225, 1)]
    assert curve.records()[1]["accuracy"] == e.accuracy
    rows = store.compare_heads("label", heads=["ridge", "knn"]).records()
    assert {r["head"] for r in rows} == {"ridge", "knn"}
    assert rows[1]["accuracy_gap"] == pytest.approx(rows[0]["accuracy"] - rows[1]["accuracy"])
    assert "<td>macro_f1</td>" in e._repr_html_()


def test_holm_correction_by_hand():
    """The p-values .01, .04 and .03 become .03, .06 and .06."""
    assert holm_correction([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_correction([]) == []


def test_conformal_sets_reach_their_target_coverage(tmp_path):
    """With alpha 0.1, overlapping classes and five stores about nine sets in ten hold the true class; a set has more
    than one class and fewer than all."""
    found = []
    for seed in range(5):
        X, y = clusters(600, classes=4, noise=2.5, seed=seed)
        split = [("train", "val", "test")[n // 4 % 3] for n in range(600)]
        e = store_of(tmp_path / str(seed), X, label=y, split=split).probe("label", head="lda", conformal_alpha=0.1)
        assert e.conformal.rows == 200
        assert e.conformal.target_coverage == pytest.approx(0.9)
        assert 1 < e.conformal.mean_size < 4
        assert e.conformal.single + e.conformal.empty < 1
        found.append(e.conformal.coverage)
    assert np.mean(found) == pytest.approx(0.9, abs=0.03)


def test_abstention_and_conformal_sets_exclude_each_other(store):
    """Both together are an error; a coverage of 0.9 in place of alpha is refused with an example."""
    with pytest.raises(BadHead, match="give one"):
        store.probe("label", abstain_precision=0.9, conformal_alpha=0.1)
    with pytest.raises(BadHead, match="coverage of 90%"):
        store.probe("label", conformal_alpha=0.9)


def test_large_features_are_memory_mapped(store, monkeypatch):
    """Above the limit X is a memory-mapped file with the same numbers, and a probe gives the same accuracy."""
    from embedstore.storage import memory_map

    expected = store.features("label").X
    before = store.probe("label", head="ridge").accuracy
    monkeypatch.setattr(memory_map, "MAX_IN_MEMORY_BYTES", 1000)
    mapped = store.features("label")
    assert isinstance(mapped.X, np.memmap)
    assert np.array_equal(mapped.X, expected)
    assert store.probe("label", head="ridge").accuracy == before


def test_an_evaluation_returns_while_another_process_writes(tmp_path, monkeypatch):
    """The evaluation is returned, and a notice says that the run was not recorded."""
    import fcntl

    from embedstore.operations import session

    monkeypatch.setattr(session, "RECORD_WAIT", 0.1)
    X, y = clusters(60)
    store = store_of(tmp_path / "s", X, label=y)
    runs = store.info().runs
    with (store.path / "LOCK").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert store.probe("label", head="ridge").accuracy == 1.0
    assert store.info().runs == runs
    assert "not among the runs" in store.notices[-1]
