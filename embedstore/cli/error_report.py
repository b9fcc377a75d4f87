"""The report on an unexpected error: what a developer needs to find the defect."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from embedstore.versions import package_version

PACKAGES = (
    "embedstore", "torch", "timm", "open_clip_torch", "faiss-cpu", "scikit-learn", "numpy", "duckdb", "pillow",
    "safetensors", "onnxruntime", "pandas", "pyarrow", "typer",
)  # fmt: skip


def write_report(error: BaseException, arguments: Sequence[str] | None) -> Path:
    """Write a report to the folder for temporary files, readable by this user only, and return its path.

    It has the command, the traceback and the versions, and no values of the environment.

    Args:
        error: the error.
        arguments: the arguments of the command; None takes those of the process.

    Raises:
        OSError: if the folder cannot be written.
    """
    now = datetime.now(UTC)
    path = Path(tempfile.gettempdir(), f"embedstore-error-{now:%Y%m%d-%H%M%S}-{os.getpid()}.txt")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(report_text(error, sys.argv[1:] if arguments is None else arguments, now))
    return path


def report_text(error: BaseException, arguments: Sequence[str], now: datetime) -> str:
    """Return the text of a report."""
    command = shlex.join(["embedstore", *arguments])
    system = f"Python {platform.python_version()}, {platform.platform()}"
    packages = ", ".join(f"{name} {found}" for name in PACKAGES if (found := package_version(name)))
    trace = "".join(traceback.format_exception(error))
    title = f"embedstore stopped with an unexpected error on {now.isoformat()}"
    return f"{title}\n\n{command}\n{system}\n{packages}\n\n{trace}"
