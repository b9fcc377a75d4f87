"""Check the files that a description next to them vouches for: indexes, exported networks, checkpoints and heads.

This room knows neither heads nor checkpoints: what reads them is passed in as :class:`SidecarReaders`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedstoreError, StoreDamaged, StoreUnreadable, UnsafeStore
from embedstore.storage import durable_files, layout
from embedstore.storage.description_checksum import (
    DESCRIPTION_CHECKSUM_KEY,
    check_description,
    check_index_description,
)  # fmt: skip
from embedstore.storage.integrity.report import REPAIR_CURE, Checked, Damage, Finding, Unread
from embedstore.storage.layout import Layout
from embedstore.storage.reading import exists, list_folder, read_errors
from embedstore.storage.store_files import read_bounded

_AGAIN = {"index": "it is built again", "towers": "the network is exported again when it is used"}
_CHECKPOINT_CURE = "bring it back from a backup, or tune again and `embedstore drop-space STORE SPACE` this one"


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
    try:
        yield from _check_sidecars(at, readers)
    except StoreUnreadable as e:  # a folder that cannot be listed
        yield Unread("spaces, checkpoints or heads", str(e))


def require_readable(findings: Iterable[Finding]) -> list[Damage]:
    """Return the damage among some findings.

    Raises:
        StoreUnreadable: if a file could not be read: then it is not known whether it is damaged.
    """
    found = list(findings)
    if unread := next((f for f in found if isinstance(f, Unread)), None):
        raise StoreUnreadable(str(unread))
    return [f for f in found if isinstance(f, Damage)]


def _check_sidecars(at: Layout, readers: SidecarReaders) -> Iterator[Finding]:
    """Compare indexes, checkpoints and heads with their descriptions; raise if a folder cannot be listed."""
    for space in list_folder(at.root / "spaces"):
        for path in list_folder(at.index_folder(space.name), "*.json"):
            yield from _check_files(at, path, lambda data: [check_index_description(json.loads(data))], REPAIR_CURE)
        for folder in list_folder(space / "towers"):
            if exists(folder / "tower.json") and not folder.name.startswith("."):
                yield from _check_tower(at, folder / "tower.json")
    for folder in list_folder(at.root / "checkpoints"):
        path = folder / "checkpoint.json"
        if exists(path):
            yield from _check_files(at, path, lambda data: readers.parse_checkpoint(data)["files"], _CHECKPOINT_CURE)
    for folder in list_folder(at.root / "heads"):
        if not folder.name.startswith("."):
            yield from _check_head(at, folder, readers)


def _check_tower(at: Layout, description: Path) -> Iterator[Finding]:
    """Check an exported network; its description is named, without which it is exported again."""
    name = str(description.relative_to(at.root))
    for finding in _check_files(at, description, _tower_files, REPAIR_CURE):
        if not isinstance(finding, Damage):
            yield finding
            continue
        file = Path(finding.file).name
        yield Damage(name, "", finding.problem if finding.file == name else f"{file}: {finding.problem}", REPAIR_CURE)
        return


def _tower_files(data: bytes) -> list[dict[str, Any]]:
    """Return the files that a ``tower.json`` describes."""
    facts = check_description(json.loads(data), DESCRIPTION_CHECKSUM_KEY)
    return [{"file": name, "bytes": size, "xxh3": xxh3} for name, (size, xxh3) in facts["files"].items()]


def _check_head(at: Layout, folder: Path, readers: SidecarReaders) -> Iterator[Finding]:
    """Load a head."""
    name = str(folder.relative_to(at.root))
    yield Checked(sidecars=1)
    try:
        with read_errors(folder):
            readers.load_head(folder)
    except StoreUnreadable as e:
        yield Unread(name, str(e))
    except EmbedstoreError as e:
        yield Damage(name, "", str(e))


def quarantine_damaged(at: Layout, readers: SidecarReaders) -> list[str]:
    """Move damaged indexes and heads to the quarantine. Checkpoints stay: nothing can make them again.

    Args:
        at: the store; the caller holds the writer's lock.
        readers: what reads checkpoints and heads.

    Returns:
        One sentence per file.

    Raises:
        StoreUnreadable: if a file cannot be read now; nothing is moved then.
    """
    actions = []
    for damage in require_readable(check_sidecars(at, readers)):
        if damage.file.startswith("checkpoints/"):
            continue
        path = at.root / damage.file
        kept = layout.quarantine_file(at, path, damage.file.replace("/", "-")) if exists(path) else None
        moved = f"; it is now {kept}" if kept else ""
        cure = next((_AGAIN[part] for part in path.parts if part in _AGAIN), "train it and save it again")
        actions.append(f"{damage.file}: {damage.problem}{moved}; {cure}")
    return actions


def _check_files(at: Layout, sidecar: Path, read: Callable[[bytes], list[Any]], cure: str) -> Iterator[Finding]:
    """Compare the files that a description names with the sizes and checksums in it."""
    yield Checked(sidecars=1)
    try:
        with read_errors(sidecar):
            data = read_bounded(sidecar)
        entries = read(data)
        files = [(_sibling(sidecar, e["file"]), int(e["bytes"]), str(e["xxh3"])) for e in entries]
    except StoreUnreadable as e:
        yield Unread(str(sidecar.relative_to(at.root)), str(e))
        return
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
        problem = f"it does not describe its files ({type(e).__name__}: {e})"
        yield Damage(str(sidecar.relative_to(at.root)), "", problem, cure)
        return
    for path, size, xxh3 in files:
        name = str(path.relative_to(at.root))
        try:
            if problem := _file_problem(path, size, xxh3):
                yield Damage(name, "", problem, cure)
        except StoreUnreadable as e:
            yield Unread(name, str(e))


def _sibling(sidecar: Path, name: Any) -> Path:
    """Return the path of a file in the folder of its description.

    Raises:
        ValueError: if the name is not a plain file name: a sidecar from a stranger must not move other files.
    """
    if not isinstance(name, str) or not name or Path(name).name != name or "\0" in name:
        raise ValueError("it names a file outside of its folder")
    return sidecar.parent / name


def _file_problem(path: Path, size: int, xxh3: str) -> str:
    """Return how a file differs from its description, or ""; raise StoreUnreadable if it cannot be read now."""
    try:
        with read_errors(path):
            if (found := path.stat().st_size) != size:
                return f"it has {found:,} bytes instead of {size:,}"
            return "" if durable_files.file_xxh3(path) == xxh3 else "it does not match its checksum"
    except UnsafeStore:
        return "it is mostly holes"
    except StoreDamaged:
        return "it is missing"
