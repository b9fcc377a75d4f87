"""Standard output that is closed, full, or of a small character set; and errors that nobody expected."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import embedstore as es
from embedstore.cli import main
from tests.conftest import ROOT
from tests.helpers.clusters import clusters

COMMANDS = {
    "info": ["info", "STORE"],
    "info --json": ["info", "STORE", "--json"],
    "search": ["search", "STORE", "--item", "1"],
    "search --json": ["search", "STORE", "--item", "1", "--json"],
    "search --uris": ["search", "STORE", "--item", "1", "--uris"],
    "probe": ["probe", "STORE", "--head", "ridge"],
    "sql": ["sql", "STORE", "SELECT uri FROM items"],
    "help": ["--help"],
    "version": ["--version"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with names that Latin-1 cannot write."""
    X, y = clusters(30)
    made = es.create(tmp_path_factory.mktemp("streams") / "s")
    uris = [f"/bild-ä-{n}-日本.jpg" for n in range(30)]
    made.add_vectors(X, {"uri": uris, "label": [f"{label}-é-…-犬" for label in y]}, dtype="float32")
    return made.path


def command(store, words):
    return [sys.executable, "-m", "embedstore", *(str(store) if w == "STORE" else w for w in words)]


def environment(**values):
    return os.environ | {"PYTHONPATH": str(ROOT)} | values


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-16"])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_any_character_set_can_be_printed_to(store, words, encoding):
    """What it lacks is escaped; JSON stays the same document."""
    out = subprocess.run(
        command(store, words), capture_output=True, env=environment(PYTHONIOENCODING=encoding), check=False
    )
    assert out.returncode == 0, out.stderr
    text = out.stdout.decode(encoding)
    if "--json" in words and words[0] == "search":
        assert json.loads(text)["hits"][0]["uri"].endswith("-日本.jpg")


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_full_standard_output_is_one_line(store, words):
    """Exit status 1 and a line that names it; no traceback of the interpreter's last flush."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        out = subprocess.run(
            command(store, words), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert out.returncode == 1, out.stderr
    assert [line for line in out.stderr.splitlines() if line.startswith("embedstore: ")] == [
        "embedstore: cannot write the result to standard output: No space left on device"
    ]
    assert "Exception ignored" not in out.stderr
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_closed_standard_output_is_one_line(store, words):
    """The result is lost, and that is said; the store is unharmed."""
    line = " ".join(f"'{w}'" for w in command(store, words)) + " >&-"
    out = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert out.returncode == 1, out.stderr
    assert out.stderr.splitlines()[-1] == "embedstore: cannot write the result to standard output: it is closed"
    assert es.open(store).verify().ok


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_never_become_files_of_the_store(store, tmp_path, closed):
    """A library that prints to descriptor 1 or 2 would write into a file of the store that got its number."""
    line = (
        " ".join(f"'{w}'" for w in command(store, ["probe", "STORE", "--head", "ridge", "--save", "h"])) + " " + closed
    )
    out = subprocess.run(["sh", "-c", line], env=environment(), check=False, capture_output=True)
    assert out.returncode == (1 if ">&- 2" in closed else 0)
    assert es.open(store).verify().ok
    assert [h.name for h in es.open(store).heads] == ["h"]


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(store):
    """As head does."""
    line = (
        " ".join(f"'{w}'" for w in command(store, ["sql", "STORE", "SELECT * FROM items, range(3000)"])) + " | head -1"
    )
    out = subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=environment(), check=False)
    assert "Traceback" not in out.stderr
    assert "embedstore: " not in out.stderr


def fail(error, monkeypatch):
    """Let the verb ``info`` raise an error."""

    def info(self):
        raise error

    monkeypatch.setattr(es.Store, "info", info)


@pytest.mark.parametrize("error", [KeyError("a key"), AssertionError(), TypeError("int + str"), RecursionError("deep")])
def test_an_unexpected_error_is_one_line_and_a_report(store, tmp_path, monkeypatch, capsys, error):
    """Status 70; the report has the traceback, the command and the versions, and no value of the environment."""
    fail(error, monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SECRET_OF_THE_USER", "hunter2-in-the-environment")
    with pytest.raises(SystemExit) as stopped:
        main(["info", str(store)])
    err = capsys.readouterr().err
    assert stopped.value.code == 70
    (line,) = err.splitlines()
    assert line.startswith(f"embedstore: unexpected error, a defect of embedstore ({type(error).__name__}")
    report = Path(re.search(r"the report is in (\S+)$", line)[1])
    text = report.read_text()
    assert f"embedstore info {store}" in text
    assert "Traceback" in text
    assert type(error).__name__ in text
    assert f"embedstore {es.__version__}" in text
    assert "hunter2" not in text
    assert report.stat().st_mode & 0o077 == 0


def test_a_report_that_cannot_be_written_is_printed(store, monkeypatch, capsys):
    """The traceback goes to the error output, and the line says so."""
    fail(KeyError("a key"), monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    with pytest.raises(SystemExit) as stopped:
        main(["info", str(store)])
    err = capsys.readouterr().err
    assert stopped.value.code == 70
    assert "Traceback" in err
    assert "the report is above" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/some/file"), "cannot use /some/file: Permission denied"),
        (OSError(5, "Input/output error", b"/some/\xff"), "cannot use /some/\\udcff: Input/output error"),
        (MemoryError(), "ran out of memory"),
    ],
)
def test_what_the_system_refuses_is_one_line(store, monkeypatch, capsys, error, words):
    """It is no defect: the line names the file, and the status is 1."""
    fail(error, monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        main(["info", str(store)])
    err = capsys.readouterr().err
    assert stopped.value.code == 1
    assert len(err.splitlines()) == 1
    assert words in err
