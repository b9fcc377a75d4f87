"""Who may read and write the catalog."""

import ast
from collections.abc import Iterator

from tests.conftest import ROOT

PACKAGE = ROOT / "embedstore"


def calls(method: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield the module of each call of a method, and the object it is called on."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
                yield path.relative_to(PACKAGE).as_posix(), node.func.value


def test_only_the_writer_opens_write_transactions():
    """No module but ``storage/writer.py`` calls ``Catalog.write``."""
    modules = {module for module, target in calls("write") if ast.unparse(target).endswith("catalog")}
    assert modules == {"storage/writer.py"}


def test_only_the_storage_room_runs_queries():
    """No module outside ``storage/`` executes SQL, but for tables of users (sources) and other databases (replicas)."""
    modules = {module for module, _ in calls("execute") if not module.startswith("storage/")}
    assert {m for m in modules if not m.startswith(("sources/", "replicas/"))} == set()
    queries = {module for module, target in calls("sql") if ast.unparse(target).endswith("storage")}
    assert {m for m in queries if not m.startswith("storage/")} == set()
