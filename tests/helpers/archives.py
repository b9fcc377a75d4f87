"""Unpack an archive of test data."""

import tarfile
from pathlib import Path


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack a tar. Python before 3.11.4, as Debian 12 has it, knows no filter of members; the data is our own."""
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **options)
