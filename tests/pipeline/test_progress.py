"""What a person at a terminal sees of a long run, and what a pipe does not."""

import os
import re
import sys
import threading

import pytest

import embedstore as es
from embedstore.cli import main
from tests.conftest import TINY, picture

pty = pytest.importorskip("pty", reason="terminals of this kind are POSIX's")


class Terminal:
    """A terminal of our own as stderr, and what was drawn on it, without the codes that move the cursor."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        self.stream, self.drawn = os.fdopen(theirs, "w"), b""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        try:
            while part := os.read(self.ours, 4096):
                self.drawn += part
        except OSError:  # Linux says so when the other side is closed
            return

    def close(self) -> str:
        self.stream.close()
        self.reader.join(10)
        os.close(self.ours)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.drawn.decode())


def drawn(monkeypatch, *arguments: object) -> tuple[int, str]:
    """Run a verb with a terminal as its stderr: exit status and what was drawn."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    status = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as e:
        status = int(e.code or 0)
    finally:
        monkeypatch.undo()
        text = terminal.close()
    return status, text


@pytest.fixture
def photos(tmp_path):
    """Five pictures and a file that is none."""
    (tmp_path / "photos").mkdir()
    for n in range(5):
        picture(n, (16, 16)).save(tmp_path / "photos" / f"{n}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def test_a_terminal_shows_how_far_it_is_and_a_pipe_does_not(photos, tmp_path, monkeypatch, capfd):
    """Embedding counts files and failures to their end, verification goes to 100%; a pipe gets neither."""
    es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    status, bar = drawn(monkeypatch, "embed", tmp_path / "s", photos, "--labels-from", "none")
    assert status == 0
    assert "6/6" in bar
    assert "embedding" in bar
    assert "1 failed" in bar
    status, bar = drawn(monkeypatch, "verify", tmp_path / "s", "--images")
    assert status == 0
    assert "images" in bar
    assert "100%" in bar
    capfd.readouterr()
    with pytest.raises(SystemExit):
        main(["verify", str(tmp_path / "s")])
    assert capfd.readouterr().err == ""
