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

from tests.reliability.warm import Done, Process, Warm

HERE = Path(__file__).parent
MODULES = (
    "faiss", "embedstore.archive.read", "embedstore.archive.write", "embedstore.store.backup",
    "tests.reliability.test_machine", "tests.reliability.test_other_work",
)  # fmt: skip
PIECE = 4096  # bytes that a disk writes at once, or not

JOB = """
import os, sys
from tests.stores import batch
from embedstore.store import recover
from embedstore.store.storage import Storage
folder, commits, size, above = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
recover.CHECKPOINT_BYTES = above
{control}
storage = Storage.open(folder + "/s")
first = storage.sql("SELECT count(*) FROM items")[1][0][0]
acknowledged = os.open(folder + "/acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
with storage.writing("adding") as writer:
    for i in range(commits):
        writer.commit(batch(1 + first + size * i, size), space=storage.space())
        os.write(acknowledged, b"%d\\n" % (first + size * (i + 1)))
"""

# Stores broken on purpose: the suite must notice.
CONTROLS = {
    "": "",
    "no fsync": "",  # by leaving every sync out of the log
    "no name of the log": "from embedstore.store import catalog; catalog.sync_folder = lambda path: None",
    "no guard": """
def bare(layout, catalog, *, above=0):
    if layout.wal.exists() and layout.wal.stat().st_size > above:
        catalog.checkpoint()
recover.guarded_checkpoint = bare
""",
    "catalog before shard": """
from embedstore.store import commit as c, shard, storage as st
from embedstore.store.shard import Header
later = []
write = shard.write
def note(path, *, space, number, vectors, contents):
    later.append((path, space, number, vectors, contents))
    rows, dim = vectors.shape
    return Header(space, number, rows, dim, vectors.dtype.name, "", 0)
shard.write = note
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
    server = Warm("torch", "timm", "faiss", "embedstore.cli.app", "embedstore.cli.care", "embedstore.embed.run")
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


class Disk:
    """A folder under a list of steps.

    Args:
        base: the folder before the first step, all of it on the disk.
        root: what it was called when the steps were recorded.
    """

    def __init__(self, base: Path, root: str) -> None:
        self.root = root
        self.names: dict[str, File | None] = {root: None}  # None is a folder
        self.kept: dict[str, File | None] = {}
        self.pending: dict[str, list[tuple[str, bool, File | None]]] = {}  # by folder: name, there, what
        for path in sorted(base.rglob("*")):
            data = None if path.is_dir() else bytearray(path.read_bytes())
            self.names[root + "/" + str(path.relative_to(base))] = None if data is None else File(data, bytearray(data))
        self.kept = dict(self.names)

    def do(self, step: Step, *, synced: bool = True) -> None:
        """Take one step."""
        if step.kind in "cm":
            self._entry(step.path, True, File() if step.kind == "c" else None)
        elif step.kind in "ud":
            self._entry(step.path, False, None)
        elif step.kind == "r":
            moved = self.names[step.path]
            self._entry(step.path, False, None)
            self._entry(step.data.decode(), True, moved)
        elif step.kind == "s":
            if synced:
                self._sync(step.path)
        else:
            file = self.names[step.path]
            assert file is not None
            _apply(file.seen, step.offset, step.data if step.kind == "w" else None)
            file.pending.append((step.offset, step.data if step.kind == "w" else None))

    def cut(self, rng: np.random.Generator, target: Path) -> None:
        """What is there after the power went: some of what was on its way, piece by piece."""
        share = rng.choice([0.0, 0.5, 1.0], p=[0.25, 0.5, 0.25])
        names = dict(self.kept)
        for entries in self.pending.values():
            for name, there, what in entries:
                if rng.random() < share:
                    if there:
                        names[name] = what
                    else:
                        names.pop(name, None)
        target.mkdir(parents=True)
        contents: dict[int, bytes] = {}
        for name, what in sorted(names.items(), key=lambda n: n[0].count("/")):
            path = target / name.removeprefix(self.root).lstrip("/")
            if what is None:
                path.mkdir(exist_ok=True, parents=True)
            elif path.parent.is_dir():
                path.write_bytes(contents.setdefault(id(what), self._survived(what, rng, share)))

    @staticmethod
    def _survived(file: File, rng: np.random.Generator, share: float) -> bytes:
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

    def _entry(self, name: str, there: bool, what: File | None) -> None:
        """A folder's entry changes."""
        if there:
            self.names[name] = what
        else:
            self.names.pop(name, None)
        self.pending.setdefault(name.rsplit("/", 1)[0], []).append((name, there, what))

    def _sync(self, path: str) -> None:
        """A file's bytes or a folder's entries reach the disk."""
        file = self.names.get(path)
        if file is not None:
            file.disk, file.pending = bytearray(file.seen), []
            return
        for name, there, what in self.pending.pop(path, []):
            if there:
                self.kept[name] = what
            else:
                self.kept.pop(name, None)


def _apply(data: bytearray, offset: int, piece: bytes | None) -> None:
    """Write a piece, or truncate at the offset."""
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    if piece is None:
        del data[offset:]
    else:
        data[offset : offset + len(piece)] = piece
