"""Columns of any name through every way in and out: each item's own values and vector, or one clear line."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadManifest, EmbedstoreError
from embedstore.storage.column_names import find_column, first_double, name_problem
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.spreadsheet_cells import restore_cell
from tests.storage.test_column_names import HIT_NAMES, OURS, REFUSED

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

VECTORS = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0.5]], np.float32)
URIS = [f"/{n}" for n in range(4)]
ROLES = ["uri", "label", "split", "group"]


def in_some_case(name):
    """Return a name with the case of each letter drawn."""
    return st.tuples(*(st.sampled_from(sorted({c, c.upper(), c.lower()})) for c in name)).map("".join)


LETTERS = st.characters(exclude_categories=["Cs", "Cc"])
NAMES = st.one_of(
    st.sampled_from(
        [*OURS, *ROLES[1:], "items.score", "pred.h", "my column", 'a"b', "a'b", "a.b", "a,b", "a;b", "=a", "-1", "@x"]
    ).flatmap(in_some_case),
    st.sampled_from(REFUSED),
    st.text(LETTERS, min_size=1, max_size=6),
    st.text("aA\u00e9\u00c9e\u0301 \u200b._\"'", min_size=1, max_size=4),
)


@st.composite
def tables(draw):
    """Return the columns of a table of four rows: its own, with values that no two columns share."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    if draw(st.integers(0, 4)) == 0 and names[0].swapcase() not in names:
        names.append(names[0].swapcase())
    return {name: [100 * n + draw(st.integers(0, 99)) for _ in range(4)] for n, name in enumerate(names, 1)}


def write_table(kind, folder, columns):
    """Return the table as ``add_vectors`` takes it: in memory or as a file."""
    columns = {"uri": URIS, **columns}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path = folder / f"table.{kind}"
    if kind == "dict":
        return columns
    if kind == "frame":
        return pytest.importorskip("pandas").DataFrame(columns)
    if kind == "csv":
        with path.open("w", encoding="utf-8", newline="") as f:
            writer = csv.writer(f)
            writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array(v) for v in columns.values()], names=list(columns)), path)
    return path


def import_table(store, kind, folder, columns):
    """Import the table, or check that it is refused in one line and changes nothing; return whether it was imported."""
    before, refusal = store.sql("DESCRIBE items").rows, None
    try:
        store.add_vectors(VECTORS, write_table(kind, folder, columns), space="s", dtype="float32")
    except EmbedstoreError as e:
        refusal = str(e)
    if refusal is not None:
        assert "\n" not in refusal
        assert store.sql("DESCRIBE items").rows == before
        assert store.spaces == []
    return refusal is None


def rows_of_parquet(path):
    """Return the rows of a Parquet file as mappings."""
    return pq.read_table(path, partitioning=None).to_pylist()


