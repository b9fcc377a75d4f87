"""The verb `sql` ends at its limits also where DuckDB does not look for an interrupt or count an allocation."""

import json
import time

import numpy as np
import pytest

from embedstore import create
from tests.cli.test_cli import run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = create(tmp_path_factory.mktemp("sql") / "s")
    made.add_vectors(np.eye(2, dtype=np.float32), {"uri": ["/1.jpg", "/2.jpg"], "label": ["cat", "dog"]})
    return made.path


def refused(store, *arguments):
    """Return the one line of a query that fails."""
    out = run("sql", store, *arguments)
    assert (out.returncode, out.stdout, out.stderr.count("\n")) == (1, "", 1)
    return out.stderr


@pytest.mark.parametrize("query", ["select repeat('x', 3000000000)", "select range(300000000)"])
def test_one_value_that_is_too_large_ends_at_the_memory_limit(store, query):
    """DuckDB itself does not count the memory of such a value."""
    assert "--memory" in refused(store, query, "--memory", "200MB")


def test_one_value_that_takes_too_long_ends_at_the_time_limit(store):
    """The command is over a few seconds after its limit."""
    begin = time.monotonic()
    slow = "select levenshtein(repeat('a', 900000), repeat('b', 900000))"
    assert "--timeout" in refused(store, slow, "--timeout", "0.5")
    assert time.monotonic() - begin < 20


def test_following_the_message_works(store):
    """A raised limit lets the query run."""
    query = "select len(list(n)) as n from range(1000000) t(n)"
    assert "--memory" in refused(store, query, "--memory", "2MB")
    out = run("sql", store, query, "--memory", "1GB", "--timeout", "60", "--json")
    assert json.loads(out.stdout) == [{"n": 1000000}]


def test_a_limit_that_is_none_is_one_line(store):
    """Zero seconds and a word."""
    assert "above 0" in refused(store, "select 1", "--timeout", "0")
    assert "4GB" in refused(store, "select 1", "--memory", "much")
