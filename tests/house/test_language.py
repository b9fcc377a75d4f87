"""Plain technical English: the phrases that the house style forbids do not come back."""

import ast
import re

import pytest

from tests.conftest import ROOT

PHRASES = (
    r"as their names? says?",
    r"\bmend(s|ed|ing)?\b",
    r"\blore\b",
    r"\bset aside\b",
    r"\bpassed by\b",
    r"\b(stands?|lies|lying) (beside|there)\b",
    r"\bhas come\b",
    r"\bthe other side is told\b",
    r"\bis told\b",
    r"\bof its own accord\b",
    r"\ban? (class|item|image|query|row|vector) at a time an?\b",
)
FORBIDDEN = re.compile("|".join(PHRASES), re.IGNORECASE)
PROSE = [
    *sorted((ROOT / "embedstore").rglob("*.py")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
]


@pytest.mark.parametrize("path", PROSE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_phrase_of_the_private_dialect_comes_back(path):
    """Docstrings, comments, messages and documents use the words of the field."""
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":  # its tables of renamed verbs quote the old names
        text = re.sub(r"`[^`\n]*`", "", text)
    lines = text.splitlines()
    found = [f"{n}: {line.strip()}" for n, line in enumerate(lines, 1) if FORBIDDEN.search(line)]
    assert found == []


def test_an_option_help_is_a_sentence():
    """``--seed "Of everything random."`` says nothing to a stranger: a help text does not begin with "Of"."""
    found = []
    for path in sorted((ROOT / "embedstore" / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_help = isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant)
            if is_help and str(node.value.value).startswith(("Of ", "For each")):
                found.append(f"{path.name}: {node.value.value}")
    assert found == []


def test_the_description_of_an_argument_or_attribute_names_it():
    """``seed: of the folds`` is read only with the name in mind: a description begins with its noun."""
    fragment = re.compile(r"^\s+\*{0,2}[A-Za-z_]+: (of|that|to be) (?!of the compressed file)")
    found = [
        f"{path.relative_to(ROOT)}:{n}: {line.strip()}"
        for path in sorted((ROOT / "embedstore").rglob("*.py"))
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if fragment.search(line)
    ]
    assert found == []
