"""Text of strangers never reaches a terminal raw, and other programs get it exactly."""

import ast
import io
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import create
from embedstore.reports.terminal_text import GuardedStream, guarded_streams, visible, visible_json, visible_lines
from embedstore.text_form import clean_text
from tests.conftest import ROOT
from tests.helpers.predictions import put_predictions

HOSTILE = [
    "clear\x1b[2J\x1b[H",
    "title\x1b]0;owned\x07",
    "clipboard\x1b]52;c;cm0=\x1b\\",
    "c1\x9b31m",
    "line\nsecond",
    "return\rover",
    "back\x08\x08\x08\x7f",
    "reverse\u202egpj.exe",
    "isolate\u2066x\u2069",
    "mark\u200e\u200f\u061c",
    "lines\u2028\u2029\x0b\x0c\x85",
    "hidden\u200b\ufeff\xad",
    "tag\U000e0041",
    "[bold red]markup[/]",
    "tab\there",
]
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069\ufeff\xad\U000e0041]")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Items, labels, a head and a space with hostile names."""
    made = create(tmp_path_factory.mktemp("terminal") / "s")
    n = len(HOSTILE)
    rng = np.random.default_rng(0)
    vectors = np.vstack([rng.normal(size=(n, 8)), rng.normal(size=(n, 8)), np.ones((2, 8))]).astype(np.float32)
    labels = [*HOSTILE, *HOSTILE, "a", "b"]
    table = {
        "uri": [f"/{name.replace('/', '')}{i}.jpg" for i, name in enumerate(labels)],
        "label": labels,
        "split": ["train", "val"] * (n + 1),
    }
    made.add_vectors(vectors, table)
    made.rename_space(made.spaces[0].name, "space\x1b[31m\u202e")
    put_predictions(made, "head\x1b]0;x\x07", {1: [("x\x1b[2J", 0.5)]})
    return made.path


