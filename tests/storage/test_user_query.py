"""A query of a user reads the tables of the store, and nothing else: no file, setting or network, and no change."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import create
from embedstore import open as open_store
from embedstore.errors import (
    BadFilter,
    BadOption,
    EmbedstoreError,
    QueryError,
    QueryTimeout,
    QueryTooLarge,
    UnknownColumn,
)
from embedstore.storage.query_limits import QueryLimits
from tests.helpers.predictions import put_predictions

READING = {
    "select count(*) from items": ((4,),),
    "from items select item where item = 2": ((2,),),
    "with two as (select 2 as item) select items.item from items join two using (item)": ((2,),),
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3) select max(i) from n": ((3,),),
    "values (1), (2)": ((1,), (2,)),
    "(select 1) union all (select 2) order by 1;": ((1,), (2,)),
    "select max(item) from (describe items), items": ((4,),),
    "select count(*) from items pivot (count(*) for label in ('cat', 'dog'))": None,
    "describe items": None,
    "describe select 1": None,
    "summarize items": None,
    "show tables": None,
    "-- a comment\nselect 1": ((1,),),
    "select sum(n) from range(4) t(n)": ((6,),),
    "select unnest([1, 2])": ((1,), (2,)),
    "select count(*) > 5 from duckdb_tables()": ((True,),),
    "select count(*) from information_schema.tables where table_name = 'items'": ((1,),),
    "select result->>'items' from runs where false": (),
    "explain select 1": None,
    "/* why */ explain (format json) select 1": None,
    "explain analyze select count(*) from items": None,
}

CHANGING = [
    "insert into items (item) values (9)",
    "update items set label = 'x'",
    "delete from items",
    "merge into items using items i2 on true when matched then delete",
    "with x as (insert into items (item) values (9) returning item) select * from x",
    "with x as (delete from items returning item) select * from x",
    "with x as (update items set label = 'x' returning item) select * from x",
    "explain analyze delete from items",
    "explain analyze copy items to '{file}'",
    "create table t (x int)",
    "create temp table items as select 1 as item",
    "create or replace temp macro lower(x) as 'x'",
    "create temp view items as select 1 as item",
    "create secret s (type http)",
    "drop table items",
    "alter table items add column x int",
    "comment on table items is 'x'",
    "truncate items",
    "copy items to '{file}'",
    "copy (select 1) to '{file}' (format csv)",
    "export database '{file}'",
    "import database '{file}'",
    "attach '{file}' as other",
    "detach cat",
    "use memory",
    "set threads = 1",
    "reset threads",
    "set variable x = 1",
    "pragma enable_profiling",
    "pragma memory_limit = '1TB'",
    "install httpfs",
    "load httpfs",
    "update extensions",
    "call enable_logging()",
    "call pragma_version()",
    "checkpoint",
    "force checkpoint",
    "vacuum",
    "analyze",
    "begin",
    "commit",
    "rollback",
    "prepare q as select 1",
    "execute q",
    "deallocate q",
    "select 1; select 2",
    "select 1; delete from items",
    "pivot items on label using count(*)",
]

REACHING = [
    "select * from read_csv('{secret}')",
    "select * from read_text('{secret}')",
    "select * from read_blob('{secret}')",
    "select * from read_json('{secret}')",
    "select * from read_parquet('{secret}')",
    "select * from read_duckdb('{catalog}', table_name = 'items')",
    "select * from glob('{folder}/*')",
    "select * from sniff_csv('{secret}')",
    "select * from parquet_metadata('{secret}')",
    "select * from '{secret}'",
    'select * from "{secret}"',
    "select * from 'https://example.com/x.parquet'",
    "select * from query('select * from read_text(''{secret}'')')",
    "select * from query_table('items')",
    "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "select (select content from read_text('{secret}'))",
    "select count(*) from items where uri in (select content from read_text('{secret}'))",
    "from (describe from read_csv('{secret}'))",
    "summarize from read_csv('{secret}')",
    "explain analyze select * from read_text('{secret}')",
    "select getenv('HOME')",
    "select current_setting('temp_directory')",
    "select getvariable('x')",
    "select write_log('x')",
    "select nextval('s')",
    "from duckdb_settings()",
    "from duckdb_secrets()",
    "from duckdb_extensions()",
    "from duckdb_logs()",
    "from checkpoint('cat')",
    "from enable_logging(storage = 'file', storage_path = '{file}')",
    "from pragma_database_size()",
    "show databases",
    "frame_of_the_caller",
    "select * from frame_of_the_caller",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four items; a head of one class per item and a head of sets predicted some of them."""
    made = create(tmp_path_factory.mktemp("query") / "s")
    table = {"uri": ["/1.jpg", "/2.jpg", "/3.jpg", "/4.jpg"], "label": ["cat", "dog", "cat", None]}
    made.add_vectors(np.eye(4, dtype=np.float32), table)
    put_predictions(made, "species", {1: [("cat", 0.9)], 2: [("cat", 0.6)], 3: [("dog", 0.8)]})
    put_predictions(made, "tags", {1: [("wet", 0.7), ("red", 0.9)], 2: []}, sets=True)
    return made


