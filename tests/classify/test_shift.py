"""The two-sample test holds its level and finds shifts; the verb counts what it leaves out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

import embedstore as es
from embedstore.classify.evaluation import two_sample
from embedstore.classify.evaluation.shift import ItemSets, ShiftSettings, measure_shift
from embedstore.classify.evaluation.two_sample import two_sample_test
from embedstore.cli import main
from embedstore.errors import BadOption, LabelError, UnknownColumn
from tests.classify.test_near_duplicates import features
from tools.evaluation_promises.sets import IGNORE, p_values


def test_equal_sets_are_rarely_called_different():
    """Of 150 pairs at most 10% have p <= 0.05, with half of the rows in each set and with a third."""
    assert (p_values(100, 60, 30) <= 0.05).mean() <= 0.1
    assert (p_values(50, 60, 20, "heavy tails") <= 0.05).mean() <= 0.12
    assert (p_values(15, 50, 25, group_size=4) <= 0.05).mean() <= 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "n_second", "kind", "size"),
    [(60, 30, "normal", 1), (200, 40, "normal", 1), (60, 20, "heavy tails", 1), (50, 25, "normal", 4)],
)
def test_the_level_holds_in_many_draws(n, n_second, kind, size):
    """Of 1,000 pairs (300 with groups) 5% have p <= 0.05, and 10% have p <= 0.1, but for three standard errors."""
    runs = 1000 if size == 1 else 300
    p = p_values(runs, n, n_second, kind, size)
    for level in (0.05, 0.1):
        assert abs((p <= level).mean() - level) <= 3 * np.sqrt(level * (1 - level) / runs)


def test_copies_would_break_the_level():
    """Eight copies of each draw that count as draws of their own show a shift of equal sets."""
    rng = np.random.default_rng(3)
    X, second = np.repeat(rng.normal(size=(40, 6)), 8, 0), np.repeat(np.arange(40) < 20, 8)
    X = X + 0.01 * rng.normal(size=X.shape)
    data = features(X, second, groups=np.repeat(np.arange(40), 8))
    apart = replace(data, groups=np.arange(320))
    assert measure_shift(ItemSets(apart, second, "a", "b"), ShiftSettings(IGNORE)).p_value < 0.01
    assert measure_shift(ItemSets(data, second, "a", "b"), ShiftSettings(IGNORE)).p_value > 0.05


@pytest.mark.parametrize("change", ["mean", "scale"])
def test_a_shift_is_found(change):
    """A shift of the mean is found, and one of the spread around the same mean, which no linear classifier sees."""
    rng = np.random.default_rng(0)
    X, second = rng.normal(size=(600, 16)), np.arange(600) < 300
    if change == "mean":
        X[second, 0] += 1
    else:
        X[second] *= 1.4
    test = two_sample_test(X.astype(np.float32), second)
    assert test.p_value == pytest.approx(1 / 500)
    assert test.auroc > 0.65 > test.noticed_auroc > 0.5


def test_the_scores_are_those_of_ridge_regressions_of_the_other_folds():
    """Against scikit-learn, with the penalty that the test has chosen; the AUROC is scikit-learn's."""
    rng = np.random.default_rng(1)
    Z, sides, fold_of = rng.normal(size=(90, 12)), (rng.random((90, 1)) < 0.4).astype(float), np.arange(90) % 5
    scores = two_sample.left_out_scores(Z, sides, fold_of)
    for fold in range(5):
        train = fold_of != fold
        centered = Z[train] - Z[train].mean(0)
        alpha = two_sample.ridge_penalty(np.linalg.svd(centered, compute_uv=False) ** 2, train.sum() / 10)
        expected = Ridge(alpha).fit(Z[train], sides[train, 0]).predict(Z[~train])
        assert scores[~train, 0] == pytest.approx(expected, abs=1e-8)
    assert two_sample.aurocs(scores, sides > 0)[0] == pytest.approx(roc_auc_score(sides[:, 0], scores[:, 0]))


@pytest.fixture
def store(tmp_path):
    """200 old and 100 new items, of which 30 are of another kind; 10 copies across; a split without shift."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 10)).astype(np.float32)
    X[270:, 0] += 4
    X[200:210] = X[:10]
    out = es.create(tmp_path / "s.store")
    columns = {
        "uri": [f"/{n}" for n in range(300)],
        "year": np.where(np.arange(300) < 200, 2020, 2024),
        "split": np.where(rng.permutation(300) < 150, "train", "test"),
    }
    out.add_vectors(X, columns)
    return out


def test_the_items_that_show_the_shift_come_first(store):
    """The 30 strange items are the first of the second set, in the report, the table and the JSON."""
    report = store.shift("year < 2024", "year >= 2024")
    assert report.is_shown
    assert report.auroc.low > 0.5
    assert report.summary.startswith("a ")
    strangest = [i.item for i in report.items if i.side == "second"][:25]
    assert np.mean([item > 270 for item in strangest]) > 0.8
    assert (report.n_first, report.n_second, report.n_shared) == (200, 100, 20)
    assert (report.draws_first, report.draws_second, report.sampled) == (190, 90, False)
    assert report.df().columns.tolist() == ["item", "side", "score"]
    assert store.sql("select 1 from runs where verb = 'shift'").rows


def test_without_filters_train_is_compared_with_test(store):
    """The split is random: no shift is shown, and the sentence says which one would have been noticed."""
    report = store.shift()
    assert not report.is_shown
    assert f"{report.noticed_auroc:.3f} would have been noticed" in report.summary
    assert (report.first, report.second) == ("split = 'train'", "split = 'test'")


def test_items_in_both_sets_are_left_out_and_many_are_sampled(store):
    """Overlap is counted; the sample has the stated size."""
    report = store.shift("year < 2024", "item > 100", max_items=50)
    assert report.n_both == 100
    assert (report.draws_first, report.draws_second, report.sampled) == (50, 50, True)


def test_what_cannot_be_compared_is_refused(store, tmp_path):
    """One filter alone, a set of a few items, unknown columns, no split."""
    with pytest.raises(BadOption, match="give both filters"):
        store.shift("year < 2024")
    with pytest.raises(LabelError, match="'item between 20 and 27' has 8 independent items"):
        store.shift("item between 20 and 27", "item > 50")
    with pytest.raises(UnknownColumn, match="yaer"):
        store.shift("yaer < 2024", "year >= 2024")
    with pytest.raises(LabelError, match="max_items must be at least 20"):
        store.shift(max_items=5)
    other = es.create(tmp_path / "o.store")
    other.add_vectors(np.eye(4, dtype=np.float32), {"uri": list("abcd")})
    with pytest.raises(LabelError, match="no split of train and test to compare"):
        other.shift()


def test_the_verb_prints_a_sentence_and_writes_pictures(store, tmp_path, capsys):
    """A sentence first, what was left out on stderr, a page, and JSON with uris."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["shift", str(store.path), *map(str, arguments)])
        return ended.value.code, *capsys.readouterr()

    page = tmp_path / "s.html"
    sets = ("--first", "year < 2024", "--second", "year >= 2024")
    code, out, err = run(*sets, "--limit", 4, "-o", page)
    assert code == 0
    assert out.startswith("a ")
    assert "20 items are copies of, or in a group with, items of the other set and were left out" in err
    assert page.read_text().count("<figure") == 8
    facts = json.loads(run(*sets, "--json")[1])
    assert facts["shown"] is True
    assert facts["items"][0]["uri"].startswith("/2")
    assert run("--first", "year < 2024")[0] == 1
