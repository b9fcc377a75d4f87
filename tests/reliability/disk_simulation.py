"""Record what a process does to a store's files, step by step, and simulate what a power cut would leave.

``recorder.c`` is compiled once and loaded before libc, so it sees DuckDB's writes as well as ours. A power cut is
simulated from its log in the most hostile reading of POSIX: data that was not synced persists or not, block by block,
and so do the entries of a folder, one by one, until that folder is synced.
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
from tests.reliability.fork_server import ForkServer, Process, ProcessResult

HERE = Path(__file__).parent
MODULES = (
    "faiss", "embedstore.storage.transfer.read_archive", "embedstore.storage.transfer.write_archive",
    "embedstore.storage.integrity.backup",
    "tests.reliability.operations", "tests.reliability.test_state_machine",
)  # fmt: skip
BLOCK_BYTES = 4096  # bytes that a disk writes as a whole or not at all

COMMIT_JOB = """
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

# Stores that are broken on purpose; the tests must detect each of them.
CONTROLS = {
    "": "",
    "no fsync": "",  # the simulation ignores every sync
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
def fork_server(tmp_path_factory):
    """Start a process to fork jobs from, with the recorder loaded where a C compiler exists."""
    if sys.platform != "linux":
        pytest.skip("needs Linux: the fork server counts its threads in /proc")
    library = None
    if shutil.which("cc"):
        library = tmp_path_factory.mktemp("recorder") / "recorder.so"
        options = ["-shared", "-fPIC", "-O1", "-w", "-ldl", "-lpthread"]
        subprocess.run(["cc", HERE / "recorder.c", "-o", library, *options], check=True)
    server = ForkServer(*MODULES, preload=library)
    yield server
    server.close()


@pytest.fixture(scope="session")
def commands():
    """Start a process to fork command lines from, which has imported what they need, torch too."""
    if sys.platform != "linux":
        pytest.skip("needs Linux: the fork server counts its threads in /proc")
    server = ForkServer(
        "torch",
        "timm",
        "faiss",
        "embedstore.store",
        "embedstore.cli.put_in",
        "embedstore.cli.maintenance",
        "embedstore.pipeline.run",
    )
    yield server
    server.close()


@pytest.fixture(scope="session")
def recorder(fork_server) -> ForkServer:
    """Return the fork server with the recorder; skip the test where there is no C compiler."""
    if fork_server.preload is None:
        pytest.skip("needs a C compiler for the recorder")
    return fork_server


def run(
    recorder: ForkServer, folder: Path, *arguments: int, code: str = COMMIT_JOB, control: str = "", **settings: object
) -> ProcessResult:
    """Run a job in a new process, recorded or interrupted.

    Args:
        recorder: the fork server with the recorder.
        folder: the folder to watch; the store is ``folder/s``.
        arguments: arguments of the job.
        code: Python code of the job.
        control: key of :data:`CONTROLS`: how the store is broken.
        settings: settings of the recorder: log, kill, fail, errno, sticky.
    """
    environment = {f"RECORDER_{k.upper()}": str(v) for k, v in settings.items()}
    return recorder.run(job_code(code, control), folder, *arguments, env={"RECORDER_UNDER": str(folder), **environment})


def start(fork_server: ForkServer, folder: Path, *arguments: int, code: str = COMMIT_JOB) -> Process:
    """Start a job in a new process without recording it."""
    return fork_server.start(job_code(code), folder, *arguments)


def job_code(code: str, control: str = "") -> str:
    """Return the code of a job; ``str.format`` cannot be used because the code has braces."""
    return textwrap.dedent(code).replace("{control}", CONTROLS[control])


def is_our_traceback(traceback: str) -> bool:
    """Return whether an error passed through our code, and not only through the job's own bookkeeping."""
    return str(Path(embedstore.__file__).parent) in traceback


@dataclass(frozen=True)
class Step:
    """One step of kind w write, t truncate, s sync, r rename, l hard link, u unlink, c create, m mkdir or d rmdir."""

    kind: str
    path: str
    offset: int
    data: bytes


def read_log(path: Path) -> list[Step]:
    """Read the recorder's log: every step in order."""
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
    """One inode: its bytes as the process sees them, its bytes on the disk, and the writes that are not synced."""

    visible: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def apply(self, offset: int, data: bytes | None) -> None:
        """Write at an offset, or truncate there."""
        _apply(self.visible, offset, data)
        self.pending.append((offset, data))

    def sync(self) -> None:
        """Bring every write to the disk."""
        self.durable, self.pending = bytearray(self.visible), []


@dataclass
class Folder:
    """One folder: its entries as the process sees them, on the disk, and the changes that are not synced."""

    visible: dict[str, "File | Folder"] = field(default_factory=dict)
    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[tuple[str, "File | Folder | None"]] = field(default_factory=list)

    @classmethod
    def from_path(cls, path: Path) -> "Folder":
        """Read a folder as it is, all of it on the disk."""
        entries: dict[str, File | Folder] = {}
        for p in path.iterdir():
            data = b"" if p.is_dir() else p.read_bytes()
            entries[p.name] = cls.from_path(p) if p.is_dir() else File(bytearray(data), bytearray(data))
        return cls(entries, dict(entries))

    def set_entry(self, name: str, what: "File | Folder | None") -> None:
        """Add, replace or remove an entry."""
        _set_entry(self.visible, name, what)
        self.pending.append((name, what))

    def sync(self) -> None:
        """Bring every change of the entries to the disk, but not the content of the files."""
        for name, what in self.pending:
            _set_entry(self.durable, name, what)
        self.pending = []


class Disk:
    """A simulated disk that recorded steps are applied to.

    Args:
        base: the folder before the first step, all of it on the disk.
        root: the path of the folder when the steps were recorded.
    """

    def __init__(self, base: Path, root: str) -> None:
        self.root, self.top = root, Folder.from_path(base)

    def apply(self, step: Step, *, synced: bool = True) -> None:
        """Apply one step; a step that the kernel refused changes nothing."""
        folder, name = self._parent(step.path)
        there = self.find(step.path)
        if step.kind == "s":
            if synced and there is not None:
                there.sync()
        elif folder is None:
            return
        elif step.kind == "c" or (step.kind == "m" and there is None):
            folder.set_entry(name, File() if step.kind == "c" else Folder())
        elif step.kind == "u" or (step.kind == "d" and isinstance(there, Folder) and not there.visible):
            folder.set_entry(name, None)
        elif step.kind in "rl":
            assert there is not None, f"{step.path} was created by something that the recorder does not see"
            target, new = self._parent(step.data.decode())
            assert target is not None
            if step.kind == "r":
                folder.set_entry(name, None)
            target.set_entry(new, there)
        elif step.kind in "wt":
            assert isinstance(there, File), f"{step.path} was created by something that the recorder does not see"
            there.apply(step.offset, step.data if step.kind == "w" else None)

    def find(self, path: str) -> File | Folder | None:
        """Return the file or folder that the process sees at a path."""
        found: File | Folder | None = self.top
        for part in path.removeprefix(self.root).split("/"):
            if part:
                found = found.visible.get(part) if isinstance(found, Folder) else None
        return found

    def cut_power(self, rng: np.random.Generator, target: Path) -> None:
        """Write what survives a power cut: a random part of the writes that were not synced, block by block."""
        self._write_survivors(self.top, rng, rng.choice([0.0, 0.5, 1.0], p=[0.25, 0.5, 0.25]), target, {})

    def _parent(self, path: str) -> tuple[Folder | None, str]:
        """Return the folder of an entry, and its name in it."""
        above, name = path.rsplit("/", 1)
        folder = self.find(above) if path != self.root else None
        return folder if isinstance(folder, Folder) else None, name

    def _write_survivors(
        self, folder: Folder, rng: np.random.Generator, share: float, target: Path, contents: dict[int, bytes]
    ) -> None:
        """Write what survives of a folder to ``target``."""
        target.mkdir(parents=True)
        entries = dict(folder.durable)
        for name, what in folder.pending:
            if rng.random() < share:
                _set_entry(entries, name, what)
        for name, what in sorted(entries.items()):
            if isinstance(what, Folder):
                self._write_survivors(what, rng, share, target / name, contents)
            else:
                if id(what) not in contents:
                    contents[id(what)] = _surviving_bytes(what, rng, share)
                (target / name).write_bytes(contents[id(what)])


def _set_entry(entries: dict[str, File | Folder], name: str, what: File | Folder | None) -> None:
    """Set or remove an entry."""
    if what is None:
        entries.pop(name, None)
    else:
        entries[name] = what


def _surviving_bytes(file: File, rng: np.random.Generator, share: float) -> bytes:
    """Return what survives of a file."""
    disk = bytearray(file.durable)
    for offset, data in file.pending:
        if data is None:
            if rng.random() < share:
                _apply(disk, offset, None)
            continue
        at = 0
        while at < len(data):
            size = BLOCK_BYTES - (offset + at) % BLOCK_BYTES
            if rng.random() < share:
                _apply(disk, offset + at, data[at : at + size])
            at += size
    return bytes(disk)


def _apply(data: bytearray, offset: int, piece: bytes | None) -> None:
    """Write at an offset, or truncate there."""
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    if piece is None:
        del data[offset:]
    else:
        data[offset : offset + len(piece)] = piece
