"""The fast C path against scikit-learn's own logistic regression."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedstore.classify.heads import LogisticProbe
from embedstore.errors import LabelError

CS = np.logspace(-4, 3, 8)


def overlapping(rows=300, dim=40, classes=4, seed=0):
    """Return features of very different scales whose classes overlap, so that the best C is inside the grid."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    X = rng.standard_normal((rows, dim)) + 0.7 * rng.standard_normal((classes, dim))[y]
    return (X * np.logspace(-1, 0.5, dim) + 1).astype(np.float32), y


def objective(X, y, head, C):
    """Return C * sum of losses + |w|^2 / 2 in float64."""
    z = X.astype(np.float64) @ np.asarray(head.coef_, np.float64).T + head.intercept_
    z = np.concatenate([np.zeros_like(z), z], 1) if z.shape[1] == 1 else z
    top = z.max(1)
    loss = np.log(np.exp(z - top[:, None]).sum(1)) + top - z[np.arange(len(y)), y]
    return C * loss.sum() + (np.asarray(head.coef_, np.float64) ** 2).sum() / 2


def folds(y, n=5):
    """Return scikit-learn's own stratified folds."""
    return list(StratifiedKFold(n, shuffle=True, random_state=0).split(y, y))


@pytest.mark.parametrize(
    ("rows", "dim", "classes"),
    [(300, 40, 4), (300, 40, 2), (60, 200, 3), (60, 200, 2)],
    ids=["wide", "binary", "fewer rows than features", "binary, fewer rows than features"],
)
def test_it_agrees_with_scikit_learn_on_the_same_grid_and_folds(rows, dim, classes):
    """The C is the same, each out-of-fold log-loss agrees to 1e-3, and the objective is as low as a tight fit's."""
    X, y = overlapping(rows, dim, classes)
    ours = LogisticProbe(CS, patience=None).fit(X, y)
    options = {"Cs": CS, "cv": folds(y), "scoring": "neg_log_loss", "max_iter": 5000, "tol": 1e-8}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = LogisticRegressionCV(**options, l1_ratios=(0,), use_legacy_attributes=False).fit(X.astype(float), y)
    assert theirs.C_ == ours.C_
    assert [p.log_loss for p in ours.path_] == pytest.approx(-theirs.scores_.mean(0).ravel(), abs=1e-3)
    assert objective(X, y, ours, ours.C_) <= objective(X, y, theirs, ours.C_) * (1 + 1e-6)
    assert objective(X, y, ours, ours.C_) == pytest.approx(objective(X, y, theirs, ours.C_), rel=1e-4)


def test_the_estimator_is_a_plain_fitted_logistic_regression():
    """``estimator_`` alone predicts what the probe predicts."""
    X, y = overlapping()
    probe = LogisticProbe(CS).fit(X, y)
    assert type(probe.estimator_) is LogisticRegression
    assert probe.estimator_.C == probe.C_
    assert np.abs(probe.estimator_.predict_proba(X) - probe.predict_proba(X)).max() < 1e-6
    assert (probe.estimator_.predict(X) == probe.predict(X)).all()


def test_the_path_ends_when_the_loss_has_turned():
    """Two worse values of C end the path: it is a prefix of the grid, and the choice is that of the whole grid."""
    X, y = overlapping(150)
    stopped, whole = LogisticProbe(CS).fit(X, y), LogisticProbe(CS, patience=None).fit(X, y)
    assert len(whole.path_) == len(CS) > len(stopped.path_)
    assert [p.C for p in stopped.path_] == [p.C for p in whole.path_][: len(stopped.path_)]
    assert stopped.C_ == whole.C_
    best = [p.log_loss for p in stopped.path_].index(min(p.log_loss for p in stopped.path_))
    assert best == len(stopped.path_) - 3


