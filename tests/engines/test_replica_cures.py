"""The commands that messages on replicas name are followed as they are written; PostgreSQL is a real server."""

import itertools
import re

import numpy as np
import psycopg
import pytest

from embedstore.replicas.state import ReplicaFiles
from tests.helpers.clusters import store_of
from tests.helpers.cures import Cure, follow

pytestmark = pytest.mark.engines
NUMBERS = itertools.count()
SEARCH = "search S --item 3 --replica mine"


@pytest.fixture
def database(postgres, monkeypatch, tmp_path):
    """The address of an empty database; the working folder is that of the test."""
    monkeypatch.chdir(tmp_path)
    return postgres(f"cures{next(NUMBERS)}")


def store(folder):
    """A store of 40 rows."""
    return store_of(folder / "my store", np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32))


def replicated(folder, database):
    """A store with a replica, and its files."""
    made = store(folder)
    made.replicate([database], name="mine", progress=False)
    return made, ReplicaFiles(made._session.storage.layout.replicas_folder(made.spaces[0].key), "mine")


def with_broken_state(folder, database):
    """The description of the replica is cut."""
    _, files = replicated(folder, database)
    files.state.write_bytes(files.state.read_bytes()[:-9])


def with_broken_rows(folder, database):
    """The file of what the replica holds is cut."""
    _, files = replicated(folder, database)
    files.held.write_bytes(files.held.read_bytes()[:-9])


def without_table(folder, database):
    """The table of the replica was dropped on the server."""
    replicated(folder, database)
    with psycopg.connect(database, autocommit=True) as con:
        con.execute("DROP TABLE mine")


def after_purge(folder, database):
    """An item was purged, so that the store forgot what the replica holds."""
    made, _ = replicated(folder, database)
    made.purge("item = 1")


@pytest.mark.parametrize("prepare", [lambda folder, _: store(folder), with_broken_state, with_broken_rows])
def test_a_replica_that_is_not_known_is_made_again(database, tmp_path, capsys, prepare):
    """There is none, or one of its files was changed."""
    cure = Cure(
        "replicate STORE ADDRESS --name NAME",
        lambda folder: prepare(folder, database),
        SEARCH,
        {"ADDRESS": database, "NAME": "mine"},
    )
    follow(cure, tmp_path, capsys)


def test_a_table_that_is_gone_is_made_again(database, tmp_path, capsys):
    """The name of the replica is in the message."""
    cure = Cure(
        "replicate STORE ADDRESS --name {}",
        lambda folder: without_table(folder, database),
        SEARCH,
        {"ADDRESS": database},
    )
    follow(cure, tmp_path, capsys)


def test_a_replica_is_brought_up_to_date_after_a_purge(database, tmp_path, capsys):
    """The address is known."""
    cure = Cure("replicate STORE --name {}", lambda folder: after_purge(folder, database), SEARCH, {})
    follow(cure, tmp_path, capsys)


def test_a_build_in_too_little_memory_is_said_with_its_cure(database, tmp_path, monkeypatch):
    """The server's memory for building an index is compared with the index; what the note names is enough."""
    made = store_of(tmp_path / "s", np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32))
    monkeypatch.setenv("PGOPTIONS", "-c maintenance_work_mem=64kB")
    lines = []
    made.replicate([database], name="slow", progress=lines.append)
    (note,) = [str(line) for line in lines if "maintenance_work_mem" in str(line)]
    assert "the index of 600 rows takes about 1 MB, and the server has 0.0625 MB" in note
    monkeypatch.setenv("PGOPTIONS", re.search('PGOPTIONS="(.*?)"', note)[1])
    made.replicate([database], name="quick", progress=lines.append)
    assert sum("maintenance_work_mem" in str(line) for line in lines) == 1
