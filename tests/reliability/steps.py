"""What a process did to a store's files, step by step; and what of it a power cut would leave.

``shim.c`` is compiled once and loaded before libc. It sees DuckDB's writes as well as ours. A power cut is simulated
from its log in the most hostile reading of POSIX: what was not synced persists or does not, block by block; a
folder's entries likewise, one by one, until that folder is synced.
"""

import shutil
import struct
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import embedstore
from tests.reliability.warm import Done, Process, Warm

HERE = Path(__file__).parent
MODULES = (
    "faiss", "embedstore.storage.transfer.read_archive", "embedstore.storage.transfer.write_archive",
    "embedstore.storage.integrity.backup",
    "tests.reliability.jobs", "tests.reliability.test_machine",
)  # fmt: skip
PIECE = 4096  # bytes that a disk writes at once, or not

JOB = """
import os, sys
from tests.helpers.vector_stores import batch
from embedstore.storage import checkpoint
from embedstore.storage.storage import Storage
folder, commits, size, above = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
checkpoint.CHECKPOINT_BYTES = above
{control}
storage = Storage.open(folder + "/s")
first = storage.sql("SELECT count(*) FROM items")[1][0][0]
acknowledged = os.open(folder + "/acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
with storage.writer("adding") as writer:
    for i in range(commits):
        writer.commit(batch(1 + first + size * i, size), space=storage.space())
        os.write(acknowledged, b"%d\\n" % (first + size * (i + 1)))
"""

# Stores broken on purpose: the suite must notice.
CONTROLS = {
    "": "",
    "no fsync": "",  # by leaving every sync out of the log
    "no name of the log": "from embedstore.storage import catalog; catalog.sync_folder = lambda path: None",
    "no guard": """
def bare(layout, catalog, *, min_log_bytes=0):
    if layout.wal.exists() and layout.wal.stat().st_size > min_log_bytes:
        catalog.checkpoint()
checkpoint.guarded_checkpoint = bare
""",
    "catalog before shard": """
from embedstore.storage import commit as c, shard, writer as st
from embedstore.storage.shard import ShardHeader
later = []
write = shard.write_shard
def note(path, *, space, number, vectors, contents):
    later.append((path, space, number, vectors, contents))
    rows, dim = vectors.shape
    return ShardHeader(space, number, rows, dim, vectors.dtype.name, "", 0)
shard.write_shard = note
commit = st.Writer.commit
def backwards(self, *a, **k):
    commit(self, *a, **k)
    path, space, number, vectors, contents = later.pop()
    write(path, space=space, number=number, vectors=vectors, contents=contents)
st.Writer.commit = backwards
""",
}


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """An interpreter to fork jobs from, with the recorder in it where there is a compiler."""
    if sys.platform != "linux":
        pytest.skip("needs Linux: jobs are forks of one interpreter that looks for its threads in /proc")
    library = None
    if shutil.which("cc"):
        library = tmp_path_factory.mktemp("shim") / "shim.so"
        options = ["-shared", "-fPIC", "-O1", "-w", "-ldl", "-lpthread"]
        subprocess.run(["cc", HERE / "shim.c", "-o", library, *options], check=True)
    server = Warm(*MODULES, preload=library)
    yield server
    server.close()


@pytest.fixture(scope="session")
def commands():
    """An interpreter that has imported what the verbs need, networks too."""
    if sys.platform != "linux":
        pytest.skip("needs Linux: commands are forks of one interpreter that looks for its threads in /proc")
    server = Warm(
        "torch", "timm", "faiss", "embedstore.cli.put_in", "embedstore.cli.maintenance", "embedstore.pipeline.run"
    )
    yield server
    server.close()


@pytest.fixture(scope="session")
def shim(warm) -> Warm:
    """The same, and the recorder is there."""
    if warm.preload is None:
        pytest.skip("needs a C compiler: the recorder is loaded before libc")
    return warm


def run(shim: Warm, folder: Path, *arguments: int, code: str = JOB, control: str = "", **settings: object) -> Done:
    """A job in a process of its own, recorded or disturbed.

    Args:
        shim: what it is forked from. folder: what is watched; the store is ``folder/s``.
        arguments: of the job. control: how the store is broken.
        settings: log, kill, fail, errno, sticky: the recorder's.
    """
    environment = {f"STEPS_{k.upper()}": str(v) for k, v in settings.items()}
    return shim.run(job(code, control), folder, *arguments, env={"STEPS_UNDER": str(folder), **environment})


def begin(warm: Warm, folder: Path, *arguments: int, code: str = JOB) -> Process:
    """A job in a process of its own, as it is."""
    return warm.start(job(code), folder, *arguments)


def job(code: str, control: str = "") -> str:
    """Its code. ``str.format`` would trip over the braces of the job itself."""
    return textwrap.dedent(code).replace("{control}", CONTROLS[control])


def ours(traceback: str) -> bool:
    """It went through our code; else the job could not write down what was acknowledged."""
    return str(Path(embedstore.__file__).parent) in traceback


@dataclass(frozen=True)
class Step:
    """One step: w write, t truncate, s sync, r rename, u unlink, c create, m mkdir, d rmdir."""

    kind: str
    path: str
    offset: int
    data: bytes


