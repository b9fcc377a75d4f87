"""The Python of README and documentation runs on a real store; the set-up commands are those that the gate runs."""

import os
import re
import subprocess
import sys

import pytest

import embedstore as es
from tests.conftest import ROOT, TINY, picture
from tests.helpers.document_blocks import DOCUMENTS, blocks

TRAINING = "docs/how-to/fine-tune.md"  # it trains a network, in a process of its own


WITH_CODE = [name for name in DOCUMENTS if blocks(name, "python") and name not in ("README.md", TRAINING)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with photos/ and query.jpg."""
    for n in range(12):
        path = tmp_path / "photos" / ("val" if n % 3 == 2 else "train") / ("cat" if n < 6 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    picture(3).save(tmp_path / "query.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pets(folder):
    """pets.store in the working folder: photos with years, in the space of a network with a text tower."""
    from tests.helpers.networks import local_clip

    lines = ["uri,label,split,year"]
    for n, path in enumerate(sorted((folder / "photos").rglob("*.png"))):
        lines.append(f"{path},{path.parent.name},{path.parent.parent.name},{2015 + n}")
    (folder / "m.csv").write_text("\n".join(lines))
    store = es.create("pets.store", local_clip(folder / "clip"))
    store.embed("m.csv")
    return store


def test_the_python_of_the_readme_runs(folder):
    """Every line, with the backbone of the example replaced by a small one at random weights."""
    (code,) = blocks("README.md", "python")
    backbone = re.search(r'backbone="[^"]+"', code).group()
    scope = {}
    exec(code.replace(backbone, f'backbone="{TINY}", random_init=True'), scope)
    assert len(scope["hits"]) == 4
    assert (folder / "pets.store" / "catalog.duckdb").exists()


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_python_of_a_page_runs(name, pets):
    """Every block, in the order of the page, on a store as the tutorial makes one."""
    scope = {}
    for code in blocks(name, "python"):
        exec(code, scope)


def test_the_python_of_the_tutorial_gives_features(pets):
    """The last blocks do not only run: the features have the shape that the page promises."""
    scope = {}
    for code in blocks("docs/tutorial.md", "python"):
        exec(code, scope)
    assert scope["features"].X.shape == (12, pets.spaces[0].space.dim)


def test_the_recipe_of_scores_makes_columns(pets):
    """The scores of a head that is not ours are columns of the items, by which filters choose."""
    for code in blocks("docs/curation.md", "python"):
        exec(code, {})
    rows = es.open("pets.store").sql("SELECT aesthetic, unsafe FROM items").rows
    assert [(aesthetic, type(unsafe)) for aesthetic, unsafe in rows] == [(5.0, bool)] * 12


def test_the_python_of_the_fine_tuning_page_runs(pets):
    """It trains, embeds, compares and changes the default space."""
    pytest.importorskip("accelerate", reason="the extra finetune is not installed")
    (code,) = blocks(TRAINING, "python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=280)
    assert len(es.open("pets.store").spaces) == 2


def test_the_gate_runs_the_commands_of_the_readme():
    """Both set-up commands are marked, and the test command is pytest itself."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = dict(re.findall(r"<!-- setup:(\w+) -->\s*```bash\n(.*?)```", readme, re.DOTALL))
    assert commands["run"].strip() == "pip install -e . && embedstore quickstart"
    assert commands["test"].strip() == "pip install -e .[test] && python -m pytest -n 2 --dist loadfile"
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_files_that_the_journeys_name_exist():
    """Each journey is a table of at most sixteen files of the package."""
    page = (ROOT / "docs" / "internals.md").read_text(encoding="utf-8")
    journeys = page.split("## Journey")[1:]
    assert len(journeys) == 4
    for journey in journeys:
        files = re.findall(r"^\| `([\w/]+\.py)` \|", journey, re.MULTILINE)
        assert 5 <= len(files) <= 16
        assert [name for name in files if not (ROOT / "embedstore" / name).is_file()] == []


def test_the_drawing_of_the_rooms_has_every_room_and_every_module_at_the_root():
    """A new room or a loose module is drawn where its level is."""
    page = (ROOT / "docs" / "internals.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(.*?)```", page, re.DOTALL).group(1)
    package = ROOT / "embedstore"
    rooms = {p.parent.name for p in package.glob("*/__init__.py")}
    modules = {p.name for p in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert [name for name in sorted(rooms | modules) if not re.search(rf"(?m)(^| ){re.escape(name)}( |$)", drawn)] == []