def on_a_terminal(*arguments):
    """Return what a command writes to a terminal, with the line ends of the terminal removed; it draws no bar."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "embedstore", *map(str, arguments)],
        stdin=follower, stdout=follower, stderr=follower, close_fds=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "dumb"},
    )  # fmt: skip
    os.close(follower)
    parts = []
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        while True:
            try:
                part = terminal.read(1 << 16)
            except OSError:  # Linux reports the end of a terminal as an error
                break
            if not part:
                break
            parts.append(part)
    process.wait(timeout=120)
    return b"".join(parts).decode().replace("\r\n", "\n")


VERBS = [
    ["search", "STORE", "--item", "1", "-k", "40"],
    ["search", "STORE", "--item", "1", "-k", "40", "--uris"],
    ["search", "STORE", "--item", "1", "-k", "40", "--paths"],
    ["search", "STORE", "--item", "1", "-k", "40", "--paths", "-0"],
    ["search", "STORE", "--item", "1", "-k", "40", "--json"],
    ["search", "STORE", "--item", "1", "-k", "40", "--jsonl"],
    ["search", "STORE", "--item", "1", "-k", "40", "--explain"],
    ["search", "STORE", "--item", "1", "--where", "lable = 'x\x1b[2J'"],
    ["search", "STORE", "--image", "/no/such\x1b[2J\n.jpg"],
    ["info", "STORE"],
    ["info", "STORE", "--json"],
    ["info", "/no/such\x1b]0;x\x07\u202e"],
    ["sql", "STORE", "select * from items"],
    ["sql", "STORE", "describe items"],
    ["sql", "STORE", "select '\x1b[2J' as \"\x1b[31m\u202e\""],
    ["sql", "STORE", "select '\x1b[2J' from nowhere\x1b[31m"],
    ["label-errors", "STORE", "--folds", "2"],
    ["duplicates", "STORE", "--threshold", "0.1"],
    ["probe", "STORE"],
    ["heads", "STORE"],
    ["heads", "STORE", "--delete", "no\x1b[31m"],
    ["edit", "STORE", "--set", "no\x1b[31m=1", "--where", "true"],
    ["delete", "STORE", "--where", "\x1b[31m"],
    ["rename", "STORE", "no\x1b[31m", "x"],
    ["verify", "STORE"],
    ["export", "STORE", "/no/such\x1b[31m/x.parquet\n"],
    ["no\x1b[31mverb"],
    ["search", "STORE", "--no\x1b[31moption"],
    ["cluster", "STORE", "-k", "no\x1b[31mnumber"],
]


@pytest.mark.parametrize("arguments", VERBS, ids=lambda a: " ".join(map(ascii, a))[:60])
def test_a_terminal_sees_no_raw_character(store, arguments):
    """Whatever a verb prints, and whatever it complains about."""
    out = on_a_terminal(*[store if a == "STORE" else a for a in arguments])
    assert out.strip()
    assert RAW.findall(out) == []


def test_a_table_has_one_line_per_item(store):
    """A name with a line break does not begin a line of its own."""
    out = on_a_terminal("search", store, "--item", 1, "-k", 40)
    assert len(out.splitlines()) == 1 + 2 * len(HOSTILE) + 2
    assert "/line\\nsecond" in out
    assert "[bold red]markup[" in out


def test_json_on_a_terminal_is_the_same_document(store):
    """Escapes read back as the same text."""
    seen = json.loads(on_a_terminal("search", store, "--item", 1, "-k", 40, "--json"))
    assert {h["label"] for h in seen["hits"]} == {*map(clean_text, HOSTILE), "a", "b"}


def test_other_programs_get_names_exactly(store):
    """Piped uris and paths are the bytes of the names; NUL separates names that hold line breaks."""
    command = [sys.executable, "-m", "embedstore", "search", str(store), "--item", "1", "-k", "40", "--paths"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    lines = subprocess.run(command, capture_output=True, env=environment, check=True).stdout
    exact = subprocess.run([*command, "-0"], capture_output=True, env=environment, check=True).stdout
    names = exact.decode().split("\0")
    assert names.pop() == ""
    assert {re.sub(r"\d+\.jpg$", "", n[1:]) for n in names} == {*(h.replace("/", "") for h in HOSTILE), "a", "b"}
    assert lines == exact.replace(b"\0", b"\n")


def test_null_needs_names(store):
    """-0 alone, and two kinds of names, are usage errors."""
    for options in (["-0"], ["--uris", "--paths"]):
        command = [sys.executable, "-m", "embedstore", "search", str(store), "--item", "1", *options]
        out = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
        )
        assert out.returncode == 2
        assert "--paths" in out.stderr


@settings(deadline=None)
@given(st.text())
def test_visible_text_is_one_line_that_can_be_seen(text):
    """No control, format or separator character is left, and printable ASCII is unchanged."""
    shown = visible(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") for c in shown)
    assert not any(unicodedata.category(c) == "Cf" and c not in "\u200c\u200d" for c in shown)
    assert visible(shown) == shown
    assert all(visible(c) == c for c in text if " " <= c <= "~")
    assert visible_lines(text).count("\n") == text.count("\n")


@settings(deadline=None)
@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_visible_json_is_the_same_document(value):
    """It can be seen and reads back as the same value."""
    shown = visible_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(shown) == value
    assert visible_lines(shown) == shown


def test_a_guarded_stream_hides_what_writes_around_it():
    """Click looks for the buffer of a stream; a progress bar may begin with a carriage return."""
    raw = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = GuardedStream(raw)
    assert not hasattr(stream, "buffer")
    stream.writelines(["\r50%\r", "a\x1b[2J\n"])
    stream.flush()
    assert raw.buffer.getvalue() == b"\r50%\\ra\\x1b[2J\n"


def test_the_streams_are_as_before_after_a_command():
    """Also after an error."""
    before = sys.stdout, sys.stderr
    with suppress(ZeroDivisionError), guarded_streams():
        assert isinstance(sys.stderr, GuardedStream)
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before


def test_only_the_console_prints():
    """A verb that calls print() would write names raw."""
    allowed = {"console.py", "__init__.py"}
    found = [
        f"{path.name}:{node.lineno}"
        for path in sorted((ROOT / "embedstore" / "cli").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" and path.name not in allowed
    ]
    assert found == []
