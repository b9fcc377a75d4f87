"""Which functions of the package a function calls, as far as the imports say it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "embedstore"


def functions() -> dict[str, ast.FunctionDef]:
    """Return every function and method of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in _tree(path).body:
            parts = [node, *(node.body if isinstance(node, ast.ClassDef) else [])]
            for part in parts:
                if isinstance(part, ast.FunctionDef):
                    owner = "" if part is node else f".{node.name}"
                    found[f"{_module(path)}{owner}.{part.name}"] = part
    return found


def called(name: str, function: ast.FunctionDef) -> Iterator[str]:
    """Yield the dotted name of each function that a function calls by an imported name, or one of its own module.

    A call of a method of an object is not followed: what its class is, the syntax does not say.
    """
    module = name
    while not _path(module).is_file():
        module = module.rpartition(".")[0]
    known = _names(module) | _imports(function) | {"self": name.rpartition(".")[0]}
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            if first in known and "(" not in rest:
                yield known[first] + (f".{rest}" if rest else "")


def reaching(targets: set[str]) -> set[str]:
    """Return the functions that call one of some functions, also by way of others; the targets are among them."""
    calls = {name: set(called(name, function)) for name, function in functions().items()}
    reached, added = set(targets), set(targets)
    while added:
        added = {name for name, names in calls.items() if name not in reached and names & reached}
        reached |= added
    return reached


def _module(path: Path) -> str:
    """Return the dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _path(module: str) -> Path:
    """Return the file of a module; it may not exist."""
    folder = ROOT.joinpath(*module.split("."))
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _names(module: str) -> dict[str, str]:
    """Return what the names of a module stand for: its own functions and classes, and what it imports."""
    tree = _tree(_path(module))
    own = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return {name: f"{module}.{name}" for name in own} | _imports(tree)


def _imports(node: ast.AST) -> dict[str, str]:
    """Return what the names that are imported somewhere in a node stand for."""
    return {
        alias.asname or alias.name: f"{statement.module}.{alias.name}"
        for statement in ast.walk(node)
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
