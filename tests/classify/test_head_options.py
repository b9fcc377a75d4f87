"""Options of heads: what a value means, and that a value without a meaning is refused instead of giving a bad head."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.classify import heads
from embedstore.classify.evaluation.fit import hyperparameters_at_grid_edge
from embedstore.classify.evaluation.learning_curve import LearningCurveSettings
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.errors import BadHead, LabelError
from tests.helpers.clusters import clusters, store_of

X, LABELS = clusters(90, noise=1.0)
Y = np.asarray(LABELS)
VECTORS = np.stack([X[c == Y].mean(0) for c in np.unique(Y)])


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-4, 1e4))
def test_one_c_is_used_as_it_is(C):
    """``C=`` and a list of one value fit with this value and choose nothing."""
    for options in ({"C": C}, {"Cs": [C]}):
        probe = heads.LogisticProbe(**options, tol=0.1).fit(X, Y)
        assert pytest.approx(C) == probe.C_
        assert probe.n_folds_ == 0


def test_a_whole_c_is_not_a_number_of_values():
    """``C=1`` is C = 1; C = 1 is also what the head of a store reports."""
    assert heads.LogisticProbe(C=1).fit(X, Y).C_ == 1
    assert len(heads.LogisticProbe(Cs=2).grid) == 2


@pytest.mark.parametrize("options", [{"Cs": 1}, {"Cs": 0}, {"Cs": True}, {"Cs": np.int64(1)}, {"Cs": -3}, {"Cs": "1"}])
def test_a_number_of_values_below_two_is_refused(options):
    """The message says how to give one value, and that works."""
    with pytest.raises(ValueError, match="C=1"):
        heads.LogisticProbe(**options).fit(X, Y)


@pytest.mark.parametrize(
    "options", [{"C": 0}, {"C": -1.0}, {"C": float("nan")}, {"C": True}, {"Cs": [1, -1]}, {"Cs": []}]
)
def test_c_must_be_positive(options):
    """Zero, negative numbers, NaN and truth values are no C."""
    with pytest.raises(ValueError, match="C"):
        heads.LogisticProbe(**options).fit(X, Y)


@pytest.mark.parametrize("value", [0, -0.07, float("nan"), float("inf"), True, "0.07", None])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda v: heads.WeightedKNN(temperature=v), "temperature"),
        (lambda v: heads.NearestPrototype(temperature=v), "temperature"),
        (lambda v: heads.ZeroShotHead(VECTORS, np.unique(Y), v), "logit_scale"),
        (lambda v: heads.TipAdapter(VECTORS, np.unique(Y), v), "logit_scale"),
        (lambda v: heads.PromptBlend(VECTORS, np.unique(Y), v), "logit_scale"),
        (lambda v: heads.MLPHead(learning_rate=v), "learning_rate"),
        (lambda v: heads.LogisticProbe(tol=v), "tol"),
        (lambda v: heads.KernelProbe((v, 1.0)), "a value of gammas"),
        (lambda v: heads.PromptBlend(VECTORS, np.unique(Y), penalties=(1.0, v)), "a value of penalties"),
        (lambda v: heads.TipAdapter(VECTORS, np.unique(Y), betas=(v,)), "a value of betas"),
    ],
)
def test_a_scale_must_be_above_zero(make, name, value):
    """A temperature of 0 gave NaN and a negative one the reverse order; both were reported as an accuracy."""
    with pytest.raises(BadHead, match=f"{name} must be a number above 0"):
        make(value).fit(X, Y)


WHOLE = [
    (heads.LogisticProbe, "max_iter"),
    (heads.LogisticProbe, "patience"),
    (heads.WeightedKNN, "k"),
    (heads.WeightedKNN, "block_size"),
    *((heads.MLPHead, name) for name in ("hidden", "batch_size", "max_epochs", "patience")),
    *((partial(heads.TipAdapter, VECTORS, np.unique(Y)), name) for name in ("epochs", "batch_size")),
]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WHOLE),
    st.integers(max_value=0) | st.floats() | st.booleans() | st.text(max_size=2) | st.just(float("nan")),
)
def test_a_count_is_a_whole_number_of_at_least_one(option, value):
    """No iterations gave a head that knows nothing, and a batch of -1 rows an error without the option's name."""
    make, name = option
    with pytest.raises(BadHead, match=f"{name} must be a whole number of at least 1"):
        make(**{name: value}).fit(X, Y)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["dropout", "validation_fraction"]),
    st.floats(min_value=1) | st.floats(max_value=0, exclude_max=True) | st.just(float("nan")) | st.booleans(),
)
def test_a_share_is_below_one(name, value):
    """A dropout of 2 was trained and reported as an accuracy."""
    with pytest.raises(BadHead, match=f"{name} must be a share of at least 0 and below 1"):
        heads.MLPHead(**{name: value}).fit(X, Y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heads.MLPHead(weight_decay=-1.0), "weight_decay must be a number of at least 0"),
        (lambda: heads.TipAdapter(VECTORS, np.unique(Y), alphas=(0.0, -1.0)), "a value of alphas must be a number of"),
        (lambda: heads.TipAdapter(VECTORS, np.unique(Y), alphas=()), "alphas must hold at least one value"),
        (lambda: heads.PromptBlend(VECTORS, np.unique(Y), penalties=()), "penalties must hold at least one value"),
        (lambda: heads.KernelProbe(()), "gammas must hold at least one value"),
        (lambda: heads.KernelProbe(1), r"gammas must be a list of values, such as \[1\], not 1"),
        (lambda: heads.PromptBlend(VECTORS, np.unique(Y), alphas=0.5), r"alphas must be a list of values, such as"),
        (lambda: heads.TipAdapter(VECTORS, np.unique(Y), betas="1"), r"betas must be a list of values, such as"),
        (lambda: heads.RidgeHead([]), "alphas must hold at least one value"),
        (lambda: heads.RidgeHead(True), "alphas must be numbers above 0"),
    ],
)
def test_lists_and_penalties_are_checked(make, message):
    """An empty list tries nothing, and a negative penalty rewards what it should limit."""
    head = make()
    with pytest.raises(BadHead, match=message):
        head.fit(X, np.arange(len(X)) if isinstance(head, heads.RidgeHead) else Y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heads.LogisticProbe(100_000), "Cs must be at most 1,000 values to try, not 100,000"),
        (lambda: heads.LogisticProbe(10**30), "Cs must be at most 1,000 values"),
        (lambda: heads.LogisticProbe(np.geomspace(1, 2, 1001)), "Cs must be at most 1,000 values"),
        (lambda: heads.LogisticProbe(max_iter=10**9), "max_iter must be at most 10,000"),
        (lambda: heads.KernelProbe(np.geomspace(1, 2, 1001)), "gammas must be at most 1,000 values"),
        (lambda: heads.KernelProbe(Cs=1001), "Cs must be at most 1,000 values"),
        (lambda: heads.MLPHead(max_epochs=10**9), "max_epochs must be at most 10,000"),
        (lambda: heads.MLPHead(hidden=10**9), "hidden must be at most 16,384"),
        (lambda: heads.TipAdapter(VECTORS, np.unique(Y), epochs=10**9), "epochs must be at most 10,000"),
        (lambda: heads.TipAdapter(VECTORS, np.unique(Y), betas=np.arange(1, 1003)), "betas must be at most 1,000"),
        (lambda: heads.PromptBlend(VECTORS, np.unique(Y), alphas=np.arange(1, 1003)), "alphas must be at most 1,000"),
        (lambda: heads.RidgeHead(10**9), "alphas must be at most 1,000 values"),
    ],
)
def test_a_search_that_would_take_hours_is_refused(make, message):
    """At once, and the message has the limit."""
    head = make()
    with pytest.raises(BadHead, match=message):
        head.fit(X, np.arange(len(X)) if isinstance(head, heads.RidgeHead) else Y)


