"""Which folders have to be watched for a source, and whether the system reports their changes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from embedstore.sources.files import is_glob
from embedstore.sources.remote.filesystem import is_remote
from embedstore.sources.uris import FILE_SCHEME, local_path, scheme_of

# A server changes files without the kernel of this machine, so that inotify reports nothing.
NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p afs ceph glusterfs lustre gpfs beegfs davfs vboxsf virtiofs drvfs".split()
)
_WILDCARD = re.compile(r"[*?\[]")


def local_folders(names: Iterable[str]) -> list[str] | None:
    """Return the folders whose events tell that a source changed; None if it is not on this machine.

    Args:
        names: what the user named.
    """
    folders: dict[str, None] = {}
    for name in names:
        if is_remote(name) or "::" in name or scheme_of(name) not in (None, FILE_SCHEME):
            return None
        path = os.path.abspath(local_path(os.path.expanduser(name), folder=""))  # noqa: PTH100, PTH111
        folders[_folder_of(path)] = None
    return list(folders)


def network_file_system(folder: str, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the type of the network file system that a folder is on; None for a local one, or where it is not known.

    Args:
        folder: absolute.
        mounts: the table of the kernel (proc(5)).
    """
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, best, found = os.path.realpath(folder), "", None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1])
        if (real + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, found = mount, fields[2]
    is_network = found in NETWORK_FILE_SYSTEMS or (found or "").startswith("fuse.")
    return found if is_network else None


def _folder_of(path: str) -> str:
    """Return a folder itself, the folder of a file, and of a pattern the folders before its first wildcard."""
    if is_glob(path):
        return path[: _WILDCARD.search(path).start()].rpartition("/")[0] or "/"  # type: ignore[union-attr]
    return path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH112, PTH120
