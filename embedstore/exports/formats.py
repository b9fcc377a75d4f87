"""The formats of an export, and which of them a path and the user's options mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from embedstore.errors import BadOption, QueryError, did_you_mean


class ExportFormat(StrEnum):
    """A format that `export` writes."""

    PARQUET = "parquet"
    NPY = "npy"
    CSV = "csv"
    WEBDATASET = "webdataset"
    LANCE = "lance"
    HUGGINGFACE = "huggingface"
    FIFTYONE = "fiftyone"


class VectorType(StrEnum):
    """The type of exported vectors."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


SUFFIXES = {
    ".parquet": ExportFormat.PARQUET,
    ".npy": ExportFormat.NPY,
    ".csv": ExportFormat.CSV,
    ".tar": ExportFormat.WEBDATASET,
    ".lance": ExportFormat.LANCE,
}
_FOLDERS = (ExportFormat.WEBDATASET, ExportFormat.HUGGINGFACE, ExportFormat.FIFTYONE)


@dataclass(frozen=True)
class ExportOptions:
    """What an export writes.

    Attributes:
        format: the format of the files.
        vectors: write the vectors.
        vector_type: the type of the vectors.
    """

    format: ExportFormat
    vectors: bool
    vector_type: VectorType


def export_options(
    path: Path, *, format_name: str | None, vectors: bool | None, dtype: str | None, stored: str = "float32"
) -> ExportOptions:
    """Return the settings of an export that a path and the options of the user give.

    Args:
        path: the file or folder to write.
        format_name: the format; None takes it from the suffix.
        vectors: write vectors; None writes them in every format but CSV.
        dtype: the type of the vectors; None keeps that of the space where the format and the installed packages can.
        stored: the type of the vectors in the space.

    Raises:
        QueryError: if the suffix is that of no format.
        BadOption: if the format or type is unknown, or the options do not fit the format.
    """
    file_format = _format(path, format_name)
    if dtype is not None and dtype not in list(VectorType):
        raise BadOption(f"unknown type of vectors {dtype!r}; use float32 or float16{did_you_mean(dtype, VectorType)}")
    vector_type = VectorType(dtype or _kept_type(file_format, stored))
    if file_format is ExportFormat.CSV and (vectors or dtype):
        raise BadOption(f"{path.name}: a CSV file has no vectors; leave out the options for them, or write Parquet")
    if file_format is ExportFormat.NPY and (vectors is False or vector_type is VectorType.FLOAT16):
        raise BadOption(f"{path.name}: a .npy export is the vectors, as float32; write Parquet for other forms")
    wanted = file_format is not ExportFormat.CSV if vectors is None else vectors
    return ExportOptions(file_format, wanted, vector_type)


def _kept_type(file_format: ExportFormat, stored: str) -> str:
    """Return the type that vectors have by default: their own, or float32 where a format is written without it."""
    needs_arrow = file_format is ExportFormat.PARQUET and not has_arrow()
    return VectorType.FLOAT32 if needs_arrow or file_format in (ExportFormat.NPY, ExportFormat.CSV) else stored


def has_arrow() -> bool:
    """Return whether pyarrow is installed, which writes Parquet of either type block by block."""
    return find_spec("pyarrow") is not None


def _format(path: Path, name: str | None) -> ExportFormat:
    """Return the format that is named, or that the suffix means; refuse a path that does not fit it."""
    by_suffix = SUFFIXES.get(path.suffix.lower())
    if name is None:
        if by_suffix is None:
            raise QueryError(
                f"no format has the name {path.name!r}: export writes {', '.join(SUFFIXES)}, or with --format "
                f"{', '.join(_FOLDERS)} a new folder"
            )
        return by_suffix
    if name not in list(ExportFormat):
        raise BadOption(f"unknown format {name!r}; use {', '.join(ExportFormat)}{did_you_mean(name, ExportFormat)}")
    wanted = ExportFormat(name)
    if by_suffix is wanted or (by_suffix is None and wanted in _FOLDERS):
        return wanted
    expected = [f"FILE{suffix}" for suffix, file_format in SUFFIXES.items() if file_format is wanted]
    expected += ["a new folder"] if wanted in _FOLDERS else []
    raise BadOption(f"{path.name!r} does not fit the format {wanted}; name {' or '.join(expected)}")
