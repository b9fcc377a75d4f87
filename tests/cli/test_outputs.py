"""Every output of every verb, on everything that cannot be written: one line, exit status 1, no half file."""

import importlib
import inspect
import os
import re
import shutil
import subprocess
import tempfile
import typing
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.cli import load_commands, main
from embedstore.cli.app import app
from tests.conftest import TINY
from tests.helpers.clusters import clusters, store_of

load_commands()
VERBS = {c.name or c.callback.__name__: c.callback for c in app.registered_commands}

# What writes to a path that the user names: the words of a command, with STORE for what it reads and OUT for the path.
OUTPUTS = {
    ("probe", "output"): [(["probe", "STORE", "--head", "ridge", "-o", "OUT"], [".html", ".png"])],
    ("knn", "output"): [(["knn", "STORE", "-o", "OUT"], [".html", ".png"])],
    ("zero-shot", "output"): [
        (["zero-shot", "STORE", "--class-vectors", "VECTORS", "--classes", "c0,c1,c2", "-o", "OUT"], [".html", ".png"])
    ],
    ("few-shot", "output"): [
        (
            ["few-shot", "STORE", "--class-vectors", "VECTORS", "--classes", "c0,c1,c2", "--shots", "2", "-o", "OUT"],
            [".html", ".png"],
        )
    ],
    ("learning-curve", "output"): [
        (
            ["learning-curve", "STORE", "--labels-per-class", "2", "--repeats", "1", "--head", "ridge", "-o", "OUT"],
            [".html", ".png"],
        )
    ],
    ("classify", "output"): [
        (["classify", "TINY", "tiny", "PHOTOS", "-o", "OUT"], [".html", ".csv", ".parquet", ".jsonl"])
    ],
    ("compare-heads", "output"): [(["compare-heads", "STORE", "--heads", "ridge,knn", "-o", "OUT"], [".html"])],
    ("export-head", "path"): [(["export-head", "STORE", "kept", "OUT"], [".npz", ".onnx"])],
    ("export-classifier", "path"): [(["export-classifier", "TINY", "tiny", "OUT"], [".onnx"])],
    ("compare-strategies", "output"): [
        (["compare-strategies", "TRAINABLE", "--epochs", "0", "--labels-per-class", "2", "-o", "OUT"], [".png"])
    ],
    ("retrieval", "output"): [(["retrieval", "STORE", "label", "-o", "OUT"], [".html"])],
    ("shift", "output"): [
        (["shift", "WIDE", "--first", "item <= 30", "--second", "item > 30", "-o", "OUT"], [".html"])
    ],
    ("label-errors", "output"): [
        (["label-errors", "STORE", "--all", "-o", "OUT"], [".html", ".csv", ".parquet", ".jsonl"])
    ],
    ("suggest-labels", "output"): [(["suggest-labels", "STORE", "some", "-o", "OUT"], [".html"])],
    ("duplicates", "output"): [
        (["duplicates", "STORE", "--threshold", "0.5", "-o", "OUT"], [".csv", ".parquet", ".jsonl", ".html"])
    ],
    ("checkup", "output"): [(["checkup", "STORE", "-o", "OUT"], [".html"])],
    ("backup", "target"): [(["backup", "STORE", "OUT"], [""])],
    ("restore", "store"): [(["restore", "STORE", "OUT"], [""])],
    ("import", "store"): [(["import", "OUT", "EXPORTED"], [""])],
    ("create", "store"): [(["create", "OUT"], [""])],
    ("report", "output"): [(["report", "PHOTOS", "--store", "TINY", "-o", "OUT"], [".html"])],
    ("report", "store"): [
        (["report", "PHOTOS", "--backbone", "tiny", "-o", "PAGE", "--store", "OUT"], [""]),
    ],
    ("quickstart", "output"): [(["quickstart", "-o", "OUT"], [""])],
    ("search", "output"): [
        (["search", "STORE", "--item", "1", "-o", "OUT"], [".html", ".png", ".csv", ".parquet", ".jsonl"])
    ],
    ("map", "output"): [(["map", "STORE", "--max-items", "5", "-o", "OUT"], [".html", ".png"])],
    ("export", "path"): [
        (["export", "STORE", "OUT"], [".parquet", ".npy", ".csv", ""]),
        (["export", "STORE", "OUT", "--dtype", "float16"], [".parquet", ".lance"]),
        (["export", "TINY", "OUT"], [".tar"]),
        *((["export", "TINY", "OUT", "--format", name], [""]) for name in ("webdataset", "huggingface", "fiftyone")),
    ],
}
# Paths that a verb reads, or the store that it opens.
INPUTS = {
    "prompts", "class_vectors", "caption_vectors",
    "table", "source", "folder", "weights", "vectors", "images", "image", "store", "root",
}  # fmt: skip
CASES = [
    (verb, words, suffix)
    for (verb, _), commands in OUTPUTS.items()
    for words, suffixes in commands
    for suffix in suffixes
]
LONG = [pytest.param(*case, marks=pytest.mark.slow) if case[0] == "compare-strategies" else case for case in CASES]
IDS = [f"{verb}-{words[-2].strip('-')}{suffix or '-folder'}" for verb, words, suffix in CASES]


