"""The head with one hidden layer on frozen features."""

import numpy as np
import pytest

from embedstore.classify.data.folds import stratified_holdout
from embedstore.classify.heads import MLPHead


def rings(rows=600, seed=0):
    """Return two rings around each other: no line separates them."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    angle, radius = rng.uniform(0, 2 * np.pi, rows), 1 + y + 0.1 * rng.standard_normal(rows)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32), y


def test_it_learns_classes_that_are_not_linearly_separable():
    """It separates two rings in 97 of 100 new rows; a linear head reaches two in three."""
    head = MLPHead(hidden=64, dropout=0.1, batch_size=32).fit(*rings())
    X, y = rings(seed=1)
    assert head.score(X, y) >= 0.97


def test_the_same_seed_gives_the_same_network_and_torch_keeps_its_own():
    """Equal seeds agree bit for bit, another seed differs, and the random state of the caller is unchanged."""
    import torch

    X, y = rings(100)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one = MLPHead(hidden=16, max_epochs=5).fit(X, y)
    assert torch.rand(1) == expected
    two, other = MLPHead(hidden=16, max_epochs=5).fit(X, y), MLPHead(hidden=16, max_epochs=5, random_state=1).fit(X, y)
    assert all((a == b).all() for a, b in zip(one.coefs_, two.coefs_, strict=True))
    assert (one.coefs_[0] != other.coefs_[0]).any()


def test_training_stops_early_and_keeps_the_best_epoch():
    """On random labels training ends long before the last epoch with the weights of the best one."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 30)).astype(np.float32), rng.integers(0, 2, 200)
    head = MLPHead(hidden=64, patience=5, max_epochs=150).fit(X, y)
    best = int(np.argmin(head.loss_curve_))
    assert head.n_iter_ == best + 6 < 150
    _, held_out = stratified_holdout(y, 20, seed=0)
    p = head.predict_proba(X[held_out])[np.arange(len(held_out)), y[held_out]]
    assert -np.log(p).mean() == pytest.approx(head.loss_curve_[best], abs=1e-4)


def test_prediction_is_two_matrix_products():
    """Standardization, ReLU and softmax of the stored arrays give the probabilities."""
    X, y = rings(100)
    head = MLPHead(hidden=8, max_epochs=3).fit(X, y)
    hidden = np.maximum((X - head.mean_) / head.scale_ @ head.coefs_[0] + head.intercepts_[0], 0)
    z = hidden @ head.coefs_[1] + head.intercepts_[1]
    assert head.predict_proba(X)[:, 1] == pytest.approx(1 / (1 + np.exp(z[:, 0] - z[:, 1])), abs=1e-5)


def test_a_class_of_one_row_is_learned_without_a_hold_out():
    """If no split is possible the training loss decides; a constant feature does no harm."""
    X = np.array([[0, 5], [0.1, 5], [3, 5]], np.float32)
    head = MLPHead(hidden=16, dropout=0.0, max_epochs=100).fit(X, ["a", "a", "b"])
    assert head.predict(X).tolist() == ["a", "a", "b"]


def test_one_class_is_refused():
    """A classifier needs at least two classes."""
    with pytest.raises(ValueError, match="one class, 'a'"):
        MLPHead().fit(np.eye(3), ["a"] * 3)
