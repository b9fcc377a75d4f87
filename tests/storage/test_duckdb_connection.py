"""DuckDB as every room opens it."""

import ast
import subprocess
import sys

from tests.conftest import ROOT


def test_no_query_draws_a_progress_bar():
    """Where there is no script, as at a prompt, DuckDB would draw one on stdout after two seconds."""
    code = """
import duckdb
from embedstore.storage import duckdb_connection as database
for connect in (database.connect, duckdb.connect):
    print(*connect().execute("SELECT current_setting('enable_progress_bar')").fetchone())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"], "if DuckDB is silent by itself, this room can go"


def test_every_room_opens_it_there():
    """No module but one calls ``duckdb.connect``."""
    calls = [
        path.name
        for path in (ROOT / "embedstore").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "duckdb.connect"
    ]
    assert calls == ["duckdb_connection.py"]