def rows(store, query, *parameters):
    return store.sql(query, parameters).rows


@pytest.mark.parametrize("query", READING)
def test_a_query_that_only_reads_runs(store, query):
    """Every form of SELECT, and what describes tables and plans."""
    found = rows(store, query)
    assert found == READING[query] if READING[query] is not None else found


def with_files(query, tmp_path, store):
    (tmp_path / "secret.txt").write_text("a\nsecret\n")
    return query.format(
        file=tmp_path / "made", secret=tmp_path / "secret.txt", folder=tmp_path, catalog=store.path / "catalog.duckdb"
    )


@pytest.mark.parametrize("query", CHANGING + REACHING)
def test_a_query_that_does_more_than_read_is_refused_in_one_line(store, tmp_path, query):
    """It changes nothing, makes no file, and its error has no text of a file."""
    frame_of_the_caller = {"a": np.arange(3)}  # noqa: F841 - DuckDB would read it as a table
    before = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(store.path.rglob("*"))]
    with pytest.raises(QueryError) as error:
        store.sql(with_files(query, tmp_path, store))
    assert "\n" not in str(error.value)
    assert "\nsecret" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["secret.txt"]
    assert [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(store.path.rglob("*"))] == before


@pytest.mark.parametrize("expression", ["read_text('{secret}') = 'x'", "current_setting('threads') = '1'",
    "getenv('HOME') = 'x'", "item in (select 1)", "(from read_text('{secret}')) = 'x'", "write_log('x') is null",
    "nextval('s') = 1", "getvariable('x') = 1", "file_exists('{secret}')"])  # fmt: skip
def test_a_filter_reaches_no_file_and_no_setting(store, tmp_path, expression):
    """The same kinds of functions are refused in a filter."""
    with pytest.raises(BadFilter):
        store.search(np.eye(4, dtype=np.float32)[0], where=with_files(expression, tmp_path, store))


def error_of(store, query, parameters=()):
    """Return the message of a query that is refused, None if it runs; any error that is not ours fails the test."""
    try:
        store.sql(query, parameters, timeout=5)
    except EmbedstoreError as e:
        return str(e)
    return None


WORDS = (
    "select from items with x as ( ) insert into delete update set copy to '/tmp/e' create temp table values (1) "
    "explain analyze describe summarize pragma attach ; * 1 returning call read_text ('/etc/hostname') item = where "
    "union all prepare execute load install detach cat use memory label show tables"
).split()


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9))
@settings(max_examples=150, deadline=None)
def test_no_sequence_of_words_changes_the_store(store, words):
    """Random statements either read or are refused with an error of ours; the four items stay as they are."""
    query = " ".join(words)
    if (message := error_of(store, query)) is None:
        assert "read_text" not in query
        assert words[0] in (
            "select",
            "from",
            "with",
            "(",
            "describe",
            "summarize",
            "show",
            "explain",
            "values",
            "table",
        )
    else:
        assert "\n" not in message


def test_what_a_query_leaves_behind_does_not_reach_the_next_verb(store, tmp_path):
    """A table of the user's that hides the items would let a delete acknowledge what it did not do."""
    copy = create(tmp_path / "c")
    copy.add_vectors(np.eye(4, dtype=np.float32), {"uri": [f"/{n}.jpg" for n in range(4)]})
    for query in ("create temp table items as select 1::bigint as item, null::uuid as content", "use memory"):
        with pytest.raises(QueryError):
            copy.sql(query)
    assert copy.delete(items=[1]).items == 1
    assert rows(open_store(copy.path), "select count(*) from items") == ((3,),)


def test_a_query_ends_at_its_time_limit_and_the_store_goes_on(store):
    """The error names the limit and the option that raises it."""
    endless = "select count(*) from range(100000000) a, range(100000000) b"
    begin = time.monotonic()
    with pytest.raises(QueryTimeout, match=r"0.3 s.*--timeout.*timeout="):
        store.sql(endless, timeout=0.3)
    assert time.monotonic() - begin < 5
    with pytest.raises(QueryTimeout):
        store.sql("select n from range(10000000000) t(n)", timeout=0.3, memory="64GB")
    assert rows(store, "select 1") == ((1,),)
    assert threading.active_count() < 10


@pytest.mark.parametrize(
    "query",
    [
        "select list(n) from range(100000000) t(n)",
        "select n from range(100000000) t(n) order by hash(n)",
        "select n, repeat('x', 1000) from range(100000) t(n)",
        "select [n, n + 1] from range(3000000) t(n)",
    ],
)
def test_a_query_ends_at_its_memory_limit(store, query):
    """Both what DuckDB holds and what Python would hold count."""
    with pytest.raises(QueryTooLarge, match=r"50MB.*--memory.*memory="):
        store.sql(query, memory="50MB")
    assert rows(store, "select 1") == ((1,),)


