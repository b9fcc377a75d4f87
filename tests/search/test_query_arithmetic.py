"""Composed queries, examples, diversity, output and bad input, in Python and on the command line."""

import csv
import json

import duckdb
import numpy as np
import pytest

from embedstore import cli, create
from embedstore.errors import DimensionMismatch, NoTextTower, QueryError, UnknownColumn
from embedstore.search.mmr import maximal_marginal_relevance
from embedstore.search.options import SearchOptions
from embedstore.search.query_arithmetic import combine_vectors, query_from_examples


@pytest.fixture
def store(tmp_path):
    """Five items: on the three axes, between the first two, and near the first; with label and year."""
    store = create(tmp_path / "s")
    rows = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0.1, 0]], np.float32)
    table = {"uri": [f"/{n}.jpg" for n in range(1, 6)], "label": ["x", "y", "z", "xy", "x"], "year": range(2001, 2006)}
    store.add_vectors(rows, {k: list(v) for k, v in table.items()})
    return store


def run(capsys, *arguments):
    """Return exit status, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as e:
        cli.main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return e.value.code or 0, out, err


def test_parts_are_added_and_subtracted_with_weights(store):
    """a + b is between them, a + b - b is a, and weights count."""
    assert store.search(1, plus=[2], k=1)[0].item == 4
    assert store.search(4, minus=[(2, 0.70710678)], k=1)[0].item == 1
    assert store.search(plus=[(1, 1.0), (2, 0.1)], k=1)[0].item == 5
    assert combine_vectors([(2.0, np.array([3, 0], np.float32)), (-1.0, np.array([0, 5], np.float32))]).tolist() == [
        2,
        -1,
    ]


def test_few_examples_use_rocchio(store):
    """The query is 0.75 of the mean of the wanted examples minus 0.15 of the mean of the others."""
    x, y = np.eye(2, dtype=np.float32)
    vector, how = query_from_examples(None, [x, x], [y])
    assert how == "Rocchio"
    assert vector.tolist() == pytest.approx((np.array([0.75, -0.15]) / np.hypot(0.75, 0.15)).tolist())
    assert [h.item for h in store.search(like=[1, 5], unlike=[2], k=2)] == [1, 5]


def test_many_examples_fit_a_classifier():
    """With nine examples on each side that differ in the second axis, the query is that axis."""
    rng = np.random.default_rng(0)
    like = [np.array([1, 0.5 + 0.1 * e, 0], np.float32) for e in rng.standard_normal(9)]
    unlike = [np.array([1, -0.5 + 0.1 * e, 0], np.float32) for e in rng.standard_normal(9)]
    vector, how = query_from_examples(None, like, unlike)
    assert how == "logistic regression"
    assert vector[1] / np.linalg.norm(vector) > 0.99


def test_diversity_prefers_hits_that_differ():
    """After two equal rows a distant one is third; with diversity it is second."""
    rows = np.array([[1, 0], [1, 0], [0.6, 0.8]], np.float32)
    scores = np.array([0.9, 0.9, 0.5])
    assert maximal_marginal_relevance(rows, scores, 3, 0.0).tolist() == [0, 1, 2]
    assert maximal_marginal_relevance(rows, scores, 3, 0.6).tolist() == [0, 2, 1]


def test_pages_of_diverse_hits_are_parts_of_one_list(store):
    """Pages of one hit equal the hits of one search."""
    whole = [h.item for h in store.search(1, k=5, diversity=0.5)]
    assert [store.search(1, k=1, offset=n, diversity=0.5)[0].item for n in range(5)] == whole


def test_hits_are_grouped_and_cut_at_a_score(store):
    """group_by gives one hit per label; min_score without k gives every item that reaches it."""
    assert [h.label for h in store.search(1, group_by="label")] == ["x", "xy", "y", "z"]
    assert [h.item for h in store.search(1, k=None, min_score=0.9)] == [1, 5]
    assert list(store.search(1, where="false")) == []


BAD = [
    ({"k": 0}, QueryError, "between 1 and 100,000"),
    ({"k": -3}, QueryError, "between 1 and 100,000"),
    ({"k": 2_000_000_000}, QueryError, "between 1 and 100,000"),
    ({"offset": -1}, QueryError, "offset"),
    ({"min_score": float("nan")}, QueryError, "min_score"),
    ({"min_score": 3}, QueryError, "min_score"),
    ({"k": None}, QueryError, "min_score"),
    ({"diversity": 2}, QueryError, "diversity"),
    ({"group_by": "lable"}, UnknownColumn, "did you mean label"),
    ({"where": "lable = 'x'"}, UnknownColumn, "did you mean label"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD)
def test_bad_options_are_refused(store, options, error, words):
    """Each option outside its range raises an error that names it."""
    with pytest.raises(error, match=words):
        store.search(1, **options)


QUERIES = [
    (np.array([np.nan, 0, 0], np.float32), QueryError, "not finite"),
    (np.zeros(3, np.float32), QueryError, "zero"),
    (np.ones(4, np.float32), DimensionMismatch, "vectors of 3"),
    ("a dog", NoTextTower, "--backbone clip"),
    ("  ", QueryError, "text is empty"),
    (99, QueryError, "item 99"),
    (None, QueryError, "query is empty"),
]


@pytest.mark.parametrize(("query", "error", "words"), QUERIES)
def test_bad_queries_are_refused(store, query, error, words):
    """NaN, zero, another dimension, words without a text tower, no words, an unknown item and no query raise errors."""
    with pytest.raises(error, match=words):
        store.search(query)


def test_parts_that_cancel_out_are_refused(store):
    """A query of a - a and one of unwanted examples alone raise QueryError."""
    with pytest.raises(QueryError, match="cancel out"):
        store.search(1, minus=[1])
    with pytest.raises(QueryError, match="at least one example"):
        store.search(unlike=[1])


def test_a_search_needs_k_or_a_score():
    """Options without k and min_score raise QueryError."""
    with pytest.raises(QueryError, match="needs min_score"):
        SearchOptions(k=None)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_hits_are_saved_as_tables(store, tmp_path, capsys, suffix):
    """The file has rank, item and the user's own column of every hit."""
    path = tmp_path / f"hits.{suffix}"
    assert run(capsys, "search", store.path, "--item", 1, "-k", 2, "-o", path, "--uris")[:2] == (
        0,
        "/1.jpg\n/5.jpg\n",
    )
    if suffix == "csv":
        rows = [(int(r["rank"]), int(r["item"]), int(r["year"])) for r in csv.DictReader(path.open())]
    else:
        rows = duckdb.sql(f"SELECT rank, item, year FROM '{path}'").fetchall()
    assert rows == [(1, 1, 2001), (2, 5, 2005)]


