"""Verbs as a user runs them: output, error output and exit status."""

import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.cli import main
from tests.conftest import ROOT, TINY, picture

NETWORK = ["--backbone", TINY, "--random-init", "--preprocess", "size=32", "--preprocess", "resize=32"]


def run(*arguments, cwd=None, timeout=120):
    """Run the command in a process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "embedstore", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=timeout, check=False,
    )  # fmt: skip


def ok(*arguments, **how):
    """Return the JSON document that a successful command prints."""
    out = run(*arguments, "--json", **how)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of twelve images and one file that is no image, made by the verbs."""
    folder = tmp_path_factory.mktemp("cli")
    for n in range(12):
        path = folder / "photos" / ("val" if n % 3 == 2 else "train") / ("cat" if n < 6 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    (folder / "photos" / "bad.jpg").write_text("no image")
    created = ok("create", folder / "pets.store", *NETWORK)
    assert created["items"] == 0
    assert created["spaces"][0]["random"] is True
    report = ok("embed", folder / "pets.store", folder / "photos")
    assert (report["found"], report["embedded"], report["failures"]) == (13, 12, 1)
    return folder / "pets.store"


def test_info_counts_items_and_failures(store):
    """As JSON and as text."""
    d = ok("info", store)
    assert (d["items"], d["contents"], d["failures"]) == (12, 12, 1)
    assert d["labels"] == {"cat": 6, "dog": 6}
    assert d["splits"] == {"train": 8, "val": 4}
    assert {"spaces", "indexes", "heads", "bytes"} <= set(d)
    words = run("info", store).stdout
    assert "12 vectors of" in words
    assert "RANDOM WEIGHTS" in words
    assert "preprocessing overridden: resize=32, size=32" in words


def test_a_search_by_image_and_by_item_finds_the_same_hits(store):
    """As JSON, as a table and as uris; a filter restricts them."""
    query = store.parent / "photos" / "val" / "dog" / "8.png"
    d = ok("search", store, "--image", query, "-k", 3)
    first = d["hits"][0]
    assert (first["rank"], first["uri"], first["label"], first["split"]) == (1, str(query), "dog", "val")
    assert first["score"] == pytest.approx(1, abs=1e-3)
    assert len(d["hits"]) == 3
    by_item = ok("search", store, "--item", first["item"], "-k", 3)
    assert [h["uri"] for h in by_item["hits"]] == [h["uri"] for h in d["hits"]]
    paths = run("search", store, "--image", query, "-k", 3, "--uris").stdout.splitlines()
    assert paths == [h["uri"] for h in d["hits"]]
    assert str(query) in run("search", store, "--image", query).stdout
    filtered = ok("search", store, "--image", query, "--where", "label = 'cat' and split = 'train'")
    assert {(h["label"], h["split"]) for h in filtered["hits"]} == {("cat", "train")}
    assert len(filtered["hits"]) == 4


def test_a_search_writes_contact_sheets(store, tmp_path):
    """The page contains every thumbnail and links nowhere; the PNG has five columns."""
    from PIL import Image

    query = store.parent / "photos" / "val" / "dog" / "8.png"
    out = run("search", store, "--image", query, "-k", 7, "-o", tmp_path / "h.html", "-o", tmp_path / "s.png")
    assert out.returncode == 0
    html = (tmp_path / "h.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 7
    assert "http" not in html.replace("http-equiv", "")
    assert Image.open(tmp_path / "s.png").width == 5 * 188 + 8


def test_a_text_query_needs_a_text_tower(store):
    """The error is one line that names a backbone with one; stdout is empty."""
    out = run("search", store, "a bee on a flower", "--json")
    assert (out.returncode, out.stdout) == (1, "")
    assert out.stderr.count("\n") == 1
    assert "--backbone clip" in out.stderr
    out = run("zero-shot", store, "label", "--classes", "ants,bees")
    assert out.returncode == 1
    assert "--backbone clip" in out.stderr


def test_probe_and_knn_evaluate_on_held_out_items(store):
    """Accuracy, its interval and the chosen C as JSON; the text names the metrics."""
    d = ok("probe", store, "label")
    assert (d["split"], d["train"], d["held_out"]) == ("val", 8, 4)
    assert 0 <= d["accuracy"] <= 1
    assert d["C"] > 0
    assert d["seconds"] > 0
    assert d["metrics"]["accuracy"]["low"] <= d["accuracy"] <= d["metrics"]["accuracy"]["high"]
    d = ok("knn", store, "label", "-k", 3)
    assert d["k"] == 3
    assert "mean_per_class_recall" in run("knn", store, "label").stdout


def test_a_file_name_cannot_control_the_terminal(tmp_path, capfd):
    """Line breaks and escape codes are printed as text, in tables and in the list of failures."""
    name = "a\n\x1b[2Jb.png"
    picture(1).save(tmp_path / name)
    (tmp_path / "c\x1b]0;x\x07.png").write_bytes(b"none")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    for verb in (["embed", str(store.path), str(tmp_path / "*.png")], ["search", str(store.path), "--item", "1"]):
        with contextlib.suppress(SystemExit):
            main(verb)
    printed = "".join(capfd.readouterr())
    assert "a\\n\\x1b[2Jb.png" in printed
    assert "c\\x1b]0;x\\x07.png: not_an_image" in printed
    assert "\x1b" not in printed
    assert store.item_uris([1]) == {1: str(tmp_path / name)}


def test_failures_sql_and_backbones_print_tables(store):
    """As text, and as JSON with one object per row."""
    (failure,) = ok("failures", store)
    assert failure["uri"].endswith("bad.jpg")
    assert failure["reason"] == "not_an_image"
    assert "not_an_image" in run("failures", store).stdout
    rows = ok("sql", store, "select label, count(*) as n from items group by 1 order by 1")
    assert rows == [{"label": "cat", "n": 6}, {"label": "dog", "n": 6}]
    out = run("sql", store, "delete from items")
    assert out.returncode == 1
    assert "changes nothing" in out.stderr
    names = {b["name"] for b in ok("backbones", "mobilenetv2_100")}
    assert "timm/mobilenetv2_100.ra_in1k" in names


def test_export_writes_parquet_and_npy(store, tmp_path):
    """Both have the same vectors; the rows of .npy are in the order of its Parquet file."""
    import duckdb

    assert ok("export", store, tmp_path / "x.parquet")["rows"] == 12
    rows = duckdb.sql(f"SELECT uri, label, vector FROM '{tmp_path}/x.parquet' ORDER BY item").fetchall()
    assert ok("export", store, tmp_path / "y.npy", "--where", "split = 'val'")["rows"] == 4
    vectors = np.load(tmp_path / "y.npy")
    uris = [u for (u,) in duckdb.sql(f"SELECT uri FROM '{tmp_path}/y.parquet'").fetchall()]
    everything = {uri: vector for uri, _, vector in rows}
    assert np.array_equal(vectors, np.array([everything[u] for u in uris], np.float32))
    f = es.open(store).features()
    assert np.array_equal(f.X, np.array([v for _, _, v in rows], np.float32))


def test_precomputed_vectors_are_imported_and_searched(tmp_path):
    """A store without a backbone imports a .npy file and a table, and is searched by item."""
    np.save(tmp_path / "v.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "t.csv").write_text("uri,label,year\na.jpg,x,2019\nb.jpg,y,2020\nc.jpg,x,2021\nd.jpg,y,2022\n")
    ok("create", tmp_path / "s")
    d = ok("embed", tmp_path / "s", "--vectors", tmp_path / "v.npy", "--table", tmp_path / "t.csv")
    assert d == {"rows": 4, "new_items": 4, "new_vectors": 4, "space": "precomputed", "dim": 4}
    hits = ok("search", tmp_path / "s", "--item", 1, "--where", "year > 2019")["hits"]
    assert [(h["item"], h["score"], h["year"]) for h in hits] == [(2, 0, 2020), (3, 0, 2021), (4, 0, 2022)]
    out = run("search", tmp_path / "s", "--image", tmp_path / "a.jpg")
    assert out.returncode == 1
    assert "precomputed" in out.stderr


def bad_manifest(tmp_path):
    (tmp_path / "m.csv").write_text("path,label\na.jpg,x\n")
    return tmp_path / "m.csv"


def bad_vectors(tmp_path, value):
    array = np.ones((3, 4), np.float32)
    array[1, 2] = value
    np.save(tmp_path / "bad.npy", array)
    return tmp_path / "bad.npy"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda s, t: ["info", t / "nowhere"], "no store at"),
        (lambda s, t: ["info", t], "is not a store"),
        (lambda s, t: ["embed", s, t / "nowhere"], "nowhere"),
        (lambda s, t: ["embed", s, t], "has no files"),
        (lambda s, t: ["embed", s, bad_manifest(t)], "uri"),
        (lambda s, t: ["create", t / "n", "--backbone", "timm/resnet5O"], "did you mean"),
        (lambda s, t: ["create", t / "n", "--backbone", "resnet18", "--weights", t / "w.safetensors"], "--weights"),
        (lambda s, t: ["create", s, *NETWORK], "exists already"),
        (lambda s, t: ["create", t / "n", *NETWORK, "--dtype", "int8"], "float16"),
        (lambda s, t: ["create", t / "n", *NETWORK, "--preprocess", "meen=0.5"], "meen"),
        (lambda s, t: ["search", s, "--item", 1, "--where", "yeer > 2020"], "no column 'yeer'"),
        (lambda s, t: ["search", s, "--item", 1, "--where", "label ="], "filter"),
        (lambda s, t: ["search", s, "--item", 999], "item 999"),
        (lambda s, t: ["search", s, "--item", 1, "-k", 0], "k must be"),
        (lambda s, t: ["search", s, "--image", t / "none.jpg"], "missing"),
        (lambda s, t: ["search", s, "--item", 1, "--space", "othr"], "no space 'othr'"),
        (lambda s, t: ["probe", s, "labell"], "did you mean label"),
        (lambda s, t: ["probe", s, "group_id"], "no item has both"),
        (lambda s, t: ["sql", s, "select * from itemz"], "itemz"),
        (lambda s, t: ["embed", s, "--vectors", bad_vectors(t, np.nan)], "NaN"),
        (lambda s, t: ["export", s, t / "x.pkl"], ".parquet, .npy, .csv"),
    ],
)
def test_bad_input_is_one_clear_line(store, tmp_path, arguments, words):
    """The exit status is 1, stdout is empty, and stderr is one line that names the problem."""
    out = run(*arguments(store, tmp_path))
    assert (out.returncode, out.stdout) == (1, "")
    assert out.stderr.count("\n") == 1, out.stderr
    assert out.stderr.startswith("embedstore: ")
    assert words in out.stderr