def check_everything(store, own, folder):
    """Compare every result with the values of each item.

    Args:
        store: the store.
        own: the values of each own column, by its name in the store.
        folder: for files.
    """
    store.export(folder / "out.parquet")
    exported = sorted(rows_of_parquet(folder / "out.parquet"), key=lambda r: r["item"])
    np.testing.assert_array_equal(np.array([r["vector"] for r in exported], np.float32), VECTORS)
    hits = store.search(VECTORS[0], k=4)
    order = [h.item - 1 for h in hits]
    assert sorted(order) == [0, 1, 2, 3]
    assert [h.columns for h in hits] == [{name: values[n] for name, values in own.items()} for n in order]
    for suffix in ("csv", "jsonl", "parquet"):
        hits.save(folder / f"h.{suffix}")
    with (folder / "h.csv").open(encoding="utf-8", newline="") as f:
        from_csv = [{restore_cell(k): v for k, v in row.items()} for row in csv.DictReader(f)]
    from_lines = [json.loads(line) for line in (folder / "h.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    forms = [hits.records(), from_csv, from_lines, rows_of_parquet(folder / "h.parquet"), hits.df().to_dict("records")]
    for rows in (*forms, hits.arrow().to_pylist()):
        assert [(int(r["rank"]), int(r["item"])) for r in rows] == [(n, h.item) for n, h in enumerate(hits, 1)]
        assert [float(r["score"]) for r in rows] == [round(h.score, 6) for h in hits]
    for name, values in own.items():
        shown = name if name in hits.records()[0] and name not in HIT_NAMES else f"items.{name}"
        assert all([int(r[shown]) for r in rows] == [values[n] for n in order] for rows in forms)
        in_export = f"items.{name}" if find_column(name, ["vector"]) else name
        assert [r[in_export] for r in exported] == values
        quoted = quote_identifier(name)
        assert [
            h.item for h in store.search(VECTORS[0], where=f"{quoted} = {values[2]} and items.{quoted} = {values[2]}")
        ] == [3]
        assert store.sql(f"SELECT items.{quoted} FROM items ORDER BY item").rows == tuple((v,) for v in values)


def check_table(folder, kind, columns):
    """Import a table, check every result, edit each column, and check an archive of it."""
    store = es.create(folder / "s")
    if not import_table(store, kind, folder, columns):
        return False
    names = [c for c, *_ in store.sql("DESCRIBE items").rows][11:]
    roles = {role: find_column(role, columns) for role in ROLES[1:]}
    own = {find_column(name, names): values for name, values in columns.items() if name not in roles.values()}
    assert list(own) == names, "each column of the table is one column of the store"
    own = {name: list(dict.fromkeys(values)) if len(set(values)) == 4 else values for name, values in own.items()}
    for role, given_name in roles.items():
        if given_name and role != "split":
            column = "group_id" if role == "group" else role
            assert [v for (v,) in store.sql(f"SELECT {column} FROM items ORDER BY item").rows] == [
                str(v) for v in columns[given_name]
            ]
    distinct = {name: [v * 10 + n for n, v in enumerate(values)] for name, values in own.items()}
    if len(own) > 1:
        store.edit({name: f"items.{quote_identifier(name)} * 10 + item - 1" for name in own}, "true")
    elif own:
        store.edit_from_table({"item": [1, 2, 3, 4], **distinct})
    check_everything(store, distinct, folder)
    store.export_store(folder / "archive")
    es.import_store(folder / "again", folder / "archive")
    (folder / "again files").mkdir()
    check_everything(es.open(folder / "again"), distinct, folder / "again files")
    return True


@pytest.mark.parametrize("names", [["ROW", "row"], ["a", " A"], ["Embedstore_row"], ["embedstore_x", "y"]])
@pytest.mark.parametrize("kind", ["dict", "frame", "csv", "jsonl", "parquet"])
def test_names_that_a_reader_would_change_are_refused_as_they_are_written(tmp_path, kind, names):
    """No reader renames a second column of one name, or one that has the name of its own row number."""
    columns = {name: [n, 2, 3, 4] for n, name in enumerate(names)}
    store = es.create(tmp_path / "s")
    assert not import_table(store, kind, tmp_path, columns)
    store.add_vectors(VECTORS, {"uri": URIS}, space="s")
    with pytest.raises(BadManifest, match=f"'{names[0]}'.*rename"):
        store.edit_from_table(write_table(kind, tmp_path, columns))


KINDS = ["dict", "frame", "csv", "jsonl", "parquet"]
numbers = itertools.count()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(columns=tables(), kind=st.sampled_from(KINDS))
def test_columns_of_any_name(tmp_path, columns, kind):
    """A table is refused in one line, or every value and vector comes out as its item's own, in every form."""
    folder = tmp_path / str(next(numbers))
    folder.mkdir()
    accepted = check_table(folder, kind, columns)
    own = [name for name in columns if name.lower() not in ROLES]
    if any(map(name_problem, own)) or first_double(columns):
        assert not accepted


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(columns=tables(), kind=st.sampled_from(KINDS))
def test_columns_of_very_many_names(tmp_path, columns, kind):
    """As above, with more tables."""
    folder = tmp_path / str(next(numbers))
    folder.mkdir()
    check_table(folder, kind, columns)
