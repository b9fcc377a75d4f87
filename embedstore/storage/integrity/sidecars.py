"""Check the files that a description next to them vouches for: indexes, checkpoints and heads.

This room knows neither heads nor checkpoints: what reads them is passed in as :class:`SidecarReaders`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedstoreError
from embedstore.storage import durable_files, layout
from embedstore.storage.integrity.report import REPAIR_CURE, Checked, Damage, Finding
from embedstore.storage.layout import Layout
from embedstore.storage.store_files import read_bounded

_CHECKPOINT_CURE = "bring it back from a backup, or tune again and `embedstore drop-space` this one"


@dataclass(frozen=True)
class SidecarReaders:
    """Readers of descriptions that belong to other rooms.

    Attributes:
        parse_checkpoint: takes the bytes of ``checkpoint.json`` and returns its facts, with ``files``; raises
            ValueError, TypeError or RecursionError where they are not what was written.
        load_head: loads the head in a folder and raises an EmbedstoreError where it is damaged.
    """

    parse_checkpoint: Callable[[bytes], dict[str, Any]]
    load_head: Callable[[Path], object]


def check_sidecars(at: Layout, readers: SidecarReaders) -> Iterator[Finding]:
    """Compare indexes, checkpoints and heads with their descriptions.

    Args:
        at: the store.
        readers: what reads checkpoints and heads.

    Yields:
        Damage, and one count per description.
    """
    for path in sorted(at.root.glob("spaces/*/index/*.json")):
        yield from _check_files(at, path, lambda data: [json.loads(data)], REPAIR_CURE)
    for path in sorted(at.root.glob("checkpoints/*/checkpoint.json")):
        yield from _check_files(at, path, lambda data: readers.parse_checkpoint(data)["files"], _CHECKPOINT_CURE)
    for folder in sorted(p for p in at.root.glob("heads/*/") if not p.name.startswith(".")):
        yield Checked(sidecars=1)
        try:
            readers.load_head(folder)
        except EmbedstoreError as e:
            yield Damage(str(folder.relative_to(at.root)), "", str(e))


def quarantine_damaged(at: Layout, readers: SidecarReaders) -> list[str]:
    """Move damaged indexes and heads to the quarantine. Checkpoints stay: nothing can make them again.

    Args:
        at: the store; the caller holds the writer's lock.
        readers: what reads checkpoints and heads.

    Returns:
        One sentence per file.
    """
    actions = []
    for damage in [f for f in check_sidecars(at, readers) if isinstance(f, Damage)]:
        if damage.file.startswith("checkpoints/"):
            continue
        path = at.root / damage.file
        kept = layout.quarantine_file(at, path, damage.file.replace("/", "-")) if path.exists() else None
        moved = f"; it is now {kept}" if kept else ""
        cure = "it is built again" if "index" in path.parts else "train it and save it again"
        actions.append(f"{damage.file}: {damage.problem}{moved}; {cure}")
    return actions


def _check_files(at: Layout, sidecar: Path, read: Callable[[bytes], list[Any]], cure: str) -> Iterator[Finding]:
    """Compare the files that a description names with the sizes and checksums in it."""
    yield Checked(sidecars=1)
    try:
        entries = read(read_bounded(sidecar))
        files = [(_sibling(sidecar, e["file"]), int(e["bytes"]), str(e["xxh3"])) for e in entries]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
        problem = f"it does not describe its files ({type(e).__name__}: {e})"
        yield Damage(str(sidecar.relative_to(at.root)), "", problem, cure)
        return
    for path, size, xxh3 in files:
        if problem := _file_problem(path, size, xxh3):
            yield Damage(str(path.relative_to(at.root)), "", problem, cure)


def _sibling(sidecar: Path, name: Any) -> Path:
    """Return the path of a file in the folder of its description.

    Raises:
        ValueError: if the name is not a plain file name: a sidecar from a stranger must not move other files.
    """
    if not isinstance(name, str) or not name or Path(name).name != name or "\0" in name:
        raise ValueError("it names a file outside of its folder")
    return sidecar.parent / name


def _file_problem(path: Path, size: int, xxh3: str) -> str:
    """Return how a file differs from its description, or ""."""
    try:
        if path.stat().st_size != size:
            return f"it has {path.stat().st_size:,} bytes instead of {size:,}"
        return "" if durable_files.file_xxh3(path) == xxh3 else "it does not match its checksum"
    except OSError as e:
        return f"it cannot be read: {e.strerror}"
