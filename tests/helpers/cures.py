"""Follow the command that a message names: what fails, the command of its message, and then it works.

The store lies in a folder with a space in its name, so that a command that is not quoted fails.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedstore.cli import main


@dataclass(frozen=True)
class Cure:
    """How one kind of command in a message is provoked and followed.

    Attributes:
        command: as the source has it, with ``{}`` for what is put in.
        prepare: makes what the failing command needs, in the folder of the test.
        words: the failing command; S is the store.
        fills: what the user puts in for the words in capitals.
        status: of the command that the message names.
        works: the command that works afterwards; None is the failing one.
    """

    command: str
    prepare: Callable[[Path], object]
    words: str
    fills: dict
    status: int = 0
    works: str | None = None


def name_of(cure):
    """The name of a cure among the tests."""
    return cure.command.replace(" ", "-")


def follow(cure, folder, capsys):
    """Run the failing command in the working folder, follow its message as it is written, and run it again."""
    cure.prepare(folder)
    words = shlex.split(cure.words)
    status, said = _run(folder, words, capsys)
    found = re.search(_pattern(cure.command), re.sub(r"\s+", " ", said))
    assert found, said
    fills = {"STORE": "S", **cure.fills}
    typed = [fills.get(word, word) for word in shlex.split(found[0].strip("`"))[1:]]
    status, said = _run(folder, typed, capsys)
    assert status == cure.status, said
    status, said = _run(folder, shlex.split(cure.works) if cure.works else words, capsys)
    assert status == 0, said
    assert not re.search(_pattern(cure.command), said) or cure.works, said


def _run(folder, words, capsys):
    """Run a command: its status and all that it printed."""
    try:
        main([str(folder / "my store") if w == "S" else w for w in words])
        status = 0
    except SystemExit as e:
        status = int(e.code or 0)
    return status, "".join(capsys.readouterr())


def _pattern(command):
    """A pattern of the command as a message shows it."""
    return "`embedstore " + "(.+?)".join(map(re.escape, command.split("{}"))) + "`"
