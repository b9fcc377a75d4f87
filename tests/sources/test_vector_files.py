"""Vectors in a column of a Parquet file, and files that hold no vectors."""

import pickle
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.errors import BadVectors
from embedstore.sources.table_options import TableOptions
from embedstore.sources.vector_files import BLOCK_ROWS
from embedstore.sources.vectors import open_vectors

ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
FLOATS = [pa.float16(), pa.float32(), pa.float64()]


def write(path, kind, **columns):
    """Write a Parquet file with the vectors as ``vector``, in lists of one type."""
    pq.write_table(
        pa.table({"vector": pa.array(ROWS.astype(kind.value_type.to_pandas_dtype()).tolist(), kind)} | columns), path
    )


def read(path, **options):
    """Return the vectors, the uris and the columns of a file."""
    opened = open_vectors(path, None, TableOptions(**options))
    batches = list(opened.batches())
    return np.vstack([v for _, _, v in batches]), [uri for files, _, _ in batches for uri in files.uri], opened.columns


@pytest.mark.parametrize("number", FLOATS, ids=str)
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed size", "lists"])
def test_every_kind_of_list_of_floats_is_read(tmp_path, number, fixed):
    """The values are those of the file; the other columns are the table."""
    kind = pa.list_(number, 3) if fixed else pa.list_(number)
    write(tmp_path / "v.parquet", kind, uri=list("abcde"), year=[1, 2, 3, 4, 5])
    vectors, uris, columns = read(tmp_path / "v.parquet")
    np.testing.assert_array_equal(vectors, ROWS.astype(number.to_pandas_dtype()).astype(np.float32))
    assert uris == list("abcde")
    assert columns == {"year": "BIGINT"}


@given(data=st.data(), rows=st.integers(1, 60), dim=st.integers(1, 9), group=st.integers(1, 20))
def test_the_order_is_that_of_the_file(tmp_path_factory, data, rows, dim, group):
    """Whatever its row groups and blocks are."""
    path = tmp_path_factory.mktemp("order") / "v.parquet"
    numbers = np.arange(1, rows * dim + 1, dtype=np.float32).reshape(rows, dim)
    numbers = numbers[data.draw(st.permutations(range(rows)))]
    pq.write_table(pa.table({"e": pa.array(numbers.tolist(), pa.list_(pa.float32()))}), path, row_group_size=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedstore.sources.vector_files.BLOCK_ROWS", data.draw(st.sampled_from([1, 7, BLOCK_ROWS])))
        np.testing.assert_array_equal(read(path)[0], numbers)


def test_a_table_of_its_own_comes_first(tmp_path):
    """The columns of the Parquet file are then not used."""
    write(tmp_path / "v.parquet", pa.list_(pa.float32()), uri=list("abcde"))
    opened = open_vectors(tmp_path / "v.parquet", {"uri": list("vwxyz"), "n": [1, 2, 3, 4, 5]})
    assert [uri for files, _, _ in opened.batches() for uri in files.uri] == list("vwxyz")
    assert opened.columns == {"n": "BIGINT"}


def test_the_column_of_several_is_named(tmp_path):
    """In any case; integers are vectors only if they are named. The others stay columns."""
    tags = pa.array([[1, 2]] * 5, pa.list_(pa.int8()))
    pq.write_table(
        pa.table({"a": pa.array(ROWS.tolist()), "b": pa.array(ROWS[:, :2].tolist()), "t": tags}), tmp_path / "v.parquet"
    )
    with pytest.raises(
        BadVectors, match="several columns of lists of floats: a, b; name the vectors with --vector-col"
    ):
        read(tmp_path / "v.parquet")
    vectors, _, columns = read(tmp_path / "v.parquet", vector_column="B")
    np.testing.assert_allclose(vectors, ROWS[:, :2])
    assert set(columns) == {"a", "t"}
    np.testing.assert_array_equal(read(tmp_path / "v.parquet", vector_column="t")[0], [[1, 2]] * 5)
    with pytest.raises(BadVectors, match=re.escape("has no column 'aa' (it has a, b, t); did you mean a?")):
        read(tmp_path / "v.parquet", vector_column="aa")


BAD_COLUMNS = {
    "row 1 (counted from 0) has no vector": [[1.0, 2.0], None, [1.0, 2.0]],
    "row 2 (counted from 0) has 3 numbers": [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0, 3.0]],
    "NaN in row 1": [[1.0, 2.0], [None, 2.0], [1.0, 2.0]],
    "infinite values, or values beyond float32 in row 0": [[1e300, 2.0]],
    "holds no vector": [None, None],
}


@pytest.mark.parametrize("message", BAD_COLUMNS)
def test_a_bad_row_is_named(tmp_path, message):
    """Nothing is stored then."""
    pq.write_table(pa.table({"vector": pa.array(BAD_COLUMNS[message], pa.list_(pa.float64()))}), tmp_path / "v.parquet")
    with pytest.raises(BadVectors, match=re.escape(message)):
        read(tmp_path / "v.parquet")


def test_what_is_no_array_is_refused_without_advice_to_load_it(tmp_path):
    """NumPy advises `allow_pickle` for a file that it does not know, which would run code."""
    (tmp_path / "p.npy").write_bytes(pickle.dumps(ROWS))
    (tmp_path / "t.npy").write_text("hello")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    for name in ("p.npy", "t.npy", "o.npy", "empty.npy"):
        with pytest.raises(BadVectors, match=r"numpy\.save") as e:
            open_vectors(tmp_path / name)
        assert "pickle" not in str(e.value), name