def test_a_source_whose_every_file_fails_is_status_1(tmp_path):
    """The report is printed as always; one good file, now or before, makes it 0."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.jpg").write_text("x")
    es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    for _ in range(2):  # the second run knows the failure
        out = run("embed", tmp_path / "s", tmp_path / "photos")
        assert (out.returncode, "failed" in out.stdout) == (1, True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "good.png")
    for _ in range(2):
        assert run("embed", tmp_path / "s", tmp_path / "photos").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [["info"], ["nonsense"], ["search", "x.store"], ["embed", "x.store"], ["create", "n", "--preprocess", "mean"],
     ["create", "n", "--random-init"], ["search", "x.store", "a", "--item", "1"]],
)  # fmt: skip
def test_usage_errors_are_status_2(arguments, tmp_path):
    """Missing or contradictory arguments print no traceback."""
    out = run(*arguments, cwd=tmp_path)
    assert out.returncode == 2
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["info", "STORE"], ["failures", "STORE"], ["sql", "STORE", "select 1"], ["backbones", "vgg"]],
)
def test_small_verbs_never_import_torch(store, arguments):
    """Nor scikit-learn, timm or open_clip, in the interpreter that ran the verb; help needs no NumPy and no DuckDB."""
    light = ", 'numpy', 'duckdb'" if arguments == ["--help"] else ""
    code = (
        "import sys\nfrom embedstore.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as e:\n    assert not e.code\n"
        f"heavy = {{'torch', 'sklearn', 'timm', 'open_clip', 'faiss', 'pandas'{light}}} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)\n"
    )
    words = [str(store) if a == "STORE" else a for a in arguments]
    out = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "heavy: []" in out.stderr, out.stderr


def test_every_verb_has_help_and_is_documented():
    """Each has a help text, and is named in the README or the docs."""
    from embedstore.cli import load_commands
    from embedstore.cli.app import app

    load_commands()
    documents = (ROOT / "README.md").read_text() + "".join(p.read_text() for p in (ROOT / "docs").rglob("*.md"))
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert command.callback.__doc__, name
        assert f"embedstore {name}" in documents, f"{name} is not documented"


def test_cli_py_is_the_same_command(store):
    """``python cli.py info STORE --json`` prints what ``embedstore info STORE --json`` prints."""
    shim = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "info", str(store), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(shim.stdout) == ok("info", store)
