"""Data sets that `datasets` saved, and names on the hub, by a server on loopback that speaks the hub's routes."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import pytest

import embedstore as es
from embedstore.errors import BadManifest, SourceNotFound
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from tests.helpers.scans import scan
from tests.sources.test_archives import picture

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra hf)")


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The library, with its caches in the folder of the test."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return pytest.importorskip("datasets", reason="datasets is not installed")


def data_set(datasets, numbers):
    """A data set with classes, a list, a time and images as bytes."""
    features = datasets.Features({
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["cat", "dog"]),
        "stars": datasets.Value("int32"),
        "words": datasets.List(datasets.Value("string")),
    })  # fmt: skip
    rows = {
        "image": [{"bytes": picture(n), "path": f"{n}.png"} for n in numbers],
        "label": [n % 2 if n else -1 for n in numbers],
        "stars": list(numbers),
        "words": [["a", str(n)] for n in numbers],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_saved_data_set_is_read_in_place(datasets, tmp_path):
    """Splits, classes and columns; a rescan reads nothing; a uri reads again; rows that are gone are missing."""
    saved = tmp_path / "saved"
    parts = {"train": data_set(datasets, range(5)), "test": data_set(datasets, [7, 8])}
    datasets.DatasetDict(parts).save_to_disk(saved, num_shards={"train": 2, "test": 1})
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    report = store.embed(saved, progress=False)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (7, 7, {})
    rows = store.sql("SELECT uri, label, split, stars, words, image_path FROM items ORDER BY stars").rows
    assert [r[1:4] for r in rows[:2]] == [(None, "train", 0), ("dog", "train", 1)]
    assert rows[-1][2:] == ("test", 8, '["a", "8"]', "8.png")
    assert rows[0][0] == f"{saved}/train/data-00000-of-00002.arrow#column=image&row=0"
    assert [read_location(r[0]) for r in rows] == [picture(r[3]) for r in rows]
    assert store.embed(saved, progress=False).unchanged == 7
    store.add_space("embedstore/tiny", space_name="again", preprocess={"mean": 0.25})
    assert store.reembed("again", progress=False).embedded == 7
    (saved / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert store.embed(saved, progress=False).missing == 2


def test_one_split_and_no_split(datasets, tmp_path):
    """A data set without splits has none; the folder of one split is a data set too."""
    data_set(datasets, range(3)).save_to_disk(tmp_path / "one")
    refs, failures = scan(open_source(tmp_path / "one"))
    assert ([r.split for r in refs], [r.label for r in refs], failures) == ([None] * 3, [None, "dog", "cat"], [])


def test_rows_that_are_paths_are_read_as_paths(datasets, tmp_path):
    """Rows without bytes: one with a path, one whose file is gone, one with neither."""
    import pyarrow as pa

    (tmp_path / "a.png").write_bytes(picture(1))
    data_set(datasets, [1]).select_columns("image").save_to_disk(tmp_path / "saved")
    paths = [str(tmp_path / "a.png"), str(tmp_path / "gone.png"), None]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": None, "path": path} for path in paths], kind)})
    with pa.ipc.new_stream(tmp_path / "saved" / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    refs, failures = scan(open_source(tmp_path / "saved"))
    assert ([r.uri for r in refs], [f.reason for f in failures]) == ([str(tmp_path / "a.png")], ["missing", "missing"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "state.json").write_text("{"), "state.json cannot be read"),
        (lambda folder: (folder / "state.json").write_text('{"_data_files": 3}'), "does not name the files"),
        (
            lambda folder: (folder / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}'),
            "does not name the files",
        ),
        (lambda folder: (folder / "data-00000-of-00001.arrow").write_bytes(b"xx"), "not a whole Arrow file"),
        (lambda folder: (folder / "data-00000-of-00001.arrow").unlink(), "No such file"),
    ],
)
def test_a_damaged_data_set_is_one_line(datasets, tmp_path, damage, message):
    """Nothing outside of the folder is read."""
    data_set(datasets, range(3)).save_to_disk(tmp_path / "saved")
    damage(tmp_path / "saved")
    with pytest.raises(BadManifest, match=message) as e:
        open_source(tmp_path / "saved")
    assert "\n" not in str(e.value)


def test_half_a_file_is_a_failure_next_to_others(datasets, tmp_path):
    """The rows of the whole files are read, and nothing is marked missing below the failed one."""
    saved = tmp_path / "saved"
    data_set(datasets, range(6)).save_to_disk(saved, num_shards=2)
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    assert store.embed(saved, progress=False).embedded == 6
    broken = saved / "data-00001-of-00002.arrow"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    report = store.embed(saved, progress=False)
    assert (report.unchanged, report.missing, report.failures_by_reason) == (3, 0, {"corrupt": 1})


def test_what_is_refused_names_the_cure(datasets, tmp_path):
    """A split that is none, a number without a name, an Arrow file alone, no column of images."""
    datasets.DatasetDict(first=data_set(datasets, [1])).save_to_disk(tmp_path / "odd")
    with pytest.raises(BadManifest, match="--splits-from none"):
        scan(open_source(tmp_path / "odd"))
    assert len(scan(open_source(tmp_path / "odd", split_rule=None))[0]) == 1
    with pytest.raises(BadManifest, match="embed the whole folder"):
        open_source(next((tmp_path / "odd" / "first").glob("*.arrow")))
    datasets.Dataset.from_dict({"x": [1]}).save_to_disk(tmp_path / "numbers")
    with pytest.raises(BadManifest, match="no column of images"):
        open_source(tmp_path / "numbers")


# ---- the hub


class Hub(BaseHTTPRequestHandler):
    """The routes of the hub that a download needs, for one data set with files in memory."""

    files: dict = {}  # noqa: RUF012 - set by the test
    requests: list = []  # noqa: RUF012
    sha = "0123456789012345678901234567890123456789"

    def do_GET(self):
        path = unquote(self.path.split("?")[0])
        self.requests.append((self.command, self.path, dict(self.headers)))
        if path.startswith("/api/datasets/me/pets/tree/"):
            found = [
                {"type": "file", "path": n, "size": len(d), "oid": f"{i:040x}"}
                for i, (n, d) in enumerate(self.files.items())
            ]
            return self.answer(json.dumps(found).encode(), "application/json")
        if path.startswith("/api/datasets/me/pets"):
            siblings = [{"rfilename": name} for name in self.files]
            info = {"id": "me/pets", "_id": "x", "sha": self.sha, "siblings": siblings, "tags": [], "downloads": 0}
            return self.answer(json.dumps(info).encode(), "application/json")
        name = path.removeprefix(f"/datasets/me/pets/resolve/{self.sha}/")
        if name in self.files:
            return self.answer(self.files[name], "application/octet-stream", etag=f'"{abs(hash(name)):040x}"')
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - the name of the method of HTTP

    def answer(self, data, kind, etag='"x"'):
        self.send_response(200)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": len(data),
            "ETag": etag,
            "X-Repo-Commit": self.sha,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


CODE = """
import sys, embedstore as es
store = es.create(sys.argv[1], "embedstore/tiny", device="cpu")
for name in sys.argv[2:]:
    try:
        report = store.embed(name, progress=False)
        print(report.scanned, report.embedded, report.unchanged)
    except es.EmbedstoreError as e:
        print(type(e).__name__, e)