def path_parameters():
    """The parameters of every verb that are paths."""
    for verb, callback in VERBS.items():
        hints = typing.get_type_hints(callback)
        for name, parameter in inspect.signature(callback).parameters.items():
            if "Path" in str(hints.get(name, parameter.annotation)):
                yield verb, name


def test_every_path_of_every_verb_is_known_as_input_or_output():
    """A new output is tried here, or this test fails."""
    unknown = [(v, n) for v, n in path_parameters() if (v, n) not in OUTPUTS and n not in INPUTS]
    assert unknown == []
    assert set(OUTPUTS) <= set(path_parameters())
    assert [key for key, commands in OUTPUTS.items() if not commands] == []


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store of numbers with a head, its export, a store of photos, and the files that the commands read."""
    folder = tmp_path_factory.mktemp("outputs")
    X, y = clusters(30, noise=0.1)
    store = store_of(folder / "numbers.store", X, label=y, some=[*y[:15], *[None] * 15])
    store.save_head("kept", store.probe(head="ridge"))
    store.export_store(folder / "exported")
    np.save(folder / "text.npy", X[:3])
    for n in range(8):
        path = folder / "photos" / ("ab"[n % 2]) / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30), (n * 30, 255 * (n % 2), 9)).save(path)
    tiny = es.create(folder / "tiny.store", "embedstore/tiny")
    tiny.embed(folder / "photos")
    tiny.save_head("tiny", tiny.probe(head="prototype"))
    trainable = es.create(folder / "trainable.store", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    trainable.embed(folder / "photos")
    return {
        "WIDE": store_of(folder / "wide.store", clusters(60)[0]).path, "TRAINABLE": trainable.path,
        "STORE": store.path, "TINY": folder / "tiny.store",
        "PHOTOS": folder / "photos", "VECTORS": folder / "text.npy",
        "EXPORTED": folder / "exported",
    }  # fmt: skip


@pytest.fixture
def run(world, capsys):
    """Run a command in this process: exit status, standard output and error output."""

    def one(words, out, sources=world):
        paths = sources | {"OUT": out, "PAGE": out.with_name("page.html")}
        status = 0
        try:
            main([str(paths.get(w, w)) for w in words])
        except SystemExit as e:
            status = e.code or 0
        return status, *capsys.readouterr()

    return one


def parent_is_a_file(folder):
    (folder / "file").write_text("a file")
    return folder / "file" / "out"


def target_is_a_folder(folder):
    (folder / "out" / "inside").mkdir(parents=True)
    return folder / "out"


def target_is_a_file(folder):
    (folder / "out").write_text("a file")
    return folder / "out"


def name_is_too_long(folder):
    return folder / ("x" * 300)


def parent_is_a_link_to_nowhere(folder):
    (folder / "link").symlink_to(folder / "nowhere" / "deeper")
    return folder / "link" / "out"


def parent_is_a_loop(folder):
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop" / "out"


def name_has_a_null(folder):
    return folder / "a\0b" / "out"


KINDS = [
    parent_is_a_file, target_is_a_folder, name_is_too_long, parent_is_a_link_to_nowhere, parent_is_a_loop,
    name_has_a_null,
]  # fmt: skip


def snapshot(folder):
    """Every path below a folder, with the size of files."""
    return {p: p.lstat().st_size for p in folder.rglob("*") if not p.is_dir()}


def check_refused(result, out):
    """Status 1 and one line that names the path; or a usage error for what is refused before the work."""
    status, _, err = result
    assert "Traceback" not in err
    assert "unexpected error" not in err
    assert status in (1, 2), err
    lines = [line for line in err.splitlines() if line.startswith("embedstore: ")]
    if status == 1:
        assert len(lines) == 1, err
        assert str(out).split("\0")[0][:200] in lines[0] or str(out.parent)[:200] in lines[0], err


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
@pytest.mark.parametrize(("verb", "words", "suffix"), CASES, ids=IDS)
def test_an_output_that_cannot_be_written_is_one_line(run, tmp_path, verb, words, suffix, kind):
    """Nothing is left and nothing is replaced."""
    box = tmp_path / "box"
    box.mkdir()
    out = kind(box)
    wanted = out.with_name(out.name + suffix)
    if suffix and os.path.lexists(out):
        out.rename(wanted)
    before = snapshot(box)
    if verb == "quickstart" and kind is target_is_a_folder:
        pytest.skip("it writes into a folder that exists")
    if kind is parent_is_a_link_to_nowhere:  # it can be made, or it is refused
        status, _, err = run(words, wanted)
        assert status in (0, 1, 2)
        assert "unexpected error" not in err
        return
    check_refused(run(words, wanted), wanted)
    assert snapshot(box) == before


@pytest.mark.parametrize(("verb", "words", "suffix"), LONG, ids=IDS)
def test_missing_parent_folders_are_made(run, tmp_path, verb, words, suffix):
    """Where the file or folder can be written."""
    if verb == "quickstart":
        pytest.skip("its run takes half a minute; tests/quickstart runs it")
    out = tmp_path / "box" / "new" / "folder" / f"out{suffix}"
    status, _, err = run(words, out)
    assert status == 0, err
    assert out.exists()


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 KB with 8 KB left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("this user cannot mount a file system")
    try:
        (folder / "filler").write_bytes(b"x" * 60 * 1024)
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(("verb", "words", "suffix"), LONG, ids=IDS)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(run, full_disk, tmp_path, verb, words, suffix):
    """The output does not fit, or it is small enough to fit as a whole."""
    out = full_disk / f"out{suffix}"
    status, _, err = run(words, out)
    assert "Traceback" not in err
    assert "unexpected error" not in err
    if status == 0:
        assert out.stat().st_size <= 4096
    else:
        assert status == 1
        assert sum(line.startswith("embedstore: ") for line in err.splitlines()) == 1, err
        if verb not in ("quickstart", "report"):  # folders that keep what was finished
            assert [p.name for p in full_disk.iterdir()] == ["filler"]


@pytest.fixture(scope="module")
def foreign_world(world):
    """The same files, readable and writable by an ordinary user."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    for package in ("onnx", "lancedb", "accelerate"):  # the ordinary user may not be able to read them
        with suppress(ImportError):
            importlib.import_module(package)
    with tempfile.TemporaryDirectory() as name:
        copies = {}
        for key, path in world.items():
            copies[key] = Path(name, path.name)
            shutil.copytree(path, copies[key]) if path.is_dir() else shutil.copy(path, copies[key])
        for path in [Path(name), *Path(name).rglob("*")]:
            path.chmod(0o777)
        yield copies


@pytest.mark.parametrize(("verb", "words", "suffix"), CASES, ids=IDS)
def test_an_output_without_permission_is_one_line(run, foreign_world, ordinary, verb, words, suffix):
    """In a folder that may not be written, next to a file that stays."""
    box = ordinary / "box"
    box.mkdir()
    (box / f"out{suffix or '.keep'}").write_text("kept")
    box.chmod(0o500)
    out = box / f"out{suffix}"
    check_refused(run(words, out, foreign_world), out)
    box.chmod(0o700)
    assert [p.read_text() for p in box.iterdir()] == ["kept"]


def test_a_wrong_suffix_is_refused_before_the_work(run, tmp_path):
    """Every verb with -o names the suffixes that it writes, and the file does not appear."""
    for verb, words, suffix in CASES:
        if suffix:
            out = tmp_path / "out.svg"
            status, _, err = run(words, out)
            assert status in (1, 2), verb
            assert suffix in re.sub(r"\s+", " ", err) or ".npz" in err or ".parquet" in err, (verb, err)
            assert not out.exists()
