"""Numbers from a store: probe, save, predict, filter, compare; in Python and on the command line."""

import json

import numpy as np
import pytest

import embedstore as es
from embedstore.cli import main
from embedstore.errors import BadHead, BadOption, LabelError, UnknownColumn


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """300 items with an age that their vectors tell, a grade, weights, cameras and copies."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 12)).astype(np.float32)
    X[280:] = X[:20] + 1e-4  # near-duplicates
    age = 30 + 10 * X[:, 0] + 3 * rng.normal(size=300)
    age[280:] = age[:20]
    out = es.create(tmp_path_factory.mktemp("numbers") / "s.store")
    columns = {
        "uri": [f"/{n}" for n in range(300)],
        "age": age,
        "years": np.rint(age).astype(int),
        "grade": np.clip(np.rint(X[:, 0] + 0.3 * rng.normal(size=300) + 2), 0, 4).astype(int),
        "camera": [f"c{n % 3}" for n in range(300)],
        "w": rng.integers(0, 3, 300).astype(float),
        "bad": np.where(np.arange(300) == 7, -1.0, 1.0),
    }
    out.add_vectors(X, columns)
    return out


def test_a_column_of_numbers_is_a_regression(store):
    """Never "classes have one example only": R squared, errors next to those of the mean, and intervals."""
    e = store.probe("age", by="camera")
    assert isinstance(e, es.RegressionEvaluation)
    assert e.task == "regression"
    assert e.head == "ridge"
    assert 0.8 < e.scores["r2"].low < e.report["r2"] < e.scores["r2"].high < 1
    assert e.report["mae"] < 3 < 7 < e.report.baseline["mae"]
    assert e.interval.method == "cv+"
    assert 0.75 < e.interval.coverage.value <= 1
    assert {s.value for s in e.slices.slices} == {"c0", "c1", "c2"}
    assert e.near_duplicates.found.n_grouped == 40
    assert e.df().metric.tolist() == ["r2", "mae", "rmse", "spearman", "pearson"]
    json.dumps(e.to_json(), allow_nan=False)
    errors = [abs(m.true - m.predicted) for m in e.largest_errors]
    assert errors == sorted(errors, reverse=True)


def test_copies_are_never_on_both_sides(store):
    """Near-duplicates are one group in the split and in every fold."""
    e = store.probe("age", folds=5)
    assert e.near_duplicates.count == 0
    assert len(e.fold_errors) == 5
    assert e.n_held_out == e.n_train == 300
    assert len(np.unique(e.held_out_predictions.groups)) == 280


def test_the_predictions_of_held_out_items_are_those_of_the_head(store):
    """Nothing of the held-out items is in the head: it is the ridge regression of the other items."""
    e = store.probe("age", near_duplicates="ignore")
    data = store.features("age")
    held = np.isin(data.ids, e.held_out_predictions.ids)
    y = data.y.astype(float)
    from sklearn.linear_model import Ridge

    head = Ridge(e.hyperparameters["alpha"]).fit(data.X[~held], y[~held])
    assert e.held_out_predictions.predicted == pytest.approx(head.predict(data.X[held]), abs=1e-3)


def test_val_items_calibrate_the_intervals(tmp_path):
    """With train, val and test the intervals are split conformal on the val items; refit trains on them."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(150, 4)).astype(np.float32)
    store = es.create(tmp_path / "s.store")
    splits = ["train"] * 70 + ["val"] * 40 + ["test"] * 40
    store.add_vectors(
        X, {"uri": [f"/{n}" for n in range(150)], "split": splits, "height": X[:, 0] + rng.normal(size=150)}
    )
    e = store.probe("height")
    assert (e.interval.method, e.interval.rows, e.n_train, e.split) == ("split", 40, 70, "test")
    assert (store.probe("height", refit=True).n_train, store.probe("height", refit=True).interval.method) == (
        110,
        "cv+",
    )


def test_an_ordinal_head_answers_levels(store):
    """Quadratic kappa, accuracy and accuracy within one; every prediction is a level."""
    e = store.probe("grade", task="ordinal")
    assert list(e.scores) == ["quadratic_kappa", "accuracy", "within_one_accuracy", "mae", "rmse", "spearman"]
    assert e.report["quadratic_kappa"] > 0.7
    assert set(e.held_out_predictions.predicted) <= {0, 1, 2, 3, 4}
    assert isinstance(store.probe("grade"), es.Evaluation)
    assert isinstance(store.knn("age"), es.RegressionEvaluation)


