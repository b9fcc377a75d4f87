"""The factory, the laziness of the package, and scikit-learn's own checks of every estimator."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore.classify import heads
from embedstore.errors import BadHead, UnknownHead

# What is selected or stopped by held-out rows differs where rows are repeated: a copy of a held-out row trains.
SELECTS = {"check_sample_weight_equivalence_on_dense_data": "the folds of repeated rows are other folds"}


@parametrize_with_checks(
    [
        heads.LogisticProbe(),
        heads.WeightedKNN(),
        heads.NearestPrototype(),
        heads.MLPHead(hidden=32, max_epochs=60),
        heads.OneVsRest("ridge"),
    ],
    expected_failed_checks=lambda e: SELECTS if isinstance(e, heads.LogisticProbe | heads.MLPHead) else {},
)
def test_scikit_learn_accepts_the_estimator(estimator, check):
    """Every check of scikit-learn's ``check_estimator`` passes, one by one."""
    check(estimator)


@pytest.mark.parametrize("name", heads.HEAD_NAMES)
def test_every_name_makes_a_classifier_that_learns(name):
    """Every head separates three well separated classes without an error."""
    rng = np.random.default_rng(0)
    y = np.repeat(["ant", "bee", "wasp"], 30)
    X = 3 * (y[:, None] == np.unique(y)) @ rng.standard_normal((3, 20)) + 0.3 * rng.standard_normal((90, 20))
    head = heads.make_head(name).fit(X.astype(np.float32), y)
    assert list(head.classes_) == ["ant", "bee", "wasp"]
    assert (head.predict(X) == y).all()
    proba = heads.probabilities(head, X)
    assert proba.shape == (90, 3)
    assert proba.sum(1) == pytest.approx(np.ones(90), abs=1e-5)


def test_an_option_reaches_the_estimator():
    """``k=20`` sets k of the neighbors; options override our defaults."""
    assert heads.make_head("knn", k=20).k == 20
    assert heads.make_head("lda", shrinkage=0.5).get_params()["shrinkage"] == 0.5
    assert heads.make_head("lda").get_params()["shrinkage"] == "auto"


def test_an_unknown_name_lists_the_near_ones():
    """The error for ``logstic`` suggests ``logistic``."""
    with pytest.raises(UnknownHead, match="did you mean logistic"):
        heads.make_head("logstic")


def test_an_unknown_option_lists_the_near_ones():
    """The error for ``temprature`` suggests ``temperature``."""
    with pytest.raises(BadHead, match="did you mean temperature"):
        heads.make_head("knn", temprature=0.1)


def test_the_package_alone_imports_nothing_heavy():
    """The package of heads loads neither torch nor scikit-learn nor FAISS; a head loads what it needs."""
    code = (
        "import sys, embedstore.classify.heads as h, embedstore.classify.metrics\n"
        "heavy = lambda: {m for m in ('torch', 'sklearn', 'faiss', 'open_clip', 'scipy') if m in sys.modules}\n"
        "assert not heavy(), heavy()\n"
        "h.LogisticProbe, h.WeightedKNN, h.ZeroShotHead, h.save\n"
        "assert 'torch' not in sys.modules and 'faiss' not in sys.modules, heavy()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_attribute_lists_the_near_ones():
    """The error for a misspelt attribute of the package suggests the right one."""
    with pytest.raises(AttributeError, match="did you mean ZeroShot"):
        _ = heads.ZeroShots
