"""Temporary files are private, and those of killed processes are removed by the next process that needs any."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from embedstore.storage import connection
from tests.helpers.vector_stores import make
from tests.reliability.hostile_stores import create_original

pytestmark = pytest.mark.skipif(os.name == "nt", reason="this system has no locks that end with a process")

HOLD = "from embedstore import temporary; print(temporary.new_folder().parent, flush=True); input()"
NEED = "from embedstore import temporary; temporary.new_folder()"


def start(code: str, place: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a process whose temporary files are in a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env={**os.environ, "TMPDIR": str(place)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def run(code: str, place: Path, *arguments: object) -> str:
    """Run code in a new process whose temporary files are in a folder, and return its output."""
    process = start(code, place, *arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output


def test_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    """Two processes have temporary folders; one is killed; a third removes the folder of that one only."""
    killed, living = start(HOLD, tmp_path), start(HOLD, tmp_path)
    left, used = (Path(p.stdout.readline().strip()) for p in (killed, living))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert left.is_dir()
    run(NEED, tmp_path)
    assert list(tmp_path.iterdir()) == [used]
    living.communicate("\n", timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_is_left(tmp_path):
    """Links, files, folders without a lock file and folders with another name stay, whatever they are called."""
    outside = tmp_path / "outside"
    for folder in (outside, tmp_path / "embedstore-other", tmp_path / "embedstore-run-starting"):
        folder.mkdir()
    (outside / "OWNER").touch()
    (tmp_path / "embedstore-other" / "OWNER").touch()
    (tmp_path / "embedstore-run-link").symlink_to(outside)
    (tmp_path / "embedstore-run-file").touch()
    (tmp_path / "embedstore-run-starting" / "OWNER").symlink_to(outside / "OWNER")
    before = sorted(tmp_path.rglob("*"))
    run(NEED, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_forked_child_leaves_the_folders_of_its_parent(tmp_path):
    """A child inherits a temporary folder, removes it, makes one of its own and ends; the parent's is there."""
    code = """
import os, sys
from embedstore import temporary
folder = temporary.new_folder()
if os.fork() == 0:
    temporary.remove(folder)
    with temporary.temporary_folder() as own:
        assert own.parent != folder.parent
    sys.exit(0)
assert os.wait()[1] == 0
print(folder.is_dir(), len(os.listdir(folder.parent.parent)))
"""
    assert run(code, tmp_path) == "True 1\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_process_that_gives_up_its_privileges_gets_another_folder():
    """A server that starts as root and continues as another user has temporary files as both; both are removed."""
    code = """
import os
from embedstore import temporary
first = temporary.new_folder()
os.seteuid(65534)
with temporary.temporary_folder() as second:
    (second / "file").touch()
    print(second.parent != first.parent, second.parent.stat().st_uid)
os.seteuid(0)
"""
    with TemporaryDirectory() as name:  # not tmp_path: only its owner can enter the folders above that
        open_to_all = Path(name)
        open_to_all.chmod(0o1777)
        assert run(code, open_to_all) == "True 65534\n"
        assert list(open_to_all.iterdir()) == []


def test_spill_folder_is_private_and_removed(tmp_path):
    """With an open umask, only the user can enter the folder that DuckDB spills to; nothing is left at the end."""
    make(tmp_path / "s", 3)
    (tmp_path / "t").mkdir()
    code = """
import os, sys
os.umask(0)
import embedstore as es
store = es.open(sys.argv[1])
print(store.sql("SELECT count(*) FROM items").rows[0][0])
with store._session.storage.catalog.read() as con:
    print(con.execute("SELECT current_setting('temp_directory')").fetchone()[0])
    spill = con.execute("SELECT current_setting('temp_directory')").fetchone()[0]
    print(oct(os.stat(spill).st_mode & 0o777), oct(os.stat(os.path.dirname(spill)).st_mode & 0o777))
"""
    lines = run(code, tmp_path / "t", tmp_path / "s").splitlines()
    assert lines[0] == "3"
    assert Path(lines[1]).parent.parent == tmp_path / "t"
    assert lines[2] == "0o700 0o700"
    assert list((tmp_path / "t").iterdir()) == []


def test_store_opens_where_temporary_files_cannot_be_written(tmp_path, monkeypatch):
    """Without a place for temporary files a connection works in memory alone."""
    from embedstore import temporary

    monkeypatch.setattr(temporary, "_runs", {})
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path / "missing"))
    con = connection.PrivateConnection().get()
    assert con.execute("SELECT current_setting('temp_directory')").fetchone() == ("",)


def test_temporary_folder_is_removed_after_an_error():
    """The folder exists within the block, private to the user, and is gone after an exception."""
    from embedstore.temporary import temporary_folder

    folders = []

    def fail() -> None:
        with temporary_folder() as folder:
            folders.append((folder, stat.S_IMODE(folder.stat().st_mode)))
            (folder / "a").mkdir()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    [(folder, mode)] = folders
    assert (folder.exists(), mode) == (False, 0o700)


@pytest.mark.skipif(os.name == "nt", reason="this system has no umask")
@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_head_follows_the_umask(tmp_path, umask):
    """The folder of a head and its files have the permissions that the user's umask leaves."""
    before = os.umask(umask)
    try:
        create_original(tmp_path / "s")
    finally:
        os.umask(before)
    folder = tmp_path / "s" / "heads" / "kind"
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {f.stat().st_mode & 0o777 for f in folder.iterdir()} == {0o666 & ~umask}
