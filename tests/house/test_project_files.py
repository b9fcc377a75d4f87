"""The files around the package agree with it: versions of Python and of the package, workflows, the changelog."""

import re
import tomllib

import pytest
import yaml

import embedstore as es
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHONS = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]


def jobs(path):
    """The jobs of a workflow."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_has_jobs_that_run_on_supported_pythons(path):
    """A version without quotes would be read as a number: 3.10 is 3.1."""
    for job in jobs(path).values():
        assert job["runs-on"] == "ubuntu-latest"
        versions = [s["with"]["python-version"] for s in job["steps"] if "python-version" in s.get("with", {})]
        assert [v for v in versions if v not in (*PYTHONS, "${{ matrix.python-version }}")] == []


def test_the_tests_run_on_every_python_that_the_package_names():
    """The matrix, the classifiers and the least version say the same."""
    matrix = jobs(ROOT / ".github" / "workflows" / "ci.yml")["tests"]["strategy"]["matrix"]
    assert matrix["python-version"] == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_installs_extras_and_runs_modules_that_exist(path):
    """An extra that was renamed, or a tool that was moved, would fail on the next push only."""
    text = path.read_text(encoding="utf-8")
    extras = re.findall(r"-e \.\[([\w,]+)\]", text)
    assert [e for names in extras for e in names.split(",") if e not in PROJECT["optional-dependencies"]] == []
    modules = [m for m in re.findall(r"python -m ([\w.]+)", text) if m not in ("pytest", "build")]
    assert [m for m in modules if not (ROOT / f"{m.replace('.', '/')}.py").is_file()] == []
    paths = re.findall(r"\btests/[\w/.]+", text)
    assert [p for p in paths if not (ROOT / p).exists()] == []


def test_the_citation_has_the_version_of_the_package():
    """The release workflow takes the version from the package."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == es.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]


def test_the_changelog_has_the_sections_of_keep_a_changelog():
    """Each version has every section at most once, in the order of the standard; released versions have a date."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    head, *versions = re.split(r"^## ", text, flags=re.MULTILINE)
    assert "keepachangelog.com" in head
    assert re.match(r"\[Unreleased\]\n", versions[0])
    assert all(re.match(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d\n", v) for v in versions[1:])
    for version in versions:
        sections = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert sections == [name for name in order if name in sections]
