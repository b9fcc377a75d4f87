"""The cures in messages exist: every command and option that a message names can be typed as it is written."""

import ast
import inspect
import re
import tomllib
from functools import cache
from typing import get_type_hints

import embedstore as es
from embedstore.cli import load_commands
from embedstore.cli.app import app
from tests.conftest import ROOT

load_commands()
VERBS = {c.name or c.callback.__name__: c.callback for c in app.registered_commands}
GENERAL = {"--help", "--version", "--timing"}
COMMAND = re.compile(r"`embedstore ([a-z][a-z-]*)([^`]*)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def options(callback):
    """The options of a verb as they are typed."""
    names = set(GENERAL)
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        names.add(f"--{name.replace('_', '-')}")
        for option in getattr(hints.get(name, parameter.annotation), "__metadata__", ()):
            declared = [getattr(option, "default", None), *(getattr(option, "param_decls", None) or ())]
            names |= {part for text in declared if isinstance(text, str) for part in text.split("/")}
    return names


ALL_OPTIONS = set().union(*(options(callback) for callback in VERBS.values()))


def texts(path):
    """The texts of a module that a user may read: of every string but docstrings, with {} for what is put in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value


@cache
def messages():
    """Return every text that may name a command or an option, with its place."""
    return [
        (f"{path.relative_to(ROOT)}:{line}", text)
        for path in sorted((ROOT / "embedstore").rglob("*.py"))
        for line, text in texts(path)
        if "embedstore" in text or "--" in text
    ]


def test_every_command_in_a_message_exists():
    """The verb, and every option that stands with it."""
    wrong = []
    for where, text in messages():
        for verb, rest in COMMAND.findall(text):
            if verb not in VERBS:
                wrong.append(f"{where}: embedstore {verb}")
                continue
            known = options(VERBS[verb])
            wrong += [f"{where}: embedstore {verb} {name}" for name in OPTION.findall(rest) if name not in known]
    assert wrong == []


def test_every_option_in_a_message_exists():
    """Some verb has it, wherever the message appears."""
    other_programs = {"--no-sandbox", "--repo-type", "--local-dir"}  # of browsers; of `hf download`
    wrong = [
        f"{where}: {name}"
        for where, text in messages()
        if not text.startswith("-") and " " in text
        for name in OPTION.findall(text)
        if name not in ALL_OPTIONS | other_programs
    ]
    assert wrong == []


def test_every_extra_in_a_message_exists():
    """``pip install 'embedstore[extra]'`` installs something."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [(where, n) for where, text in messages() for n in re.findall(r"embedstore\[([\w,]+)\]", text)]
    assert len(named) > 10
    assert [(where, n) for where, n in named if not set(n.split(",")) <= set(known)] == []


def test_every_keyword_in_a_message_exists():
    """``save_as=``, ``dtype=`` and others that a message tells the user to pass."""
    public = [getattr(es, n) for n in ("create", "open", "restore", "import_store", "repair_store")]
    public += [m for m in vars(es.Store).values() if inspect.isfunction(m)]
    known = {p for function in public for p in inspect.signature(function).parameters}
    wrong = [
        f"{where}: {name}="
        for where, text in messages()
        for name in re.findall(r"\bpass ([a-z_]+)=", text)
        if name not in known
    ]
    assert wrong == []
