"""The README's and the tutorial's Python runs, on a real store; the set-up commands are what the gate runs."""

import re

import pytest

import embedstore as es
from tests.conftest import ROOT, TINY, picture

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def blocks(name):
    """The Python blocks of a document."""
    return BLOCK.findall((ROOT / name).read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with photos/, query.jpg and a place for pets.store."""
    for n in range(12):
        path = tmp_path / "photos" / ("val" if n % 3 == 2 else "train") / ("cat" if n < 6 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    picture(3).save(tmp_path / "query.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readmes_python_runs(folder):
    """Every line, with the example's backbone replaced by a small one at random init."""
    (code,) = blocks("README.md")
    small = f'backbone="{TINY}", random_init=True'
    assert 'backbone="timm/resnet50"' in code
    scope = {}
    exec(code.replace('backbone="timm/resnet50"', small), scope)
    assert len(scope["hits"]) == 4
    assert (folder / "pets.store" / "catalog.duckdb").exists()


def test_the_tutorials_python_runs(folder, tmp_path):
    """Every line, on a store whose network understands words."""
    from tests.helpers.networks import local_clip

    (code,) = blocks("docs/tutorial.md")
    backbone = local_clip(tmp_path / "clip")
    store = es.create("pets.store", backbone)
    lines = ["uri,label,split,year"]
    for n, path in enumerate(sorted((folder / "photos").rglob("*.png"))):
        lines.append(f"{path},{path.parent.name},{path.parent.parent.name},{2015 + n}")
    (folder / "m.csv").write_text("\n".join(lines))
    store.embed("m.csv")
    scope = {}
    exec(code, scope)
    assert scope["features"].X.shape == (12, store.spaces[0].space.dim)


def test_the_gate_runs_the_readmes_words():
    """Both set-up commands are marked, and the test command is pytest itself."""
    readme = (ROOT / "README.md").read_text()
    commands = dict(re.findall(r"<!-- setup:(\w+) -->\s*```bash\n(.*?)```", readme, re.DOTALL))
    assert commands["run"].strip() == "pip install -e . && embedstore quickstart"
    assert commands["test"].strip() == "pip install -e .[test] && python -m pytest -n 2 --dist loadfile"
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
