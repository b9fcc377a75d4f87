"""Files made to hurt, where a stranger's store or export may bring them: refused in one line, in little memory."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

from embedstore.classify import registry
from embedstore.classify.heads import head_files
from embedstore.classify.heads.prototype import NearestPrototype
from embedstore.search.index import build
from embedstore.storage.durable_files import file_xxh3
from tests.conftest import ROOT
from tests.helpers.vector_stores import make, vector

MOST = 200_000  # KiB of memory that a refusal may take

ASK = """
import json, resource, sys
from pathlib import Path
import numpy as np, faiss, safetensors.numpy, sklearn.linear_model, zipfile, duckdb
from embedstore.classify import registry
from embedstore.storage.transfer import read_archive
from embedstore.errors import EmbedstoreError
from embedstore.classify.heads import head_files
from embedstore.search.index import files
from embedstore.storage.storage import Storage

def look(what, at):
    if what == "head":
        head_files.load(at)
    elif what == "kept":
        registry.load_head(Storage.open(at), "kind")
    elif what == "import":
        read_archive.read_archive(at, at.parent / "new")
    elif what == "weights":
        loading.load(Recipe("timm/test_resnet.r160_in1k", weights=str(at)), device="cpu")
    elif what == "index":
        folder = next(at.glob("spaces/*/index"))
        for _, sidecar in files.read_sidecars(folder):
            if isinstance(sidecar, str):
                return sidecar
            files.load_index(folder, sidecar)
    return ""

looks = json.loads(sys.argv[1])
if looks[0][0] == "weights":
    from embedstore.backbones import loading
    from embedstore.space import Recipe
    loading.load(Recipe("timm/test_resnet.r160_in1k", random_init=True), device="cpu")  # what a network takes anyway
out = {}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for what, at in looks:
    try:
        said = look(what, Path(at))
    except EmbedstoreError as e:
        said = f"{type(e).__name__}: {e}"
    out[at] = said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps(out))
"""


def ask(*looks: tuple[str, Path]) -> dict[str, str]:
    """In a process of their own, one after another: what was said of each, in one line, and under 200 MB for all."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps([(what, str(at)) for what, at in looks])],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    for at, (said, grown) in out.items():
        assert said, f"{at} was believed"
        assert "\n" not in said
        assert grown < MOST, (at, grown)
    return {at: said for at, (said, _) in out.items()}


def good_head(folder: Path) -> Path:
    X = np.array([vector(n) for n in range(1, 17)], np.float32)
    return head_files.save(NearestPrototype().fit(X, np.array(["a", "b"] * 8)), folder, {"space": "s"})