def test_a_raised_limit_lets_a_query_run(store):
    """Following the message works."""
    query = "select n from range(300000) t(n)"
    with pytest.raises(QueryTooLarge):
        store.sql(query, memory="10MB")
    assert len(rows(store, query)) == 300000
    assert store.sql("select 1", timeout=3600, memory=2 << 30).rows == ((1,),)


@pytest.mark.parametrize("limit", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"memory": "much"},
    {"memory": 0}, {"memory": "-1GB"}, {"timeout": float("inf")}])  # fmt: skip
def test_a_limit_that_is_none_is_refused(store, limit):
    """One line says what a limit is."""
    with pytest.raises((BadOption, QueryError)):
        store.sql("select 1", **limit)


def test_predictions_are_columns_of_the_items(store):
    """As in filters: the class and the score, NULL without a prediction, a list for a head of sets."""
    query = "select item, pred.species, pred.species.score, pred.tags from items order by item"
    result = store.sql(query)
    assert result.column_names == ("item", "species", "score", "tags")
    assert [(i, c, s and round(s, 3), t) for i, c, s, t in result.rows] == [
        (1, "cat", 0.9, ["red", "wet"]),
        (2, "cat", 0.6, []),
        (3, "dog", 0.8, None),
        (4, None, None, None),
    ]


PREDICTED = {
    "select item from items where pred.species = 'cat' and pred.species.score > 0.7": ((1,),),
    "select item from items where items.pred.species = 'dog'": ((3,),),
    "select pred.species, count(*) from items group by pred.species order by all": (("cat", 2), ("dog", 1), (None, 1)),
    "select pred.species as p from items group by all having count(*) = 2": (("cat",),),
    "select i.item from items i where i.label <> i.pred.species": ((2,), (3,)),
    "select a.item, b.item from items a join items b on a.pred.species = b.label and a.item < b.item order by all": (
        (1, 3), (2, 3),
    ),
    "with c as (select item, pred.species as p from items) select p from c where item = 3": (("dog",),),
    "select (select pred.species from items j where j.item = i.item) from items i where i.item = 1": (("cat",),),
    "from items select item where list_contains(PRED.tags, 'wet')": ((1,),),
    "select item from items order by pred.species.score desc nulls last limit 1": ((1,),),
    "select count(*) from predictions pred where pred.head = 'species'": ((3,),),
    "select item from items where pred.species = 'cat' and item = ?": ((2,),),
}  # fmt: skip


@pytest.mark.parametrize("query", PREDICTED)
def test_predictions_work_wherever_a_column_does(store, query):
    """In conditions, groups, joins, common table expressions and orders."""
    assert sorted(rows(store, query, *([2] if "?" in query else [])), key=str) == sorted(PREDICTED[query], key=str)


def test_a_prediction_that_cannot_be_found_is_named(store):
    """An unknown head, a query without items, and two tables of items."""
    with pytest.raises(UnknownColumn, match="did you mean species"):
        store.sql("select pred.specis from items")
    with pytest.raises(UnknownColumn, match="needs the table items"):
        store.sql("select pred.species from contents")
    with pytest.raises(UnknownColumn, match=r"a\.pred\.species"):
        store.sql("select pred.species from items a join items b using (item)")


def test_a_value_that_python_cannot_hold_is_one_line(store):
    """Dates beyond Python's years, and parameters of unknown types."""
    for query, parameters in [
        ("select date '20000-01-01'", []),
        ("select timestamp 'infinity'", []),
        ("select ?", [object()]),
        ("select ?", []),
        ("select 1", [1]),
    ]:
        assert "\n" not in (error_of(store, query, parameters) or "")


def test_a_filter_ends_at_its_time_limit(tmp_path, monkeypatch):
    """Also inside a transaction, which is rolled back."""
    monkeypatch.setenv("EMBEDSTORE_FILTER_TIMEOUT", "0.2")
    slow = "levenshtein(" + "||".join(["uri"] * 2) + ", label) >= 0"
    many = create(tmp_path / "many")
    text = "x" * 3000
    table = {"uri": [f"/{n}{text}" for n in range(3000)], "label": [text] * 3000}
    many.add_vectors(np.ones((3000, 2), np.float32), table)
    for attempt in (
        lambda: many.search(np.ones(2, np.float32), where=slow),
        lambda: many.delete(where=slow),
        lambda: many.edit({"label": "'y'"}, where=slow),
        lambda: many.duplicates(where=slow),
    ):
        with pytest.raises(QueryTimeout, match="EMBEDSTORE_FILTER_TIMEOUT"):
            attempt()
    assert rows(many, "select count(*) from items where length(label) > 1") == ((3000,),)


def test_limits_are_checked_when_they_are_made():
    """Text and numbers of bytes are understood alike."""
    assert QueryLimits(2, "1GB").memory_bytes == 1 << 30
    assert QueryLimits(2, 1 << 20).memory_bytes == 1 << 20
