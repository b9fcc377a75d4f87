"""A file in the place of a folder of a store, or a folder in the place of a file: an error of one line, or no harm."""

import shutil
from pathlib import Path

import pytest

import embedstore as es
from tests.reliability.hostile_stores import VERBS, create_original, use


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """Create a store with vector files to merge, an index, a head, and a log."""
    path = tmp_path_factory.mktemp("misplaced") / "original"
    create_original(path)
    return path


def entries_of(store: Path) -> list[Path]:
    """Return the paths of every file and folder of a store, relative to it."""
    return sorted(path.relative_to(store) for path in store.rglob("*"))


def exchange(path: Path) -> None:
    """Put a file in the place of a folder, or a folder in the place of a file."""
    if path.is_dir():
        shutil.rmtree(path)
        path.write_bytes(b"not a folder")
    else:
        path.unlink()
        path.mkdir()
        (path / "entry").write_bytes(b"in a folder that should be a file")


@pytest.mark.parametrize("verb", VERBS)
def test_entry_of_the_other_kind_is_reported_in_one_line(original, tmp_path, verb):
    """Each entry of the store in turn is replaced by one of the other kind, and the verb is run on each such store."""
    refusals = []
    for number, entry in enumerate(entries_of(original)):
        store, out = tmp_path / f"s{number}", tmp_path / f"out{number}"
        shutil.copytree(original, store)
        out.mkdir()
        exchange(store / entry)
        try:
            use(verb, store, out)
        except es.EmbedstoreError as e:
            refusals.append(str(e))
        except Exception as e:
            pytest.fail(f"{verb}, {entry}: {type(e).__name__}: {e}")
        shutil.rmtree(store)
    assert refusals
    assert [text for text in refusals if "\n" in text] == []
