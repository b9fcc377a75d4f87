"""Tests use the package as a caller does: they import no private name, and read none of a module."""

import ast
from pathlib import Path

from tests.conftest import ROOT

TESTS = sorted((ROOT / "tests").rglob("*.py"))
REPLACED = {  # what a test replaces, to make it fail or to count its calls
    "backbones.runtimes.export._write_graph",
    "backbones.runtimes.fold_batchnorm._fold",
    "classify.data.self_join._Nearest",
    "media.extraction.pool._CODE",
    "sources.parquet.rows._OpenFiles",
}


def private(name: str) -> bool:
    """Return whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def is_module(name: str) -> bool:
    """Return whether a dotted name is that of a module of the package."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def private_names(path: Path) -> set[str]:
    """Return the private names of the package's modules that a file imports or reads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "embedstore"
        for alias in node.names
    }
    found = {name for name in names.values() if private(name.rpartition(".")[2])}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id, "")
            found |= {f"{module}.{node.attr}"} if is_module(module) else set()
    return {name.removeprefix("embedstore.") for name in found}


def test_tests_use_no_private_name_of_a_module_but_to_replace_it():
    """What a test needs has a name for everybody; a name that is only a detail may change without one failing."""
    assert set().union(*(private_names(path) for path in TESTS)) == REPLACED
