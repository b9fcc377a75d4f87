"""A server that is killed, refuses or is something else costs one clear line and no row; the next run goes on.

PostgreSQL is a real server, killed with SIGKILL and started again.
"""

import http.server
import itertools
import re
import sys
import threading

import numpy as np
import psycopg
import pytest

from embedstore.errors import ReplicaError
from embedstore.replicas.pgvector import PgvectorReplica
from embedstore.storage.queries import replicas as queries
from tests.helpers.clusters import store_of
from tests.helpers.command_line import command_runner
from tests.helpers.postgres_server import PASSWORD, serve_postgres

pytestmark = pytest.mark.engines
NUMBERS = itertools.count()
ROWS, CHUNK = 100, 16


@pytest.fixture(scope="module")
def server():
    """A server of these tests alone: they kill it."""
    with serve_postgres() as started:
        yield started


@pytest.fixture
def database(server):
    """An empty database."""
    return server.make(f"f{next(NUMBERS)}")


@pytest.fixture
def store(tmp_path):
    """100 rows."""
    vectors = np.random.default_rng(0).standard_normal((ROWS, 8)).astype(np.float32)
    return store_of(tmp_path / "s", vectors, label=["a", "b"] * (ROWS // 2))


@pytest.fixture
def run(capsys):
    """Run a command: exit status, and what it printed to standard error."""
    return command_runner(capsys)


def ranked(hits):
    return [(h.item, round(h.score, 6)) for h in hits]


class KillBefore:
    """Kills a server before the nth call of a method of the connection, which then runs as it is.

    Args:
        server: the server.
        patch: changes the method.
        method: its name.
        call: the number of the call.
    """

    def __init__(self, server, patch, method, call=1):
        self.left, real = call, getattr(PgvectorReplica, method)

        def killed(replica, *arguments):
            self.left -= 1
            if self.left == 0:
                server.kill()
            return real(replica, *arguments)

        patch.setattr(PgvectorReplica, method, killed)


@pytest.mark.parametrize(
    ("method", "call", "action"),
    [
        ("ensure", 1, "prepare"),
        ("rows", 1, "read"),
        ("put", 1, "write to"),
        ("put", 4, "write to"),
        ("finish", 1, "index"),
    ],
)
def test_a_server_that_is_killed_loses_nothing(server, database, store, monkeypatch, method, call, action):
    """Whenever it dies: one line, what was written is kept, and the next run writes the rest alone."""
    monkeypatch.setattr(queries, "CHUNK_ROWS", CHUNK)
    with monkeypatch.context() as patch:
        killer = KillBefore(server, patch, method, call)
        with pytest.raises(ReplicaError, match=rf"^cannot {action} postgresql://.*; .*run it again") as e:
            store.replicate([database], progress=False)
    assert killer.left == 0
    assert "\n" not in str(e.value)
    server.restart()
    written = {"put": CHUNK * (call - 1), "finish": ROWS}.get(method, 0)
    report = store.replicate([database], progress=False)
    assert (report.rows, report.written, report.deleted) == (ROWS, ROWS - written, 0)
    checked = store.replicate(check=True, progress=False)
    assert (checked.problems, checked.checked) == ([], ROWS)


def test_a_server_that_is_killed_while_rows_are_sent_keeps_whole_batches(server, database, store, monkeypatch):
    """A batch whose rows are on their way is there whole or not at all."""
    monkeypatch.setattr(queries, "CHUNK_ROWS", CHUNK)
    real, calls = psycopg.Copy.write_row, itertools.count(1)

    def write_row(copy, row):
        if next(calls) == 2 * CHUNK + 5:
            server.kill()
        real(copy, row)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Copy, "write_row", write_row)
        with pytest.raises(ReplicaError, match=r"^cannot write to"):
            store.replicate([database], progress=False)
    server.restart()
    assert store.replicate([database], progress=False).written == ROWS - 2 * CHUNK
    assert store.replicate(check=True, progress=False).problems == []


def test_a_server_that_is_killed_during_deletions_goes_on(server, database, store, monkeypatch):
    """Deleted items leave the copy with the next run, and a search in between does not show them."""
    store.replicate([database], progress=False)
    store.delete("item <= 30")
    with monkeypatch.context() as patch:
        KillBefore(server, patch, "drop")
        with pytest.raises(ReplicaError, match=r"^cannot write to"):
            store.replicate(progress=False)
    server.restart()
    hits = store.search(50, k=ROWS, replica="embedstore")
    assert ranked(hits) == ranked(store.search(50, k=ROWS, exact=True))
    assert store.replicate(progress=False).deleted == 30


@pytest.mark.parametrize(
    ("method", "action"),
    [("require", "read"), ("nearest_among", "search"), ("nearest", "search"), (None, "connect to")],
)
def test_a_server_that_is_killed_during_a_search_is_one_line(server, database, store, monkeypatch, method, action):
    """The store itself goes on answering, and the copy does when the server is back."""
    from embedstore.replicas import candidates

    monkeypatch.setattr(candidates, "FEW_ITEMS", 5 if method == "nearest" else candidates.FEW_ITEMS)
    store.replicate([database], progress=False)
    wanted = ranked(store.search(3, k=7, exact=True))
    with monkeypatch.context() as patch:
        KillBefore(server, patch, method) if method else server.kill()
        with pytest.raises(ReplicaError, match=rf"^cannot {action} postgresql://") as caught:
            store.search(3, k=7, replica="embedstore")
    assert "\n" not in str(caught.value)
    assert "leave out --replica" in str(caught.value)
    assert ranked(store.search(3, k=7)) == wanted
    server.restart()
    assert ranked(store.search(3, k=7, replica="embedstore")) == wanted


def test_one_of_two_servers_that_is_gone_is_named(server, postgres, database, store):
    """A search does not answer from half of the items."""
    other = postgres(f"h{next(NUMBERS)}")
    store.replicate([database, other], progress=False)
    server.kill()
    name = re.escape(re.search(r"host=(.*)", database)[1])
    for act in (lambda: store.search(1, replica="embedstore"), lambda: store.replicate(progress=False)):
        with pytest.raises(ReplicaError, match=name):
            act()
    server.restart()
    assert store.replicate(check=True, progress=False).problems == []


@pytest.fixture(scope="module")
def users(server):
    """Users that have to show a password, encrypted and in clear text."""
    server.add_user("guarded", "scram-sha-256")
    server.add_user("clear", "password")
    return server


def with_user(address, user):
    return re.sub(r"//[^@]*@", f"//{user}@", address)


def test_a_refused_password_is_one_line_that_does_not_show_it(users, database, store, run, monkeypatch):
    """A wrong one, none, and one that the server wants in clear text; with the right one it works."""
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    cases = {
        "guarded:wrong-secret": "password authentication failed.*PGPASSWORD",
        "guarded": "no password supplied.*PGPASSWORD",
        f"clear:{PASSWORD}": "password",
        "nobody": r'role "nobody" does not exist.*check the user',
    }
    for user, said in cases.items():
        status, err = run("replicate", store.path, with_user(database, user))
        assert status == 1
        (line,) = err.splitlines()
        assert re.search(f"^embedstore: cannot connect to postgresql://.*{said}", line), line
        assert "secret" not in line
    users.execute(f'GRANT ALL ON DATABASE "{re.search(r"/(f[0-9]+)[?]", database)[1]}" TO guarded')
    with psycopg.connect(database, autocommit=True) as con:
        con.execute("CREATE EXTENSION vector")
    status, err = run("replicate", store.path, with_user(database, f"guarded:{PASSWORD}"))
    assert status == 1
    assert "permission denied for schema public; let its administrator grant" in err
    with psycopg.connect(database, autocommit=True) as con:
        con.execute("GRANT ALL ON SCHEMA public TO guarded")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert run("replicate", store.path, with_user(database, "guarded"))[0] == 0
    assert run("search", store.path, "--item", 1, "--replica", "embedstore")[0] == 0
    monkeypatch.setenv("PGPASSWORD", "changed-secret")
    status, err = run("search", store.path, "--item", 1, "--replica", "embedstore")
    assert status == 1
    assert "password authentication failed" in err.splitlines()[-1]


@pytest.fixture
def web_server():
    """The port of a server that speaks HTTP and refuses every request."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401, "Unauthorized")

        def log_message(self, *_):
            pass

    started = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield started.server_address[1]
    started.shutdown()
    started.server_close()


def test_a_wrong_address_is_one_line(web_server, database, store, run):
    """Nobody there, a host without a name, another kind of server, and no such database: exit 1, nothing is written."""
    cases = {
        "postgresql://me@127.0.0.1:1/x": "refused",
        "postgresql://me@no-such-host.invalid/x": "resolve|Name or service",
        re.sub(r"/f\d+\?", "/nowhere?", database): 'database "nowhere" does not exist.*check the database',
        f"qdrant://127.0.0.1:{web_server}": "401.*QDRANT_API_KEY",
        "qdrant://no-such-host.invalid": "resolve|Name or service|No address",
    }
    for address, said in cases.items():
        status, err = run("replicate", store.path, address)
        assert status == 1, address
        (line,) = err.splitlines()
        assert line.startswith("embedstore: cannot connect to "), line
        assert re.search(said, line), line
    assert store.info().replicas == []


@pytest.mark.parametrize(
    ("module", "address", "extra"),
    [("psycopg", "postgresql://me@h/x", "pgvector"), ("pgvector.psycopg", "postgresql://me@h/x", "pgvector"),
     ("qdrant_client", "qdrant://h", "qdrant")],
)  # fmt: skip
def test_without_its_client_the_error_names_the_extra(store, run, monkeypatch, module, address, extra):
    """One line with the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    status, err = run("replicate", store.path, address)
    assert status == 1
    (line,) = err.splitlines()
    assert f"run `pip install 'embedstore[{extra}]'`" in line


def test_a_server_without_pgvector_is_one_line(database, store, run):
    """A database whose extension was dropped after the copy was written."""
    store.replicate([database], progress=False)
    with psycopg.connect(database, autocommit=True) as con:
        con.execute("DROP EXTENSION vector CASCADE")
    status, err = run("search", store.path, "--item", 1, "--replica", "embedstore")
    assert status == 1
    assert "install pgvector on the server" in err.splitlines()[-1]


def test_a_table_that_was_changed_by_hand_is_one_line(database, store, run):
    """A column or the table itself is gone: the line names what is missing."""
    store.replicate([database], columns=["label"], progress=False)
    with psycopg.connect(database, autocommit=True) as con:
        con.execute("ALTER TABLE embedstore DROP COLUMN embedding")
    for words in (["search", store.path, "--item", 1, "--replica", "embedstore"], ["replicate", store.path, "--check"]):
        status, err = run(*words)
        assert status == 1
        assert 'column "embedding" does not exist' in err.splitlines()[-1]


def test_a_machine_that_vanishes_is_noticed(database, store):
    """The connection asks for signs of life: without them, a search would wait for hours."""
    store.replicate([database], progress=False)
    seen = []
    real = PgvectorReplica.close

    def close(replica):
        seen.append(replica._con.info.get_parameters())
        real(replica)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PgvectorReplica, "close", close)
        store.search(1, replica="embedstore")
    (settings,) = seen
    assert (
        int(settings["keepalives_idle"]) + int(settings["keepalives_interval"]) * int(settings["keepalives_count"])
        <= 90
    )
    assert int(settings["tcp_user_timeout"]) <= 90_000