def test_a_c_that_is_clearly_worse_is_not_solved_to_the_end():
    """The early stop saves passes; the choice, its loss and the fit are those of a path solved to the end."""
    X, y = overlapping(600, 40, 5)
    stopped, whole = LogisticProbe(CS, patience=9).fit(X, y), LogisticProbe(CS, patience=None).fit(X, y)
    assert stopped.n_iter_ < whole.n_iter_
    assert len(stopped.path_) == len(whole.path_)
    assert stopped.C_ == whole.C_
    assert [p.log_loss for p in stopped.path_] == pytest.approx([p.log_loss for p in whole.path_], rel=0.1)
    assert min(p.log_loss for p in stopped.path_) == pytest.approx(min(p.log_loss for p in whole.path_), abs=1e-4)
    assert objective(X, y, stopped, stopped.C_) == pytest.approx(objective(X, y, whole, whole.C_), rel=1e-6)


def test_shuffled_labels_give_chance_accuracy():
    """On shuffled labels the out-of-fold accuracy is near a quarter and the strongest penalty is chosen."""
    X, y = overlapping()
    shuffled = np.random.default_rng(0).permutation(y)
    probe = LogisticProbe(CS).fit(X, shuffled)
    assert max(p.log_loss for p in probe.path_[:1]) == pytest.approx(np.log(4), abs=0.02)
    assert probe.path_[CS.tolist().index(probe.C_)].accuracy == pytest.approx(0.25, abs=0.1)


def test_a_group_is_never_on_both_sides_of_a_fold():
    """With every row four times, groups give the loss of unseen rows; without groups it is too low."""
    X, y = overlapping(80)
    X, y, groups = np.repeat(X, 4, 0), np.repeat(y, 4), np.repeat(np.arange(80), 4)
    without, grouped = LogisticProbe(CS).fit(X, y), LogisticProbe(CS).fit(X, y, groups)
    assert min(p.log_loss for p in grouped.path_) > 2 * min(p.log_loss for p in without.path_)
    third = LogisticProbe(CS, cv=1 / 3).fit(X, y, groups)
    assert third.n_folds_ == 1
    assert min(p.log_loss for p in third.path_) > 2 * min(p.log_loss for p in without.path_)


def test_half_precision_and_memory_maps_give_the_same_head(tmp_path):
    """A memory map gives bit-identical weights; float16 features those of their float32 values."""
    X, y = overlapping()
    np.save(tmp_path / "X.npy", X)
    plain = LogisticProbe(CS).fit(X, y)
    mapped = LogisticProbe(CS).fit(np.load(tmp_path / "X.npy", mmap_mode="r"), y)
    assert (mapped.coef_ == plain.coef_).all()
    half = X.astype(np.float16)
    assert (LogisticProbe(CS).fit(half, y).coef_ == LogisticProbe(CS).fit(half.astype(np.float32), y).coef_).all()


def test_the_block_size_does_not_change_the_result(monkeypatch):
    """Small blocks, and rows neither projected nor kept by feature, give the same C and objective."""
    X, y = overlapping(500)
    whole = LogisticProbe(CS).fit(X, y)
    monkeypatch.setattr("embedstore.classify.heads.linear.softmax._BLOCK_LOGITS", 700)
    monkeypatch.setattr("embedstore.classify.heads.linear.softmax._BY_FEATURE", 0)
    monkeypatch.setattr("embedstore.classify.heads.linear.probe._PASSES", 0)
    parts = LogisticProbe(CS).fit(X, y)
    assert parts.C_ == whole.C_
    assert objective(X, y, parts, parts.C_) == pytest.approx(objective(X, y, whole, parts.C_), rel=1e-6)


def test_torch_and_numpy_find_the_same_head():
    """The code that a GPU runs, on torch's CPU, gives the same C, objective and losses."""
    pytest.importorskip("torch")
    for classes in (2, 4):
        X, y = overlapping(classes=classes)
        ours, torch_probe = LogisticProbe(CS, device="cpu").fit(X, y), LogisticProbe(CS, device="cpu:0").fit(X, y)
        assert torch_probe.C_ == ours.C_
        assert [p.log_loss for p in torch_probe.path_] == pytest.approx([p.log_loss for p in ours.path_], abs=1e-3)
        assert objective(X, y, torch_probe, ours.C_) == pytest.approx(objective(X, y, ours, ours.C_), rel=1e-6)