@pytest.mark.parametrize("head", ["svm", "ridge"])
@pytest.mark.parametrize("value", [10**9, 10**30, float("inf")])
def test_iterations_of_scikit_learns_heads_end(head, value):
    """One call of liblinear cannot be interrupted, and ran on for as long as anybody waited."""
    with pytest.raises(BadHead, match=f"max_iter of head '{head}' must be at most 10,000"):
        heads.make_head(head, max_iter=value)


def test_the_largest_allowed_search_is_accepted():
    """1,000 values of C and of penalties are tried."""
    assert len(heads.LogisticProbe(1000).grid) == 1000
    assert len(heads.RidgeHead(1000).fit(X, np.arange(len(X))).alphas_) == 1000


@pytest.mark.parametrize("cv", [float("inf"), float("nan"), True, 0, -1, 2.5, 1, 10**9])
def test_folds_of_the_search_are_a_small_whole_number_or_a_share(cv):
    """Infinity ended in an OverflowError, and a thousand million folds were as many as a class has rows."""
    with pytest.raises(LabelError, match="cv must be"):
        heads.LogisticProbe(cv=cv).fit(X, Y)


@pytest.mark.parametrize("value", [True, None, -1, 2.5, float("nan"), "0", 2**32])
@pytest.mark.parametrize(
    "make",
    [
        heads.MLPHead,
        heads.LogisticProbe,
        heads.KernelProbe,
        heads.RidgeHead,
        partial(heads.TipAdapter, VECTORS, np.unique(Y)),
        partial(heads.PromptBlend, VECTORS, np.unique(Y)),
    ],
)
def test_a_seed_is_a_whole_number_that_numpy_takes(make, value):
    """PyTorch's own error ended the command."""
    with pytest.raises(BadHead, match="random_state must be a whole number"):
        make(random_state=value).fit(X, np.arange(len(X)) if make is heads.RidgeHead else Y)


