"""Exported towers in a store: searches without torch, and with torch if there are none."""

import os
import subprocess
import sys

import numpy as np
import pytest

import embedstore as es
from embedstore.backbones.runtimes import bpe
from embedstore.backbones.runtimes.onnx_encoder import was_refused
from embedstore.backbones.runtimes.runtime import Tower
from embedstore.errors import BadOption, MissingExtra
from embedstore.media.image import decode
from tests.conftest import ROOT, TINY
from tests.helpers.networks import local_clip


@pytest.fixture
def searched(tmp_path, photos):
    """A store of twelve images with a text tower."""
    store = es.create(tmp_path / "s", local_clip(tmp_path / "clip"), device="cpu")
    store.embed(photos)
    return store


def no_torch(code, *arguments):
    """Run Python in another process that cannot import torch, and return what it printed."""
    guard = "import sys; sys.modules['torch'] = None\n"
    run = subprocess.run(
        [sys.executable, "-c", guard + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


SEARCH = """
import embedstore as es
store = es.open(sys.argv[1])
words = store.search("a dog", k=3)
image = store.search(image=sys.argv[2], k=1)
print([h.uri for h in words], [round(h.score, 4) for h in words], image[0].uri)
"""


def test_a_search_by_text_or_image_needs_no_torch(searched, photos):
    """With exported towers a process that cannot import torch gives the same hits."""
    sentences = searched.export_towers()
    assert [s.split(" of ")[0] for s in sentences] == ["exported the image tower", "exported the text tower"]
    query = photos / "train" / "cat" / "1.png"
    hits = searched.search("a dog", k=3)
    printed = no_torch(SEARCH, searched.path, query)
    assert printed.strip() == f"{[h.uri for h in hits]} {[round(h.score, 4) for h in hits]} {query}"


def test_the_first_search_exports_towers_for_the_next(searched):
    """The first command reports the exported tower; the next one prints nothing and needs no torch."""
    command = "from embedstore.cli import main; main(sys.argv[1:])"
    arguments = ["search", str(searched.path), "a dog", "--uris"]
    first = subprocess.run(
        [sys.executable, "-c", f"import sys; {command}", *arguments], capture_output=True, text=True, check=True
    )
    assert first.stderr.startswith("exported the text tower of clip for searches without PyTorch: ")
    assert first.stdout == no_torch(command, *arguments)


@pytest.mark.skipif(os.name == "nt", reason="this system has no umask")
@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_towers_follow_the_umask(searched, umask):
    """The folder of an exported tower and its files have the permissions that the user's umask leaves."""
    command = [sys.executable, "-m", "embedstore", "search", str(searched.path), "a dog"]
    subprocess.run(command, capture_output=True, check=True, umask=umask)
    (manifest,) = searched.path.glob("spaces/*/towers/text/tower.json")
    assert manifest.parent.stat().st_mode & 0o777 == 0o777 & ~umask
    for file in manifest.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask, file.name


@pytest.mark.parametrize("name", ["tower.json", "graph.onnx", "weights.bin", None])
def test_a_damaged_tower_is_named_and_exported_again(searched, name):
    """By `verify` and `repair`: one flipped bit, or a file that is gone; the description is what is named."""
    searched.export_towers(towers=["text"])
    (description,) = searched.path.glob("spaces/*/towers/text/tower.json")
    found = str(description.relative_to(searched.path))
    if name is None:
        (description.parent / "weights.bin").unlink()
    else:
        file = description.parent / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    report = searched.verify()
    assert [d.file for d in report.damage] == [found]
    assert "export" in " ".join(es.repair_store(searched.path).actions)
    assert es.open(searched.path).verify().ok
    assert not description.exists()
    es.open(searched.path).export_towers(towers=["text"])
    assert es.open(searched.path).verify().ok


def test_timing_names_the_steps(searched, capsys):
    """``--timing`` before or after the verb prints on stderr how long each step took."""
    from embedstore.cli import main

    searched.export_towers(towers=["text"])
    for arguments in (["--timing", "search"], ["search", "--timing"]):
        with pytest.raises(SystemExit):
            main([*arguments, str(searched.path), "a dog"])
        printed = capsys.readouterr().err
        for step in ("Python and the command itself", "open the store", "open the text tower", "  search\n"):
            assert step in printed
        assert printed.count("  search\n") == 1  # an earlier command's steps are not printed again
    with pytest.raises(SystemExit):
        main(["search", str(searched.path), "a dog"])
    assert capsys.readouterr().err == ""


def test_a_read_only_store_is_searched_through_torch(searched, monkeypatch):
    """No tower can be exported there, and nothing is reported."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    again = es.open(searched.path, device="cpu")
    assert len(again.search("a dog", k=3)) == 3
    assert again.close() == []


def test_a_text_tower_with_another_tokenizer_is_refused_once(searched, monkeypatch):
    """Its texts go through torch, and the export is not tried at every search."""
    again = es.open(searched.path, device="cpu")
    again.search("a dog")
    monkeypatch.setattr(
        bpe, "tokenize", lambda texts, context_length, merges: np.zeros((len(texts), context_length), np.int64)
    )
    (sentence,) = again.close()
    assert "is not CLIP's own" in sentence
    assert was_refused(searched.path / "spaces" / searched.spaces[0].key / "towers", Tower.TEXT)
    assert again.close() == []


def test_the_requested_runtime_decides_whether_towers_are_exported(searched, monkeypatch, tmp_path):
    """``eager`` never exports, ``onnx`` without its packages names what to install, an unknown runtime is refused."""
    eager = es.open(searched.path, device="cpu", runtime="eager")
    eager.search("a dog")
    assert eager.close() == []
    with pytest.raises(BadOption, match="unknown runtime 'tensorrt'; use one of auto, eager, onnx, compile"):
        es.open(searched.path, runtime="tensorrt")
    monkeypatch.setattr("embedstore.backbones.runtimes.runtime.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install onnx onnxruntime"):
        es.open(searched.path, device="cpu", runtime="onnx").search("a dog")
    with pytest.raises(MissingExtra, match=r"pip install onnx onnxruntime"):
        es.create(tmp_path / "other", TINY, random_init=True, runtime="onnx")
    assert not (tmp_path / "other").exists()
    assert len(es.open(searched.path, device="cpu").search("a dog", k=2)) == 2


def test_image_queries_are_prepared_as_embedded_images_are(searched, photos):
    """An image of the store, queried as a file without torch, is found with a cosine of almost 1."""
    searched.export_towers(towers=["image"])
    again = es.open(searched.path, device="cpu")
    for path in sorted(photos.rglob("*.png"))[:4]:
        (hit,) = again.search(image=path, k=1)
        assert hit.uri == str(path)
        assert hit.score > 0.9995
    assert again._session.loaded_backbone(again.spaces[0].key) is None
    assert decode.open_image(path.read_bytes())[0].mode == "RGB"