@pytest.mark.gpu
def test_a_gpu_finds_the_same_head():
    """CUDA gives the C and the objective of the CPU."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    X, y = overlapping(2000, 256, 20)
    cpu, gpu = LogisticProbe(CS, device="cpu").fit(X, y), LogisticProbe(CS, device="cuda").fit(X, y)
    assert gpu.C_ == cpu.C_
    assert objective(X, y, gpu, cpu.C_) == pytest.approx(objective(X, y, cpu, cpu.C_), rel=1e-5)


def test_standard_scaling_is_part_of_the_weights():
    """``scale="standard"`` equals a StandardScaler before the regression, in weights for the raw features."""
    for rows in (300, 30):
        X, y = overlapping(rows)
        ours = LogisticProbe([0.1], scale="standard").fit(X, y)
        peer = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=5000))
        assert ours.predict_proba(X) == pytest.approx(peer.fit(X.astype(np.float64), y).predict_proba(X), abs=2e-4)


def test_one_value_of_c_needs_no_folds():
    """One shot per class can be fitted if C is given: there is nothing to choose."""
    for Cs in ([1.0], 1.0):
        probe = LogisticProbe(Cs).fit(np.eye(3, dtype=np.float32), ["a", "b", "c"])
        assert (probe.C_, probe.path_, probe.n_folds_) == (1.0, [], 0)
    assert list(probe.predict(np.eye(3))) == ["a", "b", "c"]


def test_a_share_below_one_is_a_single_hold_out():
    """``cv=0.25`` scores each C on one stratified quarter, then fits on all rows."""
    X, y = overlapping()
    probe = LogisticProbe(CS, cv=0.25).fit(X, y)
    assert (probe.n_folds_, len(probe.path_[0].fold_log_loss)) == (1, 1)
    tight = LogisticRegression(C=probe.C_, tol=1e-8, max_iter=5000).fit(X.astype(np.float64), y)
    assert objective(X, y, probe, probe.C_) == pytest.approx(objective(X, y, tight, probe.C_), rel=1e-6)


def test_much_work_is_scored_on_a_hold_out_by_default(monkeypatch):
    """Without ``cv`` there are five folds, and a tenth of the rows if a pass would be long; an explicit cv is kept."""
    X, y = overlapping()
    assert LogisticProbe(CS).fit(X, y).n_folds_ == 5
    monkeypatch.setattr("embedstore.classify.heads.linear.folds._MAX_WORK", X.size * 4 * 5 - 1)
    assert LogisticProbe(CS).fit(X, y).n_folds_ == 5, "thirty rows are too few for a hold-out"
    monkeypatch.setattr("embedstore.classify.heads.linear.folds._MIN_HOLDOUT", 30)
    much = LogisticProbe(CS).fit(X, y)
    assert much.n_folds_ == 1
    assert much.path_ == LogisticProbe(CS, cv=0.1).fit(X, y).path_
    assert LogisticProbe(CS, cv=5).fit(X, y).n_folds_ == 5


@pytest.mark.parametrize("cv", [5, 0.2])
def test_groups_that_are_all_different_change_nothing(cv):
    """If no two groups are equal the folds are scikit-learn's own."""
    X, y = overlapping()
    alone = np.random.default_rng(0).permutation(len(y))
    assert LogisticProbe(CS, cv=cv).fit(X, y, alone).path_ == LogisticProbe(CS, cv=cv).fit(X, y).path_


@pytest.mark.parametrize("shape", [(120, 300, 4), (300, 60, 3)], ids=["separable", "overlapping"])
def test_the_best_c_and_its_neighbors_are_exact_along_the_default_grid(shape):
    """The choice is that of a path solved to the end in double precision; its loss and those of its neighbors
    agree to 1e-3, all others to 2%."""
    X, y = overlapping(*shape)
    ours, exact = LogisticProbe().fit(X, y), LogisticProbe(tol=1e-9, patience=None).fit(X.astype(np.float64), y)
    assert ours.C_ == exact.C_
    best = [p.C for p in ours.path_].index(ours.C_)
    losses, exact_losses = ([p.log_loss for p in probe.path_[: len(ours.path_)]] for probe in (ours, exact))
    assert losses[best - 1 : best + 2] == pytest.approx(exact_losses[best - 1 : best + 2], abs=1e-3)
    assert losses == pytest.approx(exact_losses, rel=0.02)