def test_a_saved_head_predicts_numbers_that_filters_compare(store):
    """The predictions and the ends of the intervals are numbers in --where and in SQL, and survive loading."""
    e = store.probe("age", save_as="age_head")
    loaded = store.head("age_head")
    data = store.features("age")
    assert (loaded.predict(data.X) == e.estimator.predict(data.X)).all()
    assert store.predict("age_head").labels == {}
    rows = store.sql("select item, pred.age_head as p, pred.age_head.low as a, pred.age_head.high as b from items").df()
    assert rows.p.to_numpy() == pytest.approx(loaded.predict(data.X), rel=1e-6)
    low, high = loaded.predict_interval(data.X)
    assert (rows.a <= low + 1e-6).all()
    assert (rows.b >= high - 1e-6).all()
    assert store.features("age", where="pred.age_head between 30 and 40").ids.tolist() == (
        rows.item[(rows.p >= 30) & (rows.p <= 40)].tolist()
    )
    with pytest.raises(UnknownColumn, match=r"has \.label, \.score, \.low and \.high"):
        store.features("age", where="pred.age_head.middle > 1")


def test_a_head_for_numbers_is_listed_and_not_exported(store, tmp_path):
    """Its record has the errors and no classes; the export names where the coefficients are."""
    store.probe("age", save_as="listed")
    (record,) = [h for h in store.heads if h.name == "listed"]
    assert record.metadata["task"] == "regression"
    assert record.metadata["classes"] == []
    assert record.metadata["mae"] < record.metadata["r2"] * 10
    with pytest.raises(BadHead, match="a head that predicts numbers is not exported"):
        store.export_head("listed", tmp_path / "x.npz")
    assert store.head("listed").head.coef_.shape == (12,)


def test_a_class_head_has_no_ends(store):
    """pred.NAME.low is for numbers only."""
    store.probe("camera", save_as="cam")
    store.predict("cam")
    with pytest.raises(UnknownColumn, match=r"has \.label and \.score, not 'low'"):
        store.features("age", where="pred.cam.low > 1")


def test_weights_change_the_head_and_not_the_figures(store):
    """Items of weight 0 do not train; weights that are none are refused with a cure that works."""
    plain, weighted = store.probe("age"), store.probe("age", weight="w")
    assert (plain.held_out_predictions.ids == weighted.held_out_predictions.ids).all()
    assert plain.estimator.head.coef_ != pytest.approx(weighted.estimator.head.coef_, rel=1e-6)
    with pytest.raises(LabelError, match=r"'bad' must be finite numbers of at least 0; 1 of 300.*item 8 with -1"):
        store.probe("age", weight="bad")
    with pytest.raises(UnknownColumn, match="no column 'wieght'"):
        store.probe("age", weight="wieght")


def test_a_learning_curve_counts_labels_in_all(store):
    """The error falls with the labels; budgets beyond the training items are skipped with the reason."""
    curve = store.learning_curve("age", labels_per_class=[20, 100, 5000], repeats=2)
    assert curve.metric == "mae"
    assert [p.labels_per_class for p in curve.points] == [20, 100, None]
    assert curve.points[0].mean > curve.points[-1].mean
    assert curve.skipped_budgets[0][0] == 5000


def test_heads_for_numbers_are_compared_by_their_error(store):
    """The best first, with a gap that holds for all pairs; classes are compared as before."""
    c = store.compare_heads("age")
    assert isinstance(c, es.RegressionComparison)
    assert [r.evaluation.head for r in c.results] == ["ridge", "knn"]
    assert c.results[0].error_gap is None
    assert c.results[1].error_gap.low > 0
    assert c.df()["head"].tolist() == ["ridge", "knn"]
    with pytest.raises(BadOption, match="no learning curves"):
        store.compare_heads("age", labels_per_class=[5])


def test_what_needs_classes_is_refused(store):
    """Calibration and abstention of numbers, slices ranked by recall, constant numbers."""
    with pytest.raises(BadHead, match="calibrate needs classes, and numbers are predicted"):
        store.probe("age", calibrate="isotonic")
    with pytest.raises(LabelError, match="ranked by their mean absolute error"):
        store.probe("age", by="camera", by_metric="mean_per_class_recall")
    with pytest.raises(LabelError, match="nothing can be learned from one number"):
        store.probe("years", task="regression", where="years = 30")


def test_the_command_line_prints_json_and_writes_pages(store, tmp_path, capsys):
    """One line on what the label is, a table, a page with the scatter, and JSON without NaN."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["probe", str(store.path), *map(str, arguments)])
        return ended.value.code, *capsys.readouterr()

    page = tmp_path / "r.html"
    code, out, err = run("age", "-o", page, "--by", "camera")
    assert code == 0
    assert "training mean instead" in out
    assert "is read as a quantity; --task classification reads it as classes" in err
    assert "Predicted against true age" in page.read_text()
    assert page.read_text().count("<circle") >= 50
    facts = json.loads(run("grade", "--task", "ordinal", "--json")[1])
    assert facts["task"] == "ordinal"
    assert facts["metrics"]["quadratic_kappa"]["low"] < facts["quadratic_kappa"]
    code, _, err = run("age", "--head", "logistic")
    assert code == 1
    assert "does not predict numbers; ridge and knn do" in err
