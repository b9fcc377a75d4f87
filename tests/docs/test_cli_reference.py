"""The reference of the command line is what the commands say."""

import re
import shlex

import typer

from tests.helpers.document_blocks import DOCUMENTS, shell_commands
from tools import cli_reference


def commands():
    """The commands of the program by their names."""
    return typer.main.get_command(cli_reference.app).commands


def spellings(command):
    """Every spelling of every option of a command."""
    options = [p for p in command.params if p.param_type_name == "option"]
    return {"-h", "--help"} | {s for p in options for s in [*p.opts, *p.secondary_opts]}


def command_lines(name):
    """The `embedstore VERB …` of the shell blocks of a document, as lists of words."""
    for command in shell_commands(name):
        words = shlex.split(command.partition(" | ")[0])
        if "embedstore" in words:
            yield words[words.index("embedstore") + 1 :]


def test_the_reference_is_up_to_date():
    """A changed option or help text changes the page."""
    stale = f"docs/cli.md is stale; run `{cli_reference.UPDATE_COMMAND}`"
    assert cli_reference.PAGE.read_text(encoding="utf-8") == cli_reference.render(), stale


def test_every_verb_is_in_the_reference():
    """A verb without a help panel would be missing from the page."""
    page = cli_reference.PAGE.read_text(encoding="utf-8")
    assert [name for name in commands() if f"### `{name}` " not in page] == []


def test_every_command_line_of_the_documents_has_a_verb_and_options_that_exist():
    """A renamed verb or option is renamed in README and docs too."""
    known, wrong, checked = commands(), [], 0
    for document in DOCUMENTS:
        for words in command_lines(document):
            verb = next((w for w in words if not w.startswith("-")), None)
            if verb not in known:
                wrong.append(f"{document}: no verb {verb}: embedstore {' '.join(words)}")
                continue
            used = {w.split("=")[0] for w in words[words.index(verb) + 1 :] if re.match(r"--?[a-z]", w)}
            wrong += [f"{document}: {verb} has no option {o}" for o in sorted(used - spellings(known[verb]))]
            checked += 1
    assert wrong == []
    assert checked > 50
