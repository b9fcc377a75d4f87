"""The kernel head: its optimum, its choice of gamma and C, groups, limits, and its life in a store."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.gaussian_process.kernels import RBF
from sklearn.utils.estimator_checks import check_estimator

from embedstore.arrays import unit_rows
from embedstore.classify import heads
from embedstore.errors import BadHead
from tests.helpers.clusters import store_of


def rings(n, seed=0):
    """Two classes on a sphere that no plane separates: near either pole, and around the equator."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X.astype(np.float32), np.where(np.abs(X[:, 2]) > 0.5, "poles", "equator")


def test_it_finds_the_optimum_of_kernel_logistic_regression():
    """The penalized loss over kernel weights, minimized by SciPy, gives the same probabilities."""
    X, y = rings(60)
    head = heads.KernelProbe([1.0], C=2.0).fit(X, y)
    unit = unit_rows(X).astype(np.float64)
    K = RBF(np.sqrt(1 / (2 * head.gamma_)))(unit)
    sign = np.where(y == head.classes_[1], 1.0, -1.0)

    def objective(w):
        margin = sign * (K @ w[:-1] + w[-1])
        slope = -sign / (1 + np.exp(margin)) * 2.0
        gradient = np.r_[K @ (slope + w[:-1]), slope.sum()]
        return 2.0 * np.logaddexp(0, -margin).sum() + w[:-1] @ K @ w[:-1] / 2, gradient

    best = minimize(objective, np.zeros(61), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-14})
    expected = 1 / (1 + np.exp(-(K @ best.x[:-1] + best.x[-1])))
    assert head.predict_proba(X)[:, 1] == pytest.approx(expected, abs=2e-3)


def test_it_separates_what_no_plane_does(tmp_path):
    """Poles and equator: a plane reaches little more than the larger class, the kernel nearly all."""
    X, y = rings(600)
    store = store_of(tmp_path / "s", X, label=y)
    found = store.compare_heads("label", heads=["logistic", "kernel"], near_duplicates="ignore")
    accuracy = {r.evaluation.head: r.evaluation.accuracy for r in found.results}
    assert accuracy["kernel"] > 0.93
    assert accuracy["logistic"] < 0.7
    assert {"C", "gamma"} <= set(store.probe("label", head="kernel", near_duplicates="ignore").hyperparameters)


def test_groups_stay_on_one_side_when_gamma_and_c_are_chosen():
    """Copies with a random label: with them on both sides a narrow kernel would seem to know them."""
    rng = np.random.default_rng(0)
    X, y = np.repeat(rng.normal(size=(60, 8)), 4, axis=0), np.repeat(rng.integers(0, 2, 60), 4)
    X += 0.001 * rng.normal(size=X.shape)
    loss = {
        name: min(p.log_loss for p in heads.KernelProbe().fit(X, y, groups=groups).path_)
        for name, groups in (("groups", np.repeat(np.arange(60), 4)), ("none", None))
    }
    assert loss["none"] < 0.2
    assert loss["groups"] > 0.6


def test_gamma_has_the_lowest_out_of_fold_loss():
    """The chosen value is the one that is best when each is tried alone."""
    X, y = rings(200)
    head = heads.KernelProbe([0.01, 0.3, 30.0]).fit(X, y)
    single = {g: heads.KernelProbe([g]).fit(X, y) for g in (0.01, 0.3, 30.0)}
    best = min(single, key=lambda g: min(p.log_loss for p in single[g].path_))
    assert head.gamma_ == pytest.approx(single[best].gamma_)
    assert head.predict_proba(X) == pytest.approx(single[best].predict_proba(X))


def test_it_follows_scikit_learn():
    """Cloning, pickling and all other conventions of an estimator.

    Rows that are repeated also count in the median distance that scales gamma, rows with a weight do not.
    """
    weights = "check_sample_weight_equivalence_on_dense_data"
    check_estimator(heads.KernelProbe(), expected_failed_checks={weights: "repeated rows move the median distance"})


def test_too_many_rows_and_wrong_values_are_refused():
    """The messages name the head, the limit and what to do."""
    rng = np.random.default_rng(0)
    with pytest.raises(BadHead, match=r"at most 3,000 of them, and there are 3,001; use head logistic"):
        heads.KernelProbe().fit(rng.normal(size=(3001, 2)), np.arange(3001) % 2)
    with pytest.raises(BadHead, match="gammas must be a number above 0, not -1"):
        heads.KernelProbe([-1]).fit(rng.normal(size=(20, 2)), np.arange(20) % 2)
    with pytest.raises(BadHead, match="at least one value"):
        heads.KernelProbe([]).fit(rng.normal(size=(20, 2)), np.arange(20) % 2)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_saved_without_pickle_and_predicts(tmp_path, classes):
    """A saved head answers as before, also calibrated; a purge of a training item deletes it."""
    X, y = rings(150)
    y = np.where((X[:, 2] > 0.5) & (classes == 3), "north", y)
    store = store_of(tmp_path / "s", X, label=y)
    e = store.probe("label", head="kernel", calibrate="temperature", save_as="k", near_duplicates="ignore")
    assert store.head("k").predict_proba(X) == pytest.approx(e.estimator.predict_proba(X))
    assert not list((tmp_path / "s" / "heads").rglob("*.pkl"))
    assert sum(store.predict("k").labels.values()) == 150
    items = [i for (i,) in store.sql("SELECT item FROM items ORDER BY item LIMIT 5").rows]
    store.purge(items=items)
    assert [h.name for h in store.heads] == []


def test_few_labels_have_a_fixed_c(tmp_path):
    """One example per class: nothing can choose C, and the head is fitted with C = 1."""
    X, y = rings(120)
    store = store_of(tmp_path / "s", X, label=y)
    curve = store.learning_curve("label", head="kernel", labels_per_class=[1, 4], repeats=2)
    assert [p.labels_per_class for p in curve.points][:2] == [1, 4]


def test_several_labels_per_item(tmp_path):
    """One kernel head per label."""
    X, y = rings(120)
    tags = [
        ["pole"] if v == "poles" else ["equator", "south"] if x[2] < 0 else ["equator"]
        for x, v in zip(X, y, strict=True)
    ]
    e = store_of(tmp_path / "s", X, tags=tags).probe("tags", head="kernel", near_duplicates="ignore")
    assert e.multilabel
    assert e.accuracy > 0.7
