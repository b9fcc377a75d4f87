"""The interval of a mean over draws holds its level, and no more: held-out rows that some heads get right vary less."""

import numpy as np
import pytest

from embedstore.classify.evaluation.curve_interval import HeldOutScore, mean_interval, normal_reach


def scores_of(rng, n_rows, n_draws, *, copies):
    """Heads of random quality on rows of random difficulty, each repeated; the mean share of right rows is 0.6."""
    difficulty = rng.beta(1.2, 0.8, n_rows)
    quality = rng.normal(0, 0.15, n_draws)
    share = np.clip(difficulty + quality[:, None] * difficulty * (1 - difficulty), 0, 1)
    correct = np.repeat(rng.random(share.shape) < share, copies, axis=1)
    return [HeldOutScore(float(c.mean()), c) for c in correct]


@pytest.mark.parametrize("copies", [1, 8])
@pytest.mark.parametrize(("n_rows", "n_draws"), [(60, 5), (60, 2), (400, 5), (60, 10)])
def test_the_interval_of_a_mean_over_draws_holds_its_level(n_rows, n_draws, copies):
    """In 400 simulated curves it holds the truth in 0.93 to 0.985: neither too rarely nor always."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        scores = scores_of(rng, n_rows, n_draws, copies=copies)
        low, high = mean_interval(scores, np.repeat(np.arange(n_rows), copies))
        held += low <= 0.6 <= high
    assert 0.93 <= held / 400 <= 0.985


def test_heads_that_agree_say_as_much_as_one():
    """Rows that all heads get right or wrong are worth no more than for one head, and all right keeps a width."""
    correct = np.arange(60) % 3 > 0
    one = mean_interval([HeldOutScore(2 / 3, correct)], np.arange(60))
    assert mean_interval([HeldOutScore(2 / 3, correct)] * 5, np.arange(60)) == pytest.approx(one, abs=1e-9)
    low, high = mean_interval([HeldOutScore(1.0, np.ones(20, bool))] * 3, np.arange(20))
    assert (round(low, 3), high) == (0.839, 1.0)


def test_few_draws_reach_as_far_as_student_says():
    """Without noise of the rows the mean of three numbers has 4.303 standard errors, and of many 1.96."""
    assert normal_reach([1.0, 2.0, 3.0], 0.0) == pytest.approx(4.302653 / np.sqrt(3))
    assert normal_reach([2.0], 0.5) == pytest.approx(1.959964 * 0.5)
    many = np.tile([1.0, 3.0], 5000)
    assert normal_reach(many.tolist(), 0.0) == pytest.approx(1.96 * many.std(ddof=1) / 100, rel=1e-3)