def test_the_search_command_composes_pages_and_explains(store, capsys):
    """Parts, offset and plan reach the search, and stdout is JSON alone."""
    status, out, _ = run(capsys, "search", store.path, "--plus", "item:1", "--plus", "item:2*0.1", "-k", 1, "--jsonl")
    assert (status, json.loads(out)["item"]) == (0, 5)
    status, out, err = run(capsys, "search", store.path, "--item", 1, "-k", 2, "--offset", 1, "--json", "--explain")
    found = json.loads(out)
    assert [(h["rank"], h["item"]) for h in found["hits"]] == [(2, 5), (3, 4)]
    assert found["plan"]["way"] in ("scan", "gather")
    assert found["plan"]["estimates"]["scan"] > 0
    assert "score_ms" in err


def test_every_change_by_command_is_found_at_once(store, capsys):
    """Editing, deleting, compacting, indexing and clustering answer in JSON, and the next command sees the change."""
    assert json.loads(run(capsys, "edit", store.path, "--set", "label='q'", "--item", 2, "--json")[1]) == {"items": 1}
    assert json.loads(run(capsys, "delete", store.path, "--where", "label = 'q'", "--json")[1]) == {"items": 1}
    assert json.loads(run(capsys, "purge", store.path, "--item", 3, "--json")[1])["vectors"] == 1
    assert json.loads(run(capsys, "compact", store.path, "--json")[1])["rows_dropped"] == 2
    assert json.loads(run(capsys, "index", store.path, "--json")[1])["recall"] == 1.0
    assert json.loads(run(capsys, "info", store.path, "--json")[1])["indexes"][0]["rows"] == 3
    line = next(t for t in run(capsys, "info", store.path)[1].splitlines() if t.startswith("index "))
    assert line.startswith("index SQfp16 of precomputed: 3 rows, recall@10 1.0, ")
    assert line.endswith("; 0 rows added since")
    found = json.loads(run(capsys, "duplicates", store.path, "--threshold", 0.9, "--json")[1])
    assert [r["item"] for r in found["rows"]] == [1, 5]
    assert json.loads(run(capsys, "cluster", store.path, "-k", 2, "--json")[1]) == {"items": 3}
    assert run(capsys, "search", store.path, "--item", 1, "--uris")[1] == "/1.jpg\n/5.jpg\n/4.jpg\n"


@pytest.mark.parametrize(
    "arguments",
    [("delete",), ("edit", "--set", "label=nope(1)", "--where", "true"), ("rename", "/no.jpg", "/yes.jpg"),
     ("search", "--item", "1", "-k", "0")],
)  # fmt: skip
def test_a_failed_command_prints_one_line(store, capsys, arguments):
    """The exit status is 1, stderr has one line, and stdout is empty."""
    status, out, err = run(capsys, arguments[0], store.path, *arguments[1:])
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("embedstore: ")