def test_a_class_absent_from_a_fold_is_not_scored_there():
    """Class 2 is in one group: its fold trains without it, its rows are counted as unscored, the last fit has it."""
    X, y = overlapping(90, classes=3)
    groups = np.where(y == 2, 1000, np.arange(90) % 30)
    probe = LogisticProbe(CS, keep_out_of_fold=True).fit(X, y, groups)
    assert probe.n_unscored_ == (y == 2).sum()
    assert all(np.isfinite(p.log_loss) for p in probe.path_)
    assert probe.out_of_fold_[y == 2, 2] == pytest.approx(0)
    assert (probe.predict(X)[y == 2] == 2).mean() > 0.5


def test_out_of_fold_probabilities_are_those_of_the_other_folds():
    """Each row's probabilities are those of a fit on the other folds at the chosen C."""
    X, y = overlapping()
    probe = LogisticProbe(CS, keep_out_of_fold=True).fit(X, y)
    for train, test in folds(y):
        peer = LogisticRegression(C=probe.C_, tol=1e-8, max_iter=5000).fit(X[train].astype(np.float64), y[train])
        assert probe.out_of_fold_[test] == pytest.approx(peer.predict_proba(X[test]), abs=5e-3)
    true = probe.out_of_fold_[np.arange(len(y)), y]
    best = min(p.log_loss for p in probe.path_)
    assert -np.log(true).mean() == pytest.approx(best, abs=1e-3)


def test_the_same_seed_gives_the_same_head():
    """Two fits agree bit for bit; other folds give other losses."""
    X, y = overlapping()
    one, two = LogisticProbe(CS).fit(X, y), LogisticProbe(CS).fit(X, y)
    assert (one.coef_ == two.coef_).all()
    assert one.path_ == two.path_
    assert LogisticProbe(CS, random_state=1).fit(X, y).path_ != one.path_


def test_a_fit_that_did_not_converge_warns():
    """With two passes a ConvergenceWarning names the distance and the cure."""
    X, y = overlapping()
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        LogisticProbe([100.0], max_iter=2).fit(X, y)


@pytest.mark.parametrize(
    ("y", "groups", "options", "message"),
    [
        (["a"] * 6, None, {}, "1 class, 'a'"),
        (["a", "a", "a", "a", "b", "c"], None, {}, "class 'b' has 1 sample"),
        (["a", "b"] * 3, [0, 0, 0, 1, 1, 1], {"cv": 3}, "2 groups cannot be cut into 3 folds"),
        (["a", "b"] * 3, None, {"cv": 1}, "at least 2 folds or a share below 1"),
        (["a", "a", "a", "b", "b", "b"], [0, 0, 0, 1, 1, 1], {"cv": 2}, "one class only"),
        (["a", "b"] * 3, [0, 0, 1, 1, 2, 2], {"cv": -1}, "at least 2 folds or a share below 1"),
    ],
)
def test_labels_that_cannot_choose_c_are_refused(y, groups, options, message):
    """One class, one class of two rows, and too few groups or folds are errors."""
    with pytest.raises(LabelError, match=message):
        LogisticProbe(**options).fit(np.random.default_rng(0).standard_normal((6, 4)), y, groups)


def test_a_c_that_is_not_positive_is_refused():
    """Zero and an empty list are errors."""
    for bad in ([0.0, 1.0], []):
        with pytest.raises(ValueError, match="positive"):
            LogisticProbe(bad).fit(np.eye(4), [0, 1, 0, 1])


def test_the_cpu_path_does_not_import_torch():
    """A fit on the CPU does not import torch."""
    code = (
        "import sys, numpy as np; from embedstore.classify.heads import LogisticProbe\n"
        "LogisticProbe(device='cpu').fit(np.random.default_rng(0).standard_normal((40, 5)), np.arange(40) % 2)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
