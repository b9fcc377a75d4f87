"""Tip-Adapter and the blend of prototypes with prompts."""

import numpy as np
import pytest

from embedstore.classify.heads import PromptBlend, TipAdapter, ZeroShotHead
from embedstore.classify.heads.few_shot import cosine_batches
from embedstore.errors import LabelError

CLASSES = [f"c{i}" for i in range(5)]


def scene(shots, seed=0, dim=32):
    """Return text vectors that are poor guesses of the classes, and shots, validation and test rows."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((5, dim))
    text = centers + 2.0 * rng.standard_normal((5, dim))

    def draw(n):
        y = np.repeat(np.arange(5), n)
        X = centers[y] + 1.3 * rng.standard_normal((len(y), dim))
        return X.astype(np.float32), np.array(CLASSES)[y]

    return text.astype(np.float32), draw(shots), draw(20), draw(100)


def tip_logits(text, keys, votes, X, alpha, beta):
    """Return the logits of the formula in the paper."""
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    text, keys, X = unit(text), unit(keys), unit(X)
    return 100 * X @ text.T + alpha * np.exp(-beta * (1 - X @ keys.T)) @ votes


def test_tip_adapter_computes_the_formula_of_the_paper():
    """Logits are 100 f.W + alpha exp(-beta (1 - f.K)) V with the alpha and beta chosen on validation rows."""
    text, (X, y), val, (X_test, _) = scene(4)
    head = TipAdapter(text, CLASSES).fit(X, y, *val)
    votes = (y[:, None] == np.array(CLASSES)).astype(float)
    expected = tip_logits(text, X, votes, X_test, head.alpha_, head.beta_)
    assert head.decision_function(X_test) == pytest.approx(expected, abs=1e-3)
    assert head.alpha_ > 0


def test_the_chosen_alpha_and_beta_are_the_best_on_validation():
    """No other pair of the grid has a higher validation accuracy."""
    text, (X, y), (X_val, y_val), _ = scene(4)
    head = TipAdapter(text, CLASSES).fit(X, y, X_val, y_val)
    votes = (y[:, None] == np.array(CLASSES)).astype(float)
    accuracy = {
        (a, b): (np.array(CLASSES)[tip_logits(text, X, votes, X_val, a, b).argmax(1)] == y_val).mean()
        for a in head.alphas
        for b in head.betas
    }
    assert accuracy[head.alpha_, head.beta_] == max(accuracy.values())
    assert head.tuning_rows_ == "validation rows"


@pytest.mark.parametrize("make", [TipAdapter, PromptBlend, lambda t, c: TipAdapter(t, c, fine_tune=True)])
def test_without_shots_the_head_is_zero_shot(make):
    """Without rows the logits equal those of the zero-shot head."""
    text, _, val, (X, _) = scene(1)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    head = make(text, CLASSES).fit(np.zeros((0, 32)), [], *val)
    assert head.decision_function(X) == pytest.approx(ZeroShotHead(text, CLASSES).decision_function(X), abs=1e-3)
    assert head.tuning_rows_ == "no shots"


@pytest.mark.parametrize("make", [TipAdapter, PromptBlend, lambda t, c: TipAdapter(t, c, fine_tune=True)])
def test_more_shots_give_a_higher_accuracy(make):
    """Mean accuracy of three seeds: zero-shot is two points or more below 4 shots, and 4 shots are below 16."""
    mean = {}
    for shots in (0, 4, 16):
        accuracies = []
        for seed in range(3):
            text, (X, y), val, (X_test, y_test) = scene(max(shots, 1), seed)
            rows = (X, y) if shots else (X[:0], y[:0])
            accuracies.append((make(text, CLASSES).fit(*rows, *val).predict(X_test) == y_test).mean())
        mean[shots] = np.mean(accuracies)
    assert mean[0] + 0.02 < mean[4]
    assert mean[4] < mean[16]


def test_fine_tuned_keys_fit_the_shots_better():
    """Training moves the keys away from the shots and lowers the loss on them."""
    text, (X, y), val, _ = scene(4)
    plain, tuned = (TipAdapter(text, CLASSES, fine_tune=f, alphas=(1.0,), betas=(5.5,)) for f in (False, True))
    column = np.searchsorted(CLASSES, y)
    loss = [-np.log(h.fit(X, y, *val).predict_proba(X)[np.arange(20), column]).mean() for h in (plain, tuned)]
    assert loss[1] < loss[0]
    assert np.abs(tuned.keys_ - plain.keys_).max() > 1e-3


def test_fine_tuning_moves_keys_down_the_gradient():
    """The sign of a first small step is opposite to the numerical derivative of the loss."""
    text, (X, y), _, _ = scene(2)
    head = TipAdapter(text, CLASSES, fine_tune=True, epochs=1, learning_rate=1e-5, batch_size=100)
    head.fit(X, y)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    votes = (y[:, None] == np.array(CLASSES)).astype(float)

    def loss(keys):
        f = unit.astype(np.float64)
        t = text / np.linalg.norm(text, axis=1, keepdims=True)
        z = 100 * f @ t.T + np.exp(-5.5 * (1 - f @ keys.T)) @ votes
        z -= z.max(1, keepdims=True)
        return -(z[votes > 0].reshape(-1) - np.log(np.exp(z).sum(1))).mean()

    step = head._train_keys(unit, np.searchsorted(CLASSES, y)) - unit * (1 - 1e-5 * 0.01)
    for row, col in [(0, 0), (3, 7), (9, 31)]:
        nudge = np.zeros_like(unit, dtype=np.float64)
        nudge[row, col] = 1e-5
        slope = (loss(unit + nudge) - loss(unit - nudge)) / 2e-5
        if abs(slope) > 1e-6:
            assert np.sign(step[row, col]) == -np.sign(slope)


def test_fine_tuned_keys_are_those_of_the_published_optimizer():
    """PyTorch's AdamW with epsilon 1e-4, weight decay 0.01 and a cosine schedule on the same batches gives these keys.

    With its default epsilon of 1e-8 the keys end elsewhere, apart by a tenth of the way or more.
    """
    torch = pytest.importorskip("torch")
    text, (X, y), _, _ = scene(4)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    column = np.searchsorted(CLASSES, y)
    head = TipAdapter(text, CLASSES, fine_tune=True, epochs=20, batch_size=8).fit(X, y)
    text_unit = torch.tensor(text / np.linalg.norm(text, axis=1, keepdims=True), dtype=torch.float32)
    images, votes = torch.tensor(unit, dtype=torch.float32), torch.eye(len(CLASSES))[column]

    def trained(epsilon):
        keys = images.clone().requires_grad_()
        optimizer = torch.optim.AdamW([keys], lr=1e-3, eps=epsilon)
        batches = [rows for rows, _ in cosine_batches(len(column), 8, 20, 0)]
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
        for rows in batches:
            optimizer.zero_grad()
            logits = 100 * images[rows] @ text_unit.T + torch.exp(-5.5 * (1 - images[rows] @ keys.T)) @ votes
            torch.nn.functional.cross_entropy(logits, torch.tensor(column[rows])).backward()
            optimizer.step()
            schedule.step()
        return keys.detach().numpy()

    published, default = trained(1e-4), trained(1e-8)
    moved = np.linalg.norm(published - unit)
    assert np.linalg.norm(head.keys_ - published) < 1e-3 * moved
    assert np.linalg.norm(head.keys_ - default) > 0.1 * moved


def test_without_validation_rows_a_quarter_of_the_shots_tunes():
    """With eight shots per class a quarter tunes and all of them are keys; with one shot the defaults are used."""
    text, (X, y), _, _ = scene(8)
    head = TipAdapter(text, CLASSES).fit(X, y)
    assert (head.tuning_rows_, len(head.keys_)) == ("held-out shots", 40)
    one = TipAdapter(text, CLASSES).fit(X[::8], y[::8])
    assert (one.tuning_rows_, one.alpha_, one.beta_) == ("published defaults", 1.0, 5.5)


def test_a_blend_with_a_strong_penalty_is_prototypes_plus_prompts():
    """With a very strong penalty the weights are the class means and one text weight."""
    text, (X, y), val, _ = scene(4)
    head = PromptBlend(text, CLASSES, penalties=(1e6,), alphas=(2.0,)).fit(X, y, *val)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    means = np.stack([unit[y == c].mean(0) for c in CLASSES])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert head.weights_ == pytest.approx(means, abs=1e-4)
    assert head.text_weights_ == pytest.approx(np.full(5, 2.0), abs=1e-3)


def test_the_trained_blend_is_a_minimum():
    """At the solution with a weak penalty no small random change of the weights lowers the loss."""
    text, (X, y), val, _ = scene(4)
    head = PromptBlend(text, CLASSES, logit_scale=10.0, penalties=(0.1,)).fit(X, y, *val)
    shots = head._encode(X, y)
    w, a = (v.astype(np.float64) for v in head._train(shots, 1.0, 0.1))
    start_w = head._train(shots, 1.0, np.inf)[0]
    text_unit = text / np.linalg.norm(text, axis=1, keepdims=True)

    def loss(w, a):
        z = 10 * shots[0].astype(np.float64) @ (w + a[:, None] * text_unit).T
        z -= z.max(1, keepdims=True)
        data = (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), shots[1]]).mean()
        return data + 0.05 * (((w - start_w) ** 2).sum() + ((a - 1) ** 2).sum())

    rng, here = np.random.default_rng(0), loss(w, a)
    for _ in range(20):
        assert loss(w + 1e-2 * rng.standard_normal(w.shape), a + 1e-2 * rng.standard_normal(5)) > here


def test_labels_outside_the_classes_are_refused():
    """A shot of an unknown class and validation features without labels are errors."""
    text, (X, y), (X_val, _), _ = scene(2)
    with pytest.raises(LabelError, match="labels wolf are not"):
        TipAdapter(text, CLASSES).fit(X, np.where(y == "c0", "wolf", y))
    with pytest.raises(LabelError, match="both or neither"):
        PromptBlend(text, CLASSES).fit(X, y, X_val)
