"""Malicious files in a store or export from a stranger are refused in one line and in little memory."""

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
from tests.helpers.index_descriptions import write_description
from tests.helpers.vector_stores import make, vector

MAX_MEMORY_KIB = 200_000  # memory that a refusal may take

LOAD_CODE = """
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
    loading.load(Recipe("timm/test_resnet.r160_in1k", random_init=True), device="cpu")  # memory of any network
out = {}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for what, at in looks:
    try:
        refusal = look(what, Path(at))
    except EmbedstoreError as e:
        refusal = f"{type(e).__name__}: {e}"
    out[at] = refusal, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps(out))
"""


def load_in_subprocess(*looks: tuple[str, Path]) -> dict[str, str]:
    """Load files in a new process; return the refusal of each, checked to be one line and to take under 200 MB."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_CODE, json.dumps([(what, str(at)) for what, at in looks])],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    for at, (refusal, grown) in out.items():
        assert refusal, f"{at} was accepted"
        assert "\n" not in refusal
        assert grown < MAX_MEMORY_KIB, (at, grown)
    return {at: refusal for at, (refusal, _) in out.items()}


def save_good_head(folder: Path) -> Path:
    X = np.array([vector(n) for n in range(1, 17)], np.float32)
    return head_files.save(NearestPrototype().fit(X, np.array(["a", "b"] * 8)), folder, {"space": "s"})


class TouchOnUnpickle:
    """An object whose pickle runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def header(claimed: int, text: bytes) -> bytes:
    return claimed.to_bytes(8, "little") + text


def replace_arrays(folder: Path, data: bytes) -> None:
    """Replace the arrays of a head and update its description to match."""
    import hashlib

    path = folder / "head.safetensors"
    path.write_bytes(data)
    facts = json.loads((folder / "head.json").read_text())
    facts.pop("digest", None)
    facts["files"]["head.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "head.json").write_bytes(head_files.seal_description(facts))


def huge_tensor(shape: list[int]) -> bytes:
    """Return a small safetensors file whose header claims a huge tensor."""
    size = 4 * int(np.prod([float(s) for s in shape]))
    text = json.dumps({"a0": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    return header(len(text), text)


def make_hostile_head(folder: Path, how: str, mark: Path) -> None:
    """Turn a good head into a malicious one."""
    import pickle

    bomb = pickle.dumps(TouchOnUnpickle(mark))
    if how == "a pickle for arrays":
        replace_arrays(folder, bomb)
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
        replace_arrays(folder, (folder / "bomb").read_bytes())
        (folder / "bomb").unlink()
    elif how == "a header of 8 EiB":
        replace_arrays(folder, header((1 << 63) - 1, b"{}"))
    elif how == "a header of 90 MB":
        replace_arrays(folder, header(90 << 20, b"{" * (90 << 20)))
    elif how == "arrays of 4 TB":
        replace_arrays(folder, huge_tensor([1 << 20, 1 << 20]))
    elif how == "arrays of 2^64":
        replace_arrays(folder, huge_tensor([1 << 32, 1 << 32]))
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


def faiss_index_claiming(rows: int) -> bytes:
    """Return a small flat index that claims many rows."""
    import faiss

    index = faiss.IndexFlatIP(4)
    index.add(np.zeros((1, 4), np.float32))
    data = bytearray(faiss.serialize_index(index).tobytes())
    at = data.rindex((4).to_bytes(8, "little"))
    data[at : at + 8] = (4 * rows).to_bytes(8, "little")
    data[8:16] = rows.to_bytes(8, "little")
    return bytes(data)


INDEXES = ["12 GB of vectors", "nothing like an index", "another file's name", "a sidecar of 4 GB"]


def make_hostile_index(path: Path, how: str) -> None:
    """Turn a good index into a malicious one with a matching sidecar."""
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
        target.write_bytes(faiss_index_claiming(3 << 28))
        facts["rows"] = 3 << 28
    facts |= {"bytes": target.stat().st_size, "xxh3": file_xxh3(target)}
    write_description(sidecar, facts)
    if how == "a sidecar of 4 GB":
        with sidecar.open("r+b") as f:
            f.truncate(4 << 30)


def test_malicious_heads_indexes_and_manifests_are_refused(tmp_path):
    """No code in them runs, no size in them is trusted, and a head that is not the saved one is refused."""
    for how in HEADS:
        make_hostile_head(save_good_head(tmp_path / "heads" / how), how, tmp_path / "it ran")
    for how in INDEXES:
        make_hostile_index(tmp_path / how, how)
    storage = make(tmp_path / "s", 16)
    X = np.array([vector(n) for n in range(1, 17)], np.float32)
    fitted = NearestPrototype().fit(X, np.array(["a", "b"] * 8))
    registry.save_head(storage, storage.space(), "kind", fitted, label="label", kind="prototype", metadata={})
    save_good_head(tmp_path / "s" / "heads" / "kind")
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "export.json").open("wb") as f:
        f.truncate(4 << 30)
    looks = [*(("head", tmp_path / "heads" / how) for how in HEADS), *(("index", tmp_path / how) for how in INDEXES)]
    refusals = load_in_subprocess(*looks, ("kept", tmp_path / "s"), ("import", tmp_path / "out"))
    for how in HEADS:
        assert refusals[str(tmp_path / "heads" / how)].startswith(("StoreDamaged", "StoreNotFound", "BadHead")), how
    assert not (tmp_path / "it ran").exists()
    assert "StoreDamaged" in refusals[str(tmp_path / "s")]
    assert "StoreDamaged" in refusals[str(tmp_path / "out")]


def test_sidecar_cannot_move_the_catalog_to_the_quarantine(tmp_path):
    """Repair only moves files in the folder of the sidecar that names them."""
    import embedstore as es

    storage = make(tmp_path / "s", 16)
    build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    sidecar = next(storage.layout.index_folder(storage.space().key).glob("*.json"))
    facts = json.loads(sidecar.read_text())
    write_description(sidecar, facts | {"file": "../../../embedstore.json", "bytes": 1})
    store = es.open(tmp_path / "s")
    assert [d.file.endswith(".json") and "index" in d.file for d in store.verify().damage] == [True]
    store.repair(reembed=False)
    assert (tmp_path / "s" / "embedstore.json").exists()
    assert es.open(tmp_path / "s").info().items == 16


def make_hostile_weights(folder: Path) -> list[Path]:
    """Write weights files with false headers."""
    import torch

    many = ",".join(f'"a{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(400_000)).encode()
    files = {
        "exabytes": huge_tensor([1 << 29, 1 << 30]),
        "more-than-2^64": huge_tensor([1 << 32, 1 << 32]),
        "4-terabytes": huge_tensor([1 << 20, 1 << 20]),
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


def test_weights_files_with_false_sizes_are_refused(tmp_path):
    """False headers, sizes and archives given with ``--weights`` are refused in one line that names the file."""
    files = make_hostile_weights(tmp_path)
    refusals = load_in_subprocess(*(("weights", path) for path in files))
    for path in files:
        assert refusals[str(path)].startswith("WeightsMismatch: cannot read weights from"), refusals[str(path)]
        assert path.name in refusals[str(path)]
