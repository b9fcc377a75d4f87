"""A terminal shows the progress of a long run, and a pipe does not."""

import os
import re
import sys
import threading

import pytest

import embedstore as es
from embedstore.cli import main
from tests.conftest import TINY, picture

pty = pytest.importorskip("pty", reason="pseudo-terminals need POSIX")


class Terminal:
    """A pseudo-terminal for stderr that collects what is drawn, without the codes that move the cursor."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.stream, self.drawn = os.fdopen(slave, "w"), b""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        try:
            while part := os.read(self.master, 4096):
                self.drawn += part
        except OSError:  # Linux raises it when the other side is closed
            return

    def close(self) -> str:
        self.stream.close()
        self.reader.join(10)
        os.close(self.master)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.drawn.decode())


def drawn(monkeypatch, *arguments: object) -> tuple[int, str]:
    """Run a command with a terminal as its stderr; return exit status and what was drawn."""
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
    """Five images and a file that is not an image."""
    (tmp_path / "photos").mkdir()
    for n in range(5):
        picture(n, (16, 16)).save(tmp_path / "photos" / f"{n}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def test_progress_is_drawn_on_a_terminal_and_not_on_a_pipe(photos, tmp_path, monkeypatch, capfd):
    """Embedding counts files and failures to the end, verification reaches 100%, and a pipe gets neither."""
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
