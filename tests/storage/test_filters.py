"""A filter is one boolean expression over the items, and nothing else is accepted."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import duckdb
import numpy as np
import pytest

from embedstore import create
from embedstore.errors import BadFilter, QueryError, UnknownColumn
from embedstore.storage import connection
from embedstore.storage.filters import compile_expression

COLUMNS = ["item", "uri", "label", "split", "year", "price", "tags", "taken", "Odd Name", "present"]

GOOD = {
    "split = 'val'": [2, 4],
    "year >= 2020 and label <> 'cat'": [2, 4],
    "label in ('cat', 'dog') or price > 9.5": [1, 2, 4],
    "label is null": [3],
    "not (split = 'val')": [1, 3],
    "year between 2019 and 2020": [1, 2],
    "uri like '%.png'": [2],
    "lower(label) = 'cat'": [1, 4],
    "regexp_matches(uri, '^/b')": [2, 4],
    "list_contains(tags, 'red')": [1, 4],
    "taken >= date '2021-01-01'": [3, 4],
    "items.year = 2020": [2],
    '"Odd Name" = 1': [1],
    "abs(price - 5) < 1": [2],
    "case when year > 2020 then split = 'val' else false end": [4],
    "year::varchar = '2019' -- a comment": [1],
    "year % 2 = 0": [2, 4],
    "cast(price as decimal(5, 1)) = 5.5": [2],
    "taken between '2019-01-01' and date '2020-12-31'": [1, 2],
    "taken::timestamp with time zone is not null": [1, 2, 3, 4],
    "coalesce(label, 'none') = 'none'": [3],
    "label ilike 'DO%'": [2],
    "true": [1, 2, 3, 4],
}

HOSTILE = [
    "",
    "   ",
    "1=1; drop table items",
    "1=1) union select 1 from (select 1",
    "1=1) or (1=1",
    "split = 'val') and not (year = 2019",
    "year = 1) -- (",
    "true) or (select count(*) from read_csv('/etc/passwd')) > 0 --",
    "exists (select 1 from read_text('/etc/passwd'))",
    "item in (select item from predictions)",
    "(select max(item) from items) = item",
    "getenv('HOME') = 'x'",
    "current_setting('threads') = '1'",
    "label = ?",
    "label = $1",
    "sum(year) > 3",
    "row_number() over () = 1",
    "label = 'unterminated",
    "year >",
    "select 1",
    "true) order by 1 limit 1 --",
    "true group by 1",
    "repeat('x', 1000000000) = label",
    "nextval('s') = 1",
    "true) t, read_text('/etc/passwd') --",
    "read_blob('/etc/passwd') is not null",
    "pragma_version() is null",
    "true; attach 'x.db'",
    "copy items to 'x.csv'",
    "COLUMNS(*) = 1",
    "lambda x: x",
    "item = (select 1)",
    "true union select 1",
    "true) union all select 1 from (values (1)) where (true",
    "query('select 1') is null",
    "query_table('runs') is null",
    "exists (from glob('/etc/*'))",
    "exists (from duckdb_settings())",
    "exists (from items)",
    "item = any (select item from items)",
    "label = getvariable('x')",
    "setseed(0.5) is null",
    "sleep_ms(1000) is null",
    "write_log('x') is null",
    "error('x') = 'x'",
    "list_transform(tags, lambda x: x) = []",
    "[x for x in tags] = []",
    "count(*) > 1",
    "first_value(label) over () = 'x'",
    "rowid = 1; checkpoint",
    "true -- ) \n; drop table items; --",
    "true /* ",
    "label = 'a' limit 1",
    "true window w as (order by item)",
    "case when (select true) then true else false end",
    "install httpfs",
    "load '/tmp/x.so'",
    "set threads = 1",
    "export database 'x'",
    "range(1000000000) is not null",
    "generate_series(1, 1000000000) is not null",
    "lpad('x', 1000000000, 'y') = label",
    "rpad('x', 1000000000, 'y') = label",
    "label = printf('%1000000000d', 1)",
    "label = format('{:>1000000000}', 1)",
    "md5(label) = 'x'",
    "* = 1",
]


@pytest.fixture(scope="module")
def items():
    con = duckdb.connect()
    con.execute(
        "CREATE TABLE items (item BIGINT, uri VARCHAR, label VARCHAR, split VARCHAR, year INTEGER, price DOUBLE, "
        'tags VARCHAR[], taken DATE, "Odd Name" INTEGER, present BOOLEAN)'
    )
    con.execute("""INSERT INTO items VALUES
        (1, '/a/1.jpg', 'cat', 'train', 2019, 1.0, ['red'], '2019-05-01', 1, true),
        (2, '/b/2.png', 'dog', 'val', 2020, 5.5, ['blue'], '2020-05-01', 2, true),
        (3, '/a/3.jpg', NULL, 'train', 2021, 9.0, [], '2021-05-01', 3, true),
        (4, '/b/4.jpg', 'CAT', 'val', 2022, 99.0, ['red', 'blue'], '2022-05-01', 4, true)""")
    yield con
    con.close()


@pytest.mark.parametrize("expression", GOOD)
def test_filters_select_the_expected_rows(items, expression):
    """The rewritten expression selects the rows that were determined by hand."""
    sql = compile_expression(expression, COLUMNS)
    assert [r[0] for r in items.execute(f"SELECT item FROM items WHERE {sql} ORDER BY item").fetchall()] == GOOD[
        expression
    ]


@pytest.mark.parametrize("expression", HOSTILE)
def test_hostile_text_is_rejected_without_running(expression):
    """Text that is not a filter raises BadFilter on one line, before anything runs."""
    with pytest.raises(BadFilter) as e:
        compile_expression(expression, COLUMNS)
    assert "\n" not in str(e.value).replace(expression, "")


def test_unknown_column_names_similar_columns():
    """The message names the missing column and a similar one."""
    with pytest.raises(UnknownColumn, match="no column 'yeer'; did you mean year"):
        compile_expression("yeer > 3", COLUMNS)


@pytest.mark.parametrize("texts", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_random_text_is_rejected_or_harmless(items, texts):
    """Random mixtures of SQL words raise an EmbedstoreError, or are filters that change nothing."""
    words = [
        *"item uri label year price ( ) ( ) , ; = < > <> + - * / || :: and or not in is null like between".split(),
        *"select from where group by order limit union items runs exists case when then else end true".split(),
        *"'cat' 'x 2020 1.5 -- /* */ [ ] { } $1 ? . drop table attach copy to read_text lower count sum".split(),
    ]
    rng = random.Random(0)
    before = items.execute("SELECT count(*), sum(hash(items)) FROM items").fetchall()
    accepted = 0
    for _ in range(texts):
        text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 9)))
        try:
            sql = compile_expression(text, COLUMNS)
        except (BadFilter, UnknownColumn):
            continue
        accepted += 1
        with suppress(duckdb.BinderException, duckdb.ConversionException, duckdb.InvalidInputException):
            items.execute(f"SELECT item FROM items WHERE {sql}").fetchall()  # types may not fit; nothing else may fail
    assert items.execute("SELECT count(*), sum(hash(items)) FROM items").fetchall() == before
    assert 0 < accepted < texts / 10


UNFIT = ["label::INTEGER = 3", "uri + 1 = 2", "n = 'many'", "uri"]


@pytest.mark.parametrize("where", UNFIT)
def test_filter_that_does_not_fit_the_values_is_reported(tmp_path, where):
    """Every method that takes a filter raises BadFilter for a comparison that does not fit the values."""
    store = create(tmp_path / "s")
    table = {"uri": ["/a", "/b"], "label": ["cat", "dog"], "n": [1, 2]}
    store.add_vectors(np.eye(2, 4, dtype=np.float32), table)
    for use_filter in (
        lambda: store.search(np.ones(4, np.float32), where=where),
        lambda: store.features("label", where=where),
        lambda: store.delete(where=where),
        lambda: store.edit({"n": "n + 1"}, where=where),
        lambda: store.export(tmp_path / "x.parquet", where=where),
        lambda: store.duplicates(where=where),
        lambda: store.map(where=where),
    ):
        with pytest.raises(BadFilter, match="does not fit the items"):
            use_filter()
    with pytest.raises(QueryError, match=r"nothing was changed|does not fit"):
        store.edit({"n": "label + 1"}, where="true")
    assert store.sql("SELECT sum(n) FROM items").rows == ((3,),)


def test_a_filter_is_parsed_by_a_connection_of_its_thread_that_errors_do_not_spoil():
    """Threads compile at once, each with one connection for all its filters, also after filters that are refused."""

    def compile_many(number):
        for n in range(20):
            with suppress(BadFilter):
                compile_expression(f"year = {n} )) garbage", COLUMNS)
            assert compile_expression(f"year = {number * 100 + n}", COLUMNS) == (f'(items."year" = {number * 100 + n})')
        return connection.parser()

    with ThreadPoolExecutor(4) as pool:
        barrier = Barrier(4)
        opened = list(pool.map(lambda n: (barrier.wait(), compile_many(n), compile_many(n)), range(4)))
    assert all(first is second for _, first, second in opened)
    assert len({id(first) for _, first, _ in opened}) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_parses_with_a_connection_of_its_own():
    """The child of a process that has parsed opens its own, and both go on."""
    parent = connection.parser()
    compile_expression("year = 1", COLUMNS)
    child = os.fork()
    if child == 0:
        is_own = connection.parser() is not parent and "year" in compile_expression("year = 2", COLUMNS)
        os._exit(0 if is_own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection.parser() is parent
