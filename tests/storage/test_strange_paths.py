"""Paths that libraries could parse: a store, its copies and its outputs work there, or one line says why not."""

import os

import numpy as np
import pytest

import embedstore as es
from embedstore.cli import main
from tests.helpers.clusters import clusters, store_of

WORKING = {
    "hash": "a#b", "percent": "a%20b", "star": "a*b", "brackets": "a[b]c", "quote": "a'b", "double quote": 'a"b',
    "newline": "a\nb", "dollar": "$HOME", "range": "a{1..3}", "scheme": "s3:", "escape": "a\x1b[2J", "dash": "-x",
    "several": ".~a b;{c,d}=e&f@g+h😀日本é:i\t ",
}  # fmt: skip
ALONE = {
    "spaces": " a b ", "tab": "a\tb", "braces": "a{b,c}d", "semicolon": "a;b", "tilde": "~x", "letters": "日本é",
    "emoji": "😀", "colon": "a:b", "equals": "a=b&c", "hidden": ".hid", "long": "x" * 200, "comma": "a,b", "at": "@a",
    "plus": "a+b",
}  # fmt: skip
REFUSED = {
    "question": "a?b", "parameter": "a?access_mode=READ_ONLY", "backslash": "a\\b", "too long": "x" * 300,
    "not UTF-8": os.fsdecode(b"a\xff"),
}  # fmt: skip
SUFFIXES = {"export": (".parquet", ".npy"), "hits": (".csv", ".parquet", ".jsonl"), "export_head": (".npz", ".onnx")}


@pytest.fixture(scope="module")
def numbers():
    return clusters(40, noise=0.1)


def write_all(store, folder, name):
    """Yield what writes a file or folder of that name."""
    for suffix in SUFFIXES["export"]:
        yield lambda s=suffix: store.export(folder / f"e{name}{s}")
    for suffix in SUFFIXES["hits"]:
        yield lambda s=suffix: store.search(1).save(folder / f"h{name}{s}")
    for suffix in SUFFIXES["export_head"]:
        yield lambda s=suffix: store.export_head("kept", folder / f"x{name}{s}")
    yield lambda: store.search(1).png(folder / f"p{name}.png")
    yield lambda: store.map(max_items=5).png(folder / f"m{name}.png")
    yield lambda: store.backup(folder / f"b{name}")
    yield lambda: es.restore(folder / f"b{name}", folder / f"r{name}")
    yield lambda: store.export_store(folder / f"a{name}")
    yield lambda: es.import_store(folder / f"i{name}", folder / f"a{name}")


@pytest.mark.parametrize(
    "name", [*WORKING.values(), *(pytest.param(name, marks=pytest.mark.slow) for name in ALONE.values())],
    ids=[*WORKING, *ALONE],
)  # fmt: skip
def test_a_store_works_at_any_path_that_duckdb_can_open(tmp_path, numbers, name):
    """It is created, filled, indexed, searched, verified, copied and restored."""
    X, y = numbers
    store = store_of(tmp_path / name, X, label=y)
    store.save_head("kept", store.probe(head="ridge"))
    store.build_index(kind="ivf")
    expected = [h.item for h in store.search(1, exact=True)]
    assert [h.item for h in es.open(store.path).search(1)] == expected
    for write in write_all(store, tmp_path, name):
        write()
    assert [h.item for h in es.open(tmp_path / f"r{name}").search(1)] == expected
    assert [h.item for h in es.open(tmp_path / f"i{name}").search(1, exact=True)] == expected
    np.save(tmp_path / "v.npy", X)
    (tmp_path / "v.npy").rename(tmp_path / f"v{name}.npy")
    assert store.add_vectors(tmp_path / f"v{name}.npy", space="again").rows == 40
    store.compact()
    assert es.open(store.path).verify().ok
    assert es.repair_store(store.path).n_lost_vectors == 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_path_that_cannot_hold_a_store_is_one_line(tmp_path, name, capsys):
    """Creating and opening are refused with the reason, and nothing is left."""
    path = tmp_path / REFUSED[name]
    for words in (["create", str(path)], ["info", str(path)], ["create", str(path / "below")]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        err = capsys.readouterr().err
        assert stopped.value.code == 1, err
        assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", REFUSED)
def test_an_output_of_a_strange_name_is_written_or_is_one_error(tmp_path, numbers, name):
    """Whatever the writer: DuckDB, NumPy, Pillow or Python."""
    X, y = numbers
    store = store_of(tmp_path / "s", X, label=y)
    store.save_head("kept", store.probe(head="ridge"))
    for write in write_all(store, tmp_path, REFUSED[name]):
        before = set(tmp_path.iterdir())
        try:
            write()
        except (es.EmbedstoreError, OSError):
            assert set(tmp_path.iterdir()) == before
    assert store.verify().ok
