"""No message counts one thing in the plural."""

import re
import shutil

import numpy as np
import pytest

import embedstore as es
from embedstore.cli import main
from embedstore.wording import counted
from tests.cli.test_no_traces import SLOW, VERBS
from tests.conftest import picture

ONE_OF_SEVERAL = re.compile(
    r"(?<![\d.,/:-])1 (?:[a-z-]+ )?(?!(?:is|has|was|does|its|this|as|ms|s|class|pass|less|names)\b)[a-z]+s\b(?!/)"
)
OTHERS = {
    "embed: a bad file": ["embed", "STORE", "MIXED"],
    "classify --csv": ["classify", "STORE", "h", "PHOTOS", "--json"],
    "edit: a file": ["edit", "STORE", "TABLE"],
    "delete: where": ["delete", "STORE", "--where", "label = 'cat'"],
    "export: a folder": ["export", "STORE", "OUT/folder"],
    "search --explain": ["search", "STORE", "red", "--explain"],
}


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2000, "2,000 images")]
)
def test_a_noun_follows_its_number(count, expected):
    """One image, and any other number of images."""
    assert counted(count, "image") == expected


def test_a_verb_follows_its_number():
    """The words of several things may be given."""
    assert [counted(n, "copy is", "copies are") for n in (1, 3)] == ["1 copy is", "3 copies are"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store of one picture in two spaces, with a head of pictures that were deleted, and what the verbs read."""
    folder = tmp_path_factory.mktemp("one")
    for n in range(8):
        path = folder / ("photos" if n == 0 else "more") / ("cat" if n % 2 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    (folder / "mixed").mkdir()
    picture(8).save(folder / "mixed" / "8.png")
    (folder / "mixed" / "bad.png").write_bytes(b"no picture")
    (folder / "mixed" / "notes.txt").write_text("no picture")
    store = es.create(folder / "s", "tiny")
    store.embed(folder / "photos")
    store.embed(folder / "more")
    store.probe("label", head="ridge", save_as="h")
    store.delete(where="item > 1")
    store.compact()
    [[uri]] = store.sql("select uri from items").rows
    store.add_vectors(np.ones((1, 4), np.float32), {"uri": [uri]}, space="second")
    (folder / "table.csv").write_text("item,label\n1,dog\n77,cat\n")
    store.backup(folder / "backup")
    store.export_store(folder / "archive")
    es.create(folder / "planned", "tiny").plan_parts(folder / "photos", 1)
    return folder


def cases():
    """Yield the arguments of every verb, and of some verbs with other options."""
    for name, arguments in (VERBS | OTHERS).items():
        yield pytest.param(arguments, id=name, marks=[pytest.mark.slow] if arguments[0] in _SLOW else [])


_SLOW = {*SLOW} - {"embed", "create", "map", "learning-curve", "work"}


@pytest.mark.parametrize("arguments", list(cases()))
def test_no_message_counts_one_thing_in_the_plural(place, tmp_path, capsys, monkeypatch, arguments):
    """What a verb prints about a store of one picture, an error included, says "1 item" and not "1 items"."""
    for name in ("s", "planned"):
        shutil.copytree(place / name, tmp_path / name)
    (tmp_path / "out").mkdir()
    words = {
        "STORE": tmp_path / "s", "NEW": tmp_path / "new", "PHOTOS": place / "photos", "MIXED": place / "mixed",
        "BACKUP": place / "backup", "ARCHIVE": place / "archive", "PLANNED": tmp_path / "planned",
        "OUT": tmp_path / "out", "TABLE": place / "table.csv", "SPACE": "tiny",
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([_filled(argument, words) for argument in arguments])
    printed = "".join(capsys.readouterr())
    pages = [p.read_text() for p in (tmp_path / "out").rglob("*.html")]
    assert [m[0] for text in (printed, *pages) for m in ONE_OF_SEVERAL.finditer(text)] == []


def _filled(argument, words):
    name, slash, rest = argument.partition("/")
    return f"{words[name]}{slash}{rest}" if name in words else argument
