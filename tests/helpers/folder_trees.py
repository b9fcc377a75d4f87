"""Folders of files, ordinary and hostile, and what a scan of them yields."""

import os
import socket
from pathlib import Path

from hypothesis import strategies as st

from embedstore.types import ImageRef


def touch(folder: Path, *names: str) -> Path:
    """Create files that contain their own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    return folder


def scanned_paths(source, root: Path | str = "") -> list[str]:
    """Return the paths of a scan, relative to a folder; a failure with its reason."""
    out = []
    for x in source.scan():
        name = os.path.relpath(x.path, root) if root else x.path
        out.append(name if isinstance(x, ImageRef) else f"{name}: {x.reason}")
    return out


def labels_by_path(source, root: Path) -> dict[str, tuple[str | None, str | None]]:
    """Return label and split by relative path."""
    return {os.path.relpath(x.path, root): (x.label, x.split) for x in source.scan()}


NAMES = st.sampled_from(["a", "b", "ab", "b.jpg", "c.png", "train", "x y", ".h", "é"])
TREES = st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=12)


def build_tree(root: Path, tree: list[list[str]]) -> None:
    """Create files; skip a name that is taken by a folder or by a file above it."""
    for parts in tree:
        path = root.joinpath(*parts)
        if not path.is_dir() and not any(p.is_file() for p in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")


def hostile_folder(tmp_path: Path) -> Path:
    """Create a folder with everything that has hung or crashed an indexer."""
    root = touch(tmp_path / "hostile", "ok.jpg", "empty.jpg", "deep/ok.jpg")
    (root / "empty.jpg").write_bytes(b"")
    os.mkfifo(root / "fifo.jpg")
    (root / "dangling.jpg").symlink_to(root / "nothing")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "good-link.jpg").symlink_to(root / "ok.jpg")
    (root / "device.jpg").symlink_to("/dev/zero")
    (root / "fifo-link.jpg").symlink_to(root / "fifo.jpg")
    (root / "deep" / "up").symlink_to(root)
    (root / "folder-link").symlink_to(root / "deep")
    with socket.socket(socket.AF_UNIX) as s:
        here = os.open(root, os.O_RDONLY)
        s.bind(f"/proc/self/fd/{here}/socket.jpg" if Path("/proc/self/fd").exists() else str(root / "socket.jpg"))
        os.close(here)
    return root
