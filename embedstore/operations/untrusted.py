"""Say what a store from somebody else would have tried, without opening it for work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from embedstore.backbones.runtimes.onnx_encoder import GRAPH_FILE, WEIGHTS_FILE
from embedstore.backbones.runtimes.onnx_format import check_graph_file
from embedstore.backbones.stored_recipes import names_code, recipe_problem
from embedstore.errors import EmbedstoreError
from embedstore.operations.maintenance import SIDECAR_READERS
from embedstore.search.index import files as index_files
from embedstore.search.index.faiss_format import check_index_file
from embedstore.storage import catalog_check, store_files
from embedstore.storage.catalog import Catalog
from embedstore.storage.checkpoint import has_interrupted_checkpoint
from embedstore.storage.integrity.report import Damage
from embedstore.storage.integrity.sidecars import check_sidecars
from embedstore.storage.layout import OWN_ENTRIES, Layout, locate_store, read_marker
from embedstore.storage.queries.heads import head_rows
from embedstore.storage.spaces import RecipeSpace, SpaceTable
from embedstore.storage.sql import first_line
from embedstore.tables import OneRow


@dataclass(frozen=True)
class UntrustedFinding:
    """One thing in a store that embedstore does not write, or that it uses only with permission.

    Attributes:
        file: path relative to the store.
        problem: what it is, and what it would do.
    """

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass(frozen=True)
class UntrustedReport(OneRow):
    """What a store from somebody else would have tried.

    Attributes:
        findings: everything that was found; without any, the store holds data only.
    """

    findings: tuple[UntrustedFinding, ...]

    @property
    def ok(self) -> bool:
        """True where nothing was found."""
        return not self.findings

    def summary(self) -> str:
        """Return one line for a person."""
        if self.ok:
            return "nothing but data: no links, no foreign objects in the catalog, no code"
        return f"{len(self.findings)} found; the store was not opened and nothing of it ran"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"ok": self.ok, "findings": [asdict(f) for f in self.findings]}


def verify_untrusted(path: str | Path) -> UntrustedReport:
    """Look at a store without opening it for work; see :func:`embedstore.verify_untrusted`."""
    at = locate_store(Path(path))
    findings = [*_check_entries(at)]
    if not findings:  # nothing is followed out of the store from here on
        findings += [*_check_marker(at), *_check_catalog(at), *_check_indexes(at), *_check_towers(at)]
        findings += _check_descriptions(at)
    return UntrustedReport(tuple(dict.fromkeys(findings)))


def _check_entries(at: Layout) -> Iterator[UntrustedFinding]:
    """Check that there are only regular files and folders, and that what is changed in place has one name."""
    try:
        for entry in store_files.irregular_entries(at.root, OWN_ENTRIES):
            target = f" to {entry.target!r}" if entry.target else ""
            yield UntrustedFinding(
                entry.path, f"a {entry.kind}{target}, which would be followed, written or waited for"
            )
    except OSError as e:
        yield UntrustedFinding(_relative(at, Path(str(e.filename or at.root))), f"it cannot be listed: {e.strerror}")
    for path in (at.lock, at.root / "COMMITTED", *catalog_check.files_of(at.catalog)):
        if not path.is_symlink():
            yield from _refusals(at, path, partial(store_files.require_writable_in_place, path))


def _check_marker(at: Layout) -> Iterator[UntrustedFinding]:
    """Check the marker file."""
    yield from _refusals(at, at.marker, partial(read_marker, at))


def _check_catalog(at: Layout) -> Iterator[UntrustedFinding]:
    """Check what the catalog holds, and then what its rows name."""
    if has_interrupted_checkpoint(at):
        yield UntrustedFinding("checkpoint.guard", "its copy of the catalog would replace the catalog")
        return
    try:
        objects = catalog_check.foreign_objects(at.catalog)
    except (EmbedstoreError, duckdb.Error) as e:
        yield UntrustedFinding(at.catalog.name, _problem(e))
        return
    for found in objects:
        yield UntrustedFinding(at.catalog.name, f"{found}: it would take part in queries of embedstore")
    if not objects:
        catalog = Catalog(at.catalog)
        yield from _refusals(at, at.catalog, partial(_read_heads, catalog))
        yield from _check_spaces(at, catalog)


def _read_heads(catalog: Catalog) -> None:
    """Read the descriptions of the heads."""
    with catalog.read() as con:
        head_rows(con)


def _check_spaces(at: Layout, catalog: Catalog) -> Iterator[UntrustedFinding]:
    """Check what the recipes of the spaces would load."""
    try:
        records = SpaceTable(at.root, catalog).records()
    except EmbedstoreError as e:
        yield UntrustedFinding(at.catalog.name, _problem(e))
        return
    for record in records:
        if not isinstance(record, RecipeSpace):
            continue
        recipe, place = record.recipe, f"space {record.name!r}"
        if names_code(recipe):
            problem = f"{place} would import {recipe.backbone!r}, only with --allow-code {recipe.backbone}"
            yield UntrustedFinding(at.catalog.name, problem)
        elif problem := recipe_problem(recipe, at.root):
            yield UntrustedFinding(at.catalog.name, f"{place} would load {problem}")


def _check_indexes(at: Layout) -> Iterator[UntrustedFinding]:
    """Check every index file and its sidecar."""
    for folder in sorted(at.root.glob("spaces/*/index")):
        for path, sidecar in index_files.read_sidecars(folder):
            if isinstance(sidecar, str):
                yield UntrustedFinding(_relative(at, path), sidecar)
                continue
            file = folder / Path(sidecar.file).name
            yield from _refusals(at, file, partial(_check_index, file, sidecar.rows, sidecar.dim))


def _check_index(file: Path, rows: int, dim: int) -> None:
    """Check one index file; one that is missing is not used."""
    if file.is_file():
        check_index_file(file, file.stat().st_size, rows=rows, dim=dim)


def _check_towers(at: Layout) -> Iterator[UntrustedFinding]:
    """Check the graph of every exported network."""
    for path in sorted(at.root.glob(f"spaces/*/towers/*/{GRAPH_FILE}")):
        yield from _refusals(at, path, partial(check_graph_file, path, weights_name=WEIGHTS_FILE))


def _check_descriptions(at: Layout) -> Iterator[UntrustedFinding]:
    """Compare indexes, checkpoints and heads with their descriptions."""
    for found in check_sidecars(at, SIDECAR_READERS):
        if isinstance(found, Damage):
            yield UntrustedFinding(found.file, found.problem)


def _refusals(at: Layout, path: Path, check: Callable[[], object]) -> Iterator[UntrustedFinding]:
    """Yield why a check refuses a file."""
    try:
        check()
    except (EmbedstoreError, OSError, ValueError, TypeError, KeyError) as e:
        yield UntrustedFinding(_relative(at, path), _problem(e))


def _relative(at: Layout, path: Path) -> str:
    """Return a path from the store on."""
    return path.relative_to(at.root).as_posix() if path.is_relative_to(at.root) else str(path)


def _problem(error: Exception) -> str:
    """Return the message of an error without its cure."""
    return first_line(error).split("; ")[0]
