"""Items of classes without a label count more, as far as there are such classes."""

from collections import Counter

import numpy as np
import pytest

from embedstore.arrays import unit_rows
from embedstore.classify.evaluation.exploration import Exploration, unseen_share


@pytest.mark.parametrize("n_labels", [20, 60, 200])
def test_the_share_of_unseen_classes_is_estimated_without_bias(n_labels):
    """Over 400 draws from 50 classes of unequal size the mean estimate is the mean true share, to 2 points."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(400):
        shares = rng.dirichlet(np.full(50, 0.5))
        seen = Counter(rng.choice(50, n_labels, p=shares).astype(str).tolist())
        unseen = 1 - sum(shares[int(name)] for name in seen)
        errors.append(unseen_share(seen) - unseen)
    assert abs(np.mean(errors)) < 0.02


def groups():
    """Unit rows of four groups of 40, the first two with five labels each, and one row of its own."""
    rng = np.random.default_rng(1)
    means = rng.normal(size=(4, 32)) * 2
    y = np.repeat(np.arange(4), 40)
    X = unit_rows(np.concatenate([means[y] + rng.normal(size=(160, 32)) * 0.5, rng.normal(size=(1, 32)) * 2]))
    return X, y, np.concatenate([np.arange(5), np.arange(40, 45)])


def test_groups_without_a_label_count_more_than_stray_rows():
    """Rows of the two unknown groups count more than those of the known ones, and more than a row like no other."""
    X, y, labeled = groups()
    weights = Exploration(1.0, X[labeled], X).weights(X)
    unknown, known = weights[:160][y >= 2], weights[:160][y < 2]
    assert unknown.min() > known.max()
    assert unknown.min() > weights[160]


def test_where_every_class_is_known_all_count_alike():
    """A share of zero leaves the choice as it is."""
    X, _, labeled = groups()
    assert Exploration(0.0, X[labeled], X).weights(X).tolist() == [1.0] * len(X)


@pytest.mark.parametrize("rows", [1, 2, 21])
def test_few_rows_are_weighed_too(rows):
    """As many weights as rows, all finite and above zero, whatever the number of reference rows."""
    X, _, labeled = groups()
    weights = Exploration(0.5, X[labeled][:1], X[:rows]).weights(X[:rows])
    assert weights.shape == (rows,)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