@pytest.mark.parametrize("seed", [-1, 2**32, True, 2.5, float("nan"), None, "1"])
def test_seeds_of_an_evaluation_are_checked(seed):
    """Before anything is fitted, for one evaluation and for a curve."""
    for settings_class in (EvaluationSettings, LearningCurveSettings):
        with pytest.raises(LabelError, match="seed must be a whole number from 0"):
            settings_class(seed=seed)


@pytest.mark.parametrize("repeats", [0, -1, 10**9, True, 2.5, float("nan"), None, "1"])
def test_draws_of_a_curve_are_a_number_that_ends(repeats):
    """No draw gave a mean of nothing, and a thousand million draws never ended."""
    with pytest.raises(LabelError, match="repeats must be a whole number from 1 to 1,000"):
        LearningCurveSettings(repeats=repeats)


def test_folds_and_budgets_have_a_limit():
    """The message has it."""
    with pytest.raises(LabelError, match="folds must be at most 1,000"):
        EvaluationSettings(folds=10**9)
    with pytest.raises(LabelError, match="at most 100 label budgets"):
        LearningCurveSettings(range(1, 102))


@pytest.mark.parametrize(
    ("head", "option"), [("svm", "C"), ("svm", "max_iter"), ("ridge", "alpha"), ("lda", "shrinkage"), ("lda", "tol")]
)
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number_of_scikit_learns_heads(head, option, value):
    """``C=true`` was C = 1, and ``shrinkage=true`` a covariance of the variances alone."""
    with pytest.raises(BadHead, match=f"{option} of head '{head}' is no yes-or-no option"):
        heads.make_head(head, **{option: value})


