"""The house: who may speak SQL to the catalog, who may write, and that a class name means one thing."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "embedstore"
MODULES = sorted(PACKAGE.rglob("*.py"))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Yield the dotted text of the called function, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def room(path: Path) -> str:
    """Return the first folder below the package, or the module itself."""
    return path.relative_to(PACKAGE).parts[0]


def test_only_storage_speaks_sql_to_the_catalog():
    """No other room executes a statement on the catalog.

    Sources read the user's tables in another DuckDB, and replicas speak to PostgreSQL.
    """
    found = []
    for path in MODULES:
        if room(path) == "storage":
            continue
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            if name.endswith(("catalog.write", "scratch.execute", "storage.sql")) and path.name != "info.py":
                found.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}")
            if name.endswith((".execute", ".executemany")) and room(path) not in ("sources", "replicas"):
                found.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}")
    assert found == []


def test_the_text_of_a_query_is_in_storage():
    """Rooms above it name a query; they do not write one, not even for the public verb ``sql``."""
    query = re.compile(r"\s*(SELECT|FROM|WITH|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|ATTACH|COPY)\s")
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for path in MODULES
        if room(path) not in ("storage", "sources", "replicas")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and query.match(node.value)
    ]
    assert found == []


def test_only_the_writer_and_the_repair_of_a_closed_catalog_write():
    """``Catalog.write`` is called by the writer alone."""
    writers = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for name, _ in calls(ast.parse(path.read_text(encoding="utf-8")))
        if name.endswith("catalog.write")
    }
    assert writers == {"storage/writer.py"}


def test_a_public_class_name_occurs_once():
    """Two classes of one name are a defect for whoever reads a traceback."""
    names = Counter(
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name: n for name, n in names.items() if n > 1} == {}


def test_no_assertion_stands_in_for_a_type():
    """``assert`` is for tests: the package raises an error that says what is wrong."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


BUILT_WITH = {  # fields of the evaluation of a head that no other class has
    *("n_train", "n_leaks", "split_notes", "unlearned_classes", "held_out_predictions", "hyperparameters"),
    *("grid_edges", "c_path", "fold_accuracy", "fold_errors", "protocol", "slices", "calibration", "conformal"),
}


def test_an_evaluation_is_built_once():
    """Nobody makes one and then copies it with other fields: what it needs is passed to where it is built."""
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in MODULES
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8")))
        if name.rpartition(".")[2] == "replace" and BUILT_WITH & {keyword.arg for keyword in call.keywords}
    ]
    assert found == []


def test_only_threads_limits_the_threads_of_linear_algebra():
    """Some limits are of the process: of two that overlap, each of which restores what it found, one stays for ever."""
    users = {str(path.relative_to(PACKAGE)) for path in MODULES if "threadpoolctl" in path.read_text(encoding="utf-8")}
    assert users == {"threads.py"}