"""


def embed_from_hub(tmp_path, store, *names, **environment):
    """Embed names of the hub in a process of its own, since huggingface_hub reads its environment once."""
    settings = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", **environment}
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | settings
    words = [sys.executable, "-c", CODE, str(tmp_path / store), *names]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_data_set_of_the_hub_is_downloaded_once(datasets, tmp_path):
    """By its name; offline it is read from the cache; what is not there is one line. No telemetry is sent."""
    data_set(datasets, range(4)).to_parquet(tmp_path / "train.parquet")
    Hub.files = {"data/train-00000-of-00001.parquet": (tmp_path / "train.parquet").read_bytes(), "README.md": b"pets"}
    Hub.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        names = ["hf://datasets/me/pets", "hf://datasets/me/pets", "hf://datasets/me/none", "hf://models"]
        lines = embed_from_hub(tmp_path, "a", *names, HF_ENDPOINT=url)
        server.shutdown()
    assert lines[:2] == ["4 4 0", "4 0 4"]
    assert lines[2].startswith("SourceNotFound hf://datasets/me/none: the hub shows no such data set")
    assert lines[3].startswith("SourceNotFound hf://models names no data set")
    gets = [path for method, path, _ in Hub.requests if method == "GET" and path.endswith(".parquet")]
    assert len(gets) == 1
    assert not any("telemetry" in path for _, path, _ in Hub.requests)
    offline = embed_from_hub(tmp_path, "b", "hf://datasets/me/pets", "hf://datasets/me/other", HF_HUB_OFFLINE="1")
    assert offline[0] == "4 4 0"
    assert offline[1].startswith("SourceError hf://datasets/me/other is not on this machine")
    assert "hf download me/other --repo-type dataset" in offline[1]


def test_an_arrow_uri_of_a_file_that_is_gone_is_missing(tmp_path):
    """The reason is that of every other file."""
    (tmp_path / "a.png").write_bytes(picture(1))
    refs, failures = scan(open_source({"uri": [f"{tmp_path}/x.arrow#column=image&row=0", f"{tmp_path}/a.png"]}))
    assert (len(refs), [f.reason for f in failures]) == (1, ["missing"])


def test_an_unknown_scheme_of_the_hub_is_refused():
    """Only data sets are read."""
    with pytest.raises(SourceNotFound, match="hf://datasets/OWNER/NAME"):
        open_source("hf://spaces/me/x")
