"""The public face: every name is declared once for the reader, for the type checker and for the import."""

import ast
import re
from collections import Counter, defaultdict

import embedstore as es
import embedstore.errors
from tests.conftest import ROOT

TREE = ast.parse((ROOT / "embedstore" / "__init__.py").read_text(encoding="utf-8"))


FACE = ast.parse((ROOT / "embedstore" / "store.py").read_text(encoding="utf-8"))
FUNCTIONS = [node for node in ast.walk(FACE) if isinstance(node, ast.FunctionDef)]
SAME_WORDS = 48  # characters; shorter descriptions may begin alike


def described_arguments(function):
    """Yield each argument that a docstring describes, with the description in one line."""
    section = re.search(r"Args:\n(.*?)(\n\n|\Z)", ast.get_docstring(function) or "", re.DOTALL)
    for entry in re.split(r"\n(?=    \*{0,2}\w+: )", section[1]) if section else ():
        name, _, text = entry.strip().partition(": ")
        yield name, " ".join(text.split())


def test_the_public_face_is_signatures_and_docstrings():
    """A body has at most five statements: the work is done by operations."""
    bodies = {f.name: len(f.body) - (ast.get_docstring(f) is not None) for f in FUNCTIONS}
    assert {name: count for name, count in bodies.items() if count > 5} == {}


def test_an_argument_that_functions_share_is_described_once():
    """The others refer to the one that describes it, so that no two say it in other words."""
    alike = defaultdict(list)
    for function in FUNCTIONS:
        for name, text in described_arguments(function):
            if len(text) >= SAME_WORDS and not text.startswith("see :"):
                alike[name, text[:SAME_WORDS]].append(function.name)
    assert {argument: names for argument, names in alike.items() if len(names) > 1} == {}


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