def test_options_of_scikit_learns_heads_that_are_truth_values_are_accepted():
    """Also one whose default is a word."""
    assert heads.make_head("svm", dual=True, fit_intercept=False).get_params()["dual"] is True
    assert heads.make_head("ridge", positive=False).fit(X, Y).classes_.tolist() == np.unique(Y).tolist()


@pytest.mark.parametrize(("name", "near"), [("c", "C"), ("CS", "Cs"), ("MAX_ITER", "max_iter")])
def test_an_option_in_another_case_is_suggested_first(name, near):
    """``c=1`` was answered with "did you mean cv?"."""
    with pytest.raises(BadHead, match=f"did you mean {near}( or|\\?)"):
        heads.make_head("logistic", **{name: 1})


def test_the_command_line_accepts_c_and_refuses_a_temperature_of_zero(tmp_path):
    """Through the store: C = 1 is reported, and the error names the option."""
    store = store_of(tmp_path / "s", X, label=Y)
    assert store.probe("label", head_options={"C": 1}).hyperparameters == {"C": 1.0}
    with pytest.raises(BadHead, match="temperature"):
        store.probe("label", head="knn", head_options={"temperature": 0})
    with pytest.raises(BadHead, match="give C=1"):
        store.probe("label", head_options={"Cs": 1})


def test_a_value_at_the_end_of_its_grid_is_reported():
    """Separable classes want the largest C; a grid around the best value has no end to report."""
    probe = heads.LogisticProbe(Cs=[1e-5, 1e-4]).fit(X, Y)
    assert hyperparameters_at_grid_edge(probe) == {"C": 1e-4}
    assert hyperparameters_at_grid_edge(heads.LogisticProbe(C=1e-4).fit(X, Y)) == {}
    inside = heads.LogisticProbe().fit(X, Y)
    assert (hyperparameters_at_grid_edge(inside) == {}) is (1e-6 < inside.C_ < 1e6)
    kernel = heads.KernelProbe((1e-3, 2e-3, 4e-3), Cs=[1e-3, 1e-2]).fit(X, Y)
    assert hyperparameters_at_grid_edge(kernel).keys() >= {"C"}
    assert ("gamma" in hyperparameters_at_grid_edge(kernel)) is bool(kernel.gamma_ != kernel.gammas_[1])
    assert hyperparameters_at_grid_edge(heads.KernelProbe(C=1.0).fit(X, Y)) == {}
    tip = heads.TipAdapter(VECTORS, np.unique(Y), alphas=(0.0, 0.1), betas=(1.0, 2.0, 3.0)).fit(X[:45], Y[:45], X, Y)
    assert ("alpha" in hyperparameters_at_grid_edge(tip)) is False  # one image weight above 0 is no grid
    assert ("beta" in hyperparameters_at_grid_edge(tip)) is (tip.beta_ != 2.0)


def test_classes_with_one_training_example_are_counted_on_the_training_side(tmp_path):
    """Two items of every class: after the split one is left in training, nothing chooses C, and a note says so."""
    store = store_of(tmp_path / "s", X[:6], label=["a", "a", "b", "b", "c", "c"])
    for head in ("logistic", "kernel"):
        e = store.probe("label", head=head)
        assert (e.hyperparameters["C"], e.n_held_out) == (1, 3)
        assert "3 classes have one example only among the 3 training items" in e.split_notes[-1]
        assert e.split_notes[-1].endswith("C is 1, since nothing is left to choose it by")
        assert store.probe("label", head=head, head_options={"C": 1}).split_notes == e.split_notes[:-1]


def test_the_keys_of_tip_adapter_f_are_trained_with_the_authors_epsilon():
    """A first step of AdamW moves a parameter by rate * g / (|g| + epsilon): small gradients move it less."""
    from embedstore.classify.heads.optimizer import AdamW

    weights = np.zeros(2)
    AdamW([weights], 1.0, 0.0, epsilon=1e-4).step([np.array([1e-4, 1.0])])
    assert weights == pytest.approx([-0.5, -1.0], abs=1e-3)
