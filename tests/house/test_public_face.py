"""The public face: every name is declared once for the reader, for the type checker and for the import."""

import ast
from collections import Counter

import embedstore as es
import embedstore.errors
from tests.conftest import ROOT

TREE = ast.parse((ROOT / "embedstore" / "__init__.py").read_text(encoding="utf-8"))


def imported_for_types():
    """The names that the type checker sees."""
    (block,) = [node for node in TREE.body if isinstance(node, ast.If)]
    return [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]


def imported_when_used():
    """The names that are imported with their first use."""
    (table,) = [n.value for n in TREE.body if isinstance(n, ast.Assign) and n.targets[0].id == "_MODULES"]
    return [name for names in ast.literal_eval(table).values() for name in names]


def test_every_public_name_is_declared_once_in_each_of_the_three_places():
    """A name that one of them lacks is unknown to the type checker, or cannot be imported."""
    assert Counter(imported_for_types()) == Counter(imported_when_used()) == Counter(es.__all__)


def test_every_error_is_public():
    """``except es.QueryTimeout`` works for every error that the tree in errors.py draws."""
    errors = {n for n, c in vars(es.errors).items() if isinstance(c, type) and issubclass(c, es.EmbedstoreError)}
    assert errors - set(es.__all__) == set()
