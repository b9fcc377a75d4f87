"""Install plug-ins for a test: a module and a real dist-info folder on the path of Python."""

from __future__ import annotations

import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedstore.media.image.formats import registry as decoders
from embedstore.sources.plug_in import registry as sources

EXAMPLES = Path(__file__).parents[2] / "examples"


def forget_plug_ins() -> None:
    """Let the next use look for plug-ins again."""
    decoders.plug_ins.cache_clear()
    decoders.decoder_version.cache_clear()
    sources.plug_ins.cache_clear()


def add_distribution(folder: Path, name: str, group: str, points: dict[str, str]) -> None:
    """Write the dist-info folder of a package with entry points."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{point} = {value}\n" for point, value in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")


@contextmanager
def plug_in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put a folder on the path; what was imported from it is forgotten at the end."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    forget_plug_ins()
    try:
        yield folder
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]
        monkeypatch.undo()
        forget_plug_ins()


@pytest.fixture
def install(tmp_path, monkeypatch) -> Iterator[Callable[..., None]]:
    """Install a plug-in from its code, and forget it after the test."""
    folder = tmp_path / "site"
    folder.mkdir()
    with plug_in_folder(folder, monkeypatch):

        def one(group: str, code: str, *, module: str = "added", name: str = "added", value: str = "PLUG_IN") -> None:
            (folder / f"{module}.py").write_text(textwrap.dedent(code))
            add_distribution(folder, f"package-{module}", group, {name: f"{module}:{value}"})
            forget_plug_ins()

        yield one


@pytest.fixture
def install_example(tmp_path, monkeypatch) -> Iterator[Callable[[str], None]]:
    """Install one of the packages in ``examples/`` as its pyproject.toml says."""
    folder = tmp_path / "examples-site"
    folder.mkdir()
    with plug_in_folder(folder, monkeypatch):

        def one(example: str) -> None:
            project = tomllib.loads((EXAMPLES / example / "pyproject.toml").read_text())
            for file in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]:
                (folder / file).write_text((EXAMPLES / example / file).read_text())
            for group, points in project["project"]["entry-points"].items():
                add_distribution(folder, project["project"]["name"], group, points)
            forget_plug_ins()

        yield one