class Trap:
    """What a pickle would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def header(claimed: int, text: bytes) -> bytes:
    return claimed.to_bytes(8, "little") + text


def seal(folder: Path, data: bytes) -> None:
    """Make the head's description agree with other arrays: its maker is hostile, not careless."""
    import hashlib

    path = folder / "head.safetensors"
    path.write_bytes(data)
    facts = json.loads((folder / "head.json").read_text())
    facts.pop("digest", None)
    facts["files"]["head.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "head.json").write_bytes(head_files.seal_description(facts))


def huge(shape: list[int]) -> bytes:
    """A safetensors file of a few bytes whose header claims much."""
    size = 4 * int(np.prod([float(s) for s in shape]))
    text = json.dumps({"a0": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    return header(len(text), text)


def evil_head(folder: Path, how: str, mark: Path) -> None:
    """Spoil a good head."""
    import pickle

    bomb = pickle.dumps(Trap(mark))
    if how == "a pickle for arrays":
        seal(folder, bomb)
    elif how == "a pickle for its description":
        (folder / "head.json").write_bytes(bomb)
    elif how == "skops with a foreign class":
        for path in folder.iterdir():
            path.unlink()
        with zipfile.ZipFile(folder / "head.skops", "w") as z:
            z.writestr(
                "schema.json", json.dumps({"__class__": "system", "__module__": "os", "__loader__": "ObjectNode"})
            )
            z.writestr("x.pkl", bomb)
    elif how == "a zip bomb for arrays":
        with zipfile.ZipFile(folder / "bomb", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
            z.writestr("schema.json", bytes(300 << 20))
        seal(folder, (folder / "bomb").read_bytes())
        (folder / "bomb").unlink()
    elif how == "a header of 8 EiB":
        seal(folder, header((1 << 63) - 1, b"{}"))
    elif how == "a header of 90 MB":
        seal(folder, header(90 << 20, b"{" * (90 << 20)))
    elif how == "arrays of 4 TB":
        seal(folder, huge([1 << 20, 1 << 20]))
    elif how == "arrays of 2^64":
        seal(folder, huge([1 << 32, 1 << 32]))
    elif how == "a description of 4 GB":
        with (folder / "head.json").open("r+b") as f:
            f.truncate(4 << 30)
    elif how == "a description nested deep":
        (folder / "head.json").write_bytes(b'{"a":' * 200_000)
    elif how == "a class that is none of ours":
        facts = json.loads((folder / "head.json").read_text())
        facts.pop("digest", None)
        text = json.dumps(facts).replace("NearestPrototype", "system")
        (folder / "head.json").write_bytes(head_files.seal_description(json.loads(text)))
    elif how == "a module for a class":
        facts = json.loads((folder / "head.json").read_text())
        facts.pop("digest", None)
        text = json.dumps(facts).replace('"NearestPrototype"', '"os.system"')
        (folder / "head.json").write_bytes(head_files.seal_description(json.loads(text)))


HEADS = [
    "a pickle for arrays", "a pickle for its description", "skops with a foreign class", "a zip bomb for arrays",
    "a header of 8 EiB", "a header of 90 MB", "arrays of 4 TB", "arrays of 2^64", "a description of 4 GB",
    "a description nested deep", "a class that is none of ours", "a module for a class",
]  # fmt: skip


def faiss_claiming(rows: int) -> bytes:
    """A flat index of a few bytes that claims many."""
    import faiss

    index = faiss.IndexFlatIP(4)
    index.add(np.zeros((1, 4), np.float32))
    data = bytearray(faiss.serialize_index(index).tobytes())
    at = data.rindex((4).to_bytes(8, "little"))
    data[at : at + 8] = (4 * rows).to_bytes(8, "little")
    data[8:16] = rows.to_bytes(8, "little")
    return bytes(data)


INDEXES = ["12 GB of vectors", "nothing like an index", "another file's name", "a sidecar of 4 GB"]


def evil_index(path: Path, how: str) -> None:
    """Spoil a good index, with a sidecar that agrees."""
    storage = make(path, 16)
    build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    folder = storage.layout.index_folder(storage.space().key)
    sidecar = next(folder.glob("*.json"))
    facts = json.loads(sidecar.read_text())
    target = folder / facts["file"]
    if how == "another file's name":
        facts["file"] = "../../../catalog.duckdb"
    elif how == "nothing like an index":
        target.write_bytes(os.urandom(5000))
    elif how == "12 GB of vectors":
        target.write_bytes(faiss_claiming(3 << 28))
        facts["rows"] = 3 << 28
    facts |= {"bytes": target.stat().st_size, "xxh3": file_xxh3(target)}
    sidecar.write_text(json.dumps(facts))
    if how == "a sidecar of 4 GB":
        with sidecar.open("r+b") as f:
            f.truncate(4 << 30)


def test_evil_heads_indexes_and_notes_are_refused(tmp_path):
    """Nothing of them runs, nothing they claim is believed; a head that is not the one that was kept is noticed."""
    for how in HEADS:
        evil_head(good_head(tmp_path / "heads" / how), how, tmp_path / "it ran")
    for how in INDEXES:
        evil_index(tmp_path / how, how)
    storage = make(tmp_path / "s", 16)
    X = np.array([vector(n) for n in range(1, 17)], np.float32)
    fitted = NearestPrototype().fit(X, np.array(["a", "b"] * 8))
    registry.save_head(storage, storage.space(), "kind", fitted, label="label", kind="prototype", metadata={})
    good_head(tmp_path / "s" / "heads" / "kind")
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "export.json").open("wb") as f:
        f.truncate(4 << 30)
    looks = [*(("head", tmp_path / "heads" / how) for how in HEADS), *(("index", tmp_path / how) for how in INDEXES)]
    said = ask(*looks, ("kept", tmp_path / "s"), ("import", tmp_path / "out"))
    for how in HEADS:
        assert said[str(tmp_path / "heads" / how)].startswith(("StoreDamaged", "StoreNotFound", "BadHead")), how
    assert not (tmp_path / "it ran").exists()
    assert "StoreDamaged" in said[str(tmp_path / "s")]
    assert "StoreDamaged" in said[str(tmp_path / "out")]


def test_a_sidecar_cannot_have_the_catalog_set_aside(tmp_path):
    """Repair moves what a sidecar calls damaged: only files beside it."""
    import embedstore as es

    storage = make(tmp_path / "s", 16)
    build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    sidecar = next(storage.layout.index_folder(storage.space().key).glob("*.json"))
    facts = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(facts | {"file": "../../../embedstore.json", "bytes": 1}))
    store = es.open(tmp_path / "s")
    assert [d.file.endswith(".json") and "index" in d.file for d in store.verify().damage] == [True]
    store.repair(reembed=False)
    assert (tmp_path / "s" / "embedstore.json").exists()
    assert es.open(tmp_path / "s").info()["items"] == 16


def evil_weights(folder: Path) -> list[Path]:
    """Weights files that claim what they do not hold."""
    import torch

    many = ",".join(f'"a{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(400_000)).encode()
    files = {
        "exabytes": huge([1 << 29, 1 << 30]),
        "more-than-2^64": huge([1 << 32, 1 << 32]),
        "4-terabytes": huge([1 << 20, 1 << 20]),
        "header-of-8-EiB": header((1 << 63) - 1, b"{}"),
        "header-of-90-MB": header(90 << 20, b"{" * (90 << 20)),
        "nested-deep": header(1_000_000, b'{"a":' * 200_000),
        "many-tensors": header(len(many) + 2, b"{" + many + b"}"),
        "a-pickle": b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    }
    for name, data in files.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    torch.save({"conv1.weight": torch.zeros(1)}, folder / "good.pt")
    bomb = zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with zipfile.ZipFile(folder / "good.pt") as z, bomb:
        for i in z.infolist():
            bomb.writestr(i.filename, bytes(300 << 20) if i.filename.endswith("data/0") else z.read(i))
    (folder / "good.pt").unlink()
    return sorted(folder.iterdir())


def test_weights_that_claim_exabytes_are_refused(tmp_path):
    """Given with ``--weights``: headers, sizes and archives that are not true, each in one line, the file named."""
    files = evil_weights(tmp_path)
    said = ask(*(("weights", path) for path in files))
    for path in files:
        assert said[str(path)].startswith("WeightsMismatch: cannot read weights from"), said[str(path)]
        assert path.name in said[str(path)]
