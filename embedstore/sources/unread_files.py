"""Files that people name as a source and that are read in another form: spreadsheets, data frames, arrays, lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedstore.errors import BadManifest
from embedstore.modality import Modality

_SPREADSHEET = ("a spreadsheet", "save it as CSV")
_FRAME = ("a table of a kind that is not read", "save it as Parquet, for example with pandas: to_parquet(…)")
_DATABASE = ("a database", "export the table as CSV or Parquet")
_ARRAY = ("an array", "vectors go with `embed STORE --vectors FILE.npy`; images as image files or as bytes in Parquet")
_LIST = ("text", "to embed the images that it names, save it as .csv with a first line `uri`")

_CURES = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), _SPREADSHEET),
    **dict.fromkeys((".feather", ".arrow", ".ipc", ".orc", ".avro", ".pkl", ".pickle", ".rds", ".dta", ".sav"), _FRAME),
    **dict.fromkeys((".sqlite", ".sqlite3", ".db", ".duckdb", ".mdb"), _DATABASE),
    **dict.fromkeys((".npy", ".npz", ".pt", ".mat", ".h5", ".hdf5"), _ARRAY),
}
_LIST_SUFFIXES = (".txt", ".lst", ".list")


def refuse_unread_files(names: Sequence[str], modality: Modality) -> None:
    """Refuse a file that is named as a source and of a kind that holds images only in a form that is not read.

    Args:
        names: what was named as the source.
        modality: what the space embeds; a text file is an item of a space of texts.

    Raises:
        BadManifest: if there is one, with what to do.
    """
    for name in names:
        suffix = Path(name).suffix.lower()
        found = _CURES.get(suffix)
        if found is None and suffix in _LIST_SUFFIXES and modality is Modality.IMAGE:
            found = _LIST
        if found is not None and Path(name).is_file():
            raise BadManifest(f"{name} is {found[0]}, not an image; {found[1]}")