def read_log(path: Path) -> list[Step]:
    """Every step in order."""
    raw, at, steps = path.read_bytes(), 0, []
    while at < len(raw):
        kind = chr(raw[at])
        (length,) = struct.unpack_from("<I", raw, at + 5)
        name = raw[at + 9 : at + 9 + length].decode()
        offset, size = struct.unpack_from("<QQ", raw, at + 9 + length)
        begin = at + 25 + length
        steps.append(Step(kind, name, offset, raw[begin : begin + size]))
        at = begin + size
    return steps


@dataclass
class File:
    """One inode: its bytes as the process sees them, as the disk has them, and what is on its way."""

    seen: bytearray = field(default_factory=bytearray)
    disk: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def apply(self, offset: int, data: bytes | None) -> None:
        """Write, or truncate at the offset."""
        _apply(self.seen, offset, data)
        self.pending.append((offset, data))

    def sync(self) -> None:
        """All of it reaches the disk."""
        self.disk, self.pending = bytearray(self.seen), []


@dataclass
class Folder:
    """The same of a folder: its entries by name."""

    seen: dict[str, "File | Folder"] = field(default_factory=dict)
    disk: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[tuple[str, "File | Folder | None"]] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> "Folder":
        """A folder as it is, all of it on the disk."""
        entries: dict[str, File | Folder] = {}
        for p in path.iterdir():
            data = b"" if p.is_dir() else p.read_bytes()
            entries[p.name] = cls.of(p) if p.is_dir() else File(bytearray(data), bytearray(data))
        return cls(entries, dict(entries))

    def put(self, name: str, what: "File | Folder | None") -> None:
        """An entry comes, changes or goes."""
        _put(self.seen, name, what)
        self.pending.append((name, what))

    def sync(self) -> None:
        """Every change of its entries reaches the disk; what is in them need not."""
        for name, what in self.pending:
            _put(self.disk, name, what)
        self.pending = []


class Disk:
    """A folder under a list of steps.

    Args:
        base: the folder before the first step, all of it on the disk.
        root: what it was called when the steps were recorded.
    """

    def __init__(self, base: Path, root: str) -> None:
        self.root, self.top = root, Folder.of(base)

    def do(self, step: Step, *, synced: bool = True) -> None:
        """Take one step; one that the kernel refused changes nothing."""
        folder, name = self._place(step.path)
        there = self.find(step.path)
        if step.kind == "s":
            if synced and there is not None:
                there.sync()
        elif folder is None:
            return
        elif step.kind == "c" or (step.kind == "m" and there is None):
            folder.put(name, File() if step.kind == "c" else Folder())
        elif step.kind == "u" or (step.kind == "d" and isinstance(there, Folder) and not there.seen):
            folder.put(name, None)
        elif step.kind == "r":
            assert there is not None, f"{step.path} was made by something that the recorder does not see"
            target, new = self._place(step.data.decode())
            assert target is not None
            folder.put(name, None)
            target.put(new, there)
        elif step.kind in "wt":
            assert isinstance(there, File), f"{step.path} was made by something that the recorder does not see"
            there.apply(step.offset, step.data if step.kind == "w" else None)

    def find(self, path: str) -> File | Folder | None:
        """What the process sees by that name."""
        found: File | Folder | None = self.top
        for part in path.removeprefix(self.root).split("/"):
            if part:
                found = found.seen.get(part) if isinstance(found, Folder) else None
        return found

    def cut(self, rng: np.random.Generator, target: Path) -> None:
        """What is there after the power went: some of what was on its way, piece by piece."""
        self._survived(self.top, rng, rng.choice([0.0, 0.5, 1.0], p=[0.25, 0.5, 0.25]), target, {})

    def _place(self, path: str) -> tuple[Folder | None, str]:
        """The folder that an entry is in, and its name."""
        above, name = path.rsplit("/", 1)
        folder = self.find(above) if path != self.root else None
        return folder if isinstance(folder, Folder) else None, name

    def _survived(
        self, folder: Folder, rng: np.random.Generator, share: float, target: Path, contents: dict[int, bytes]
    ) -> None:
        """A folder after the cut, written to ``target``."""
        target.mkdir(parents=True)
        entries = dict(folder.disk)
        for name, what in folder.pending:
            if rng.random() < share:
                _put(entries, name, what)
        for name, what in sorted(entries.items()):
            if isinstance(what, Folder):
                self._survived(what, rng, share, target / name, contents)
            else:
                if id(what) not in contents:
                    contents[id(what)] = _bytes_after(what, rng, share)
                (target / name).write_bytes(contents[id(what)])


def _put(entries: dict[str, File | Folder], name: str, what: File | Folder | None) -> None:
    """Set an entry, or take it away."""
    if what is None:
        entries.pop(name, None)
    else:
        entries[name] = what


def _bytes_after(file: File, rng: np.random.Generator, share: float) -> bytes:
    """A file's bytes after the cut."""
    disk = bytearray(file.disk)
    for offset, data in file.pending:
        if data is None:
            if rng.random() < share:
                _apply(disk, offset, None)
            continue
        at = 0
        while at < len(data):
            size = PIECE - (offset + at) % PIECE
            if rng.random() < share:
                _apply(disk, offset + at, data[at : at + size])
            at += size
    return bytes(disk)


def _apply(data: bytearray, offset: int, piece: bytes | None) -> None:
    """Write a piece, or truncate at the offset."""
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    if piece is None:
        del data[offset:]
    else:
        data[offset : offset + len(piece)] = piece
