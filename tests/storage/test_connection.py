"""One place opens DuckDB, and it draws nothing."""

import ast
import subprocess
import sys

from tests.conftest import ROOT


def test_connections_draw_no_progress_bar():
    """DuckDB draws a progress bar on stdout after two seconds where no script runs; ``connect`` turns it off."""
    code = """
import duckdb
from embedstore.storage.connection import connect
for open_database in (connect, duckdb.connect):
    print(*open_database().execute("SELECT current_setting('enable_progress_bar')").fetchone())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"], "DuckDB is silent by itself now: remove the setting"


def test_only_the_connection_module_opens_duckdb():
    """No other module calls ``duckdb.connect``."""
    calls = [
        path.name
        for path in (ROOT / "embedstore").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "duckdb.connect"
    ]
    assert calls == ["connection.py"]
