"""The source that a user names: a folder, files and globs, a manifest, or Parquet files that hold the images."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedstore.errors import BadAnnotations, BadManifest, SourceError, SourceNotFound
from embedstore.sources.annotations.formats import annotation_hint, is_annotation_file
from embedstore.sources.annotations.options import AnnotationOptions
from embedstore.sources.annotations.source import open_annotations
from embedstore.sources.chained import ChainedSource
from embedstore.sources.combined import CombinedSource, LocalSource
from embedstore.sources.files import Files, Glob, is_glob
from embedstore.sources.folder import Folder
from embedstore.sources.frames import is_frame
from embedstore.sources.given_names import names_below_common
from embedstore.sources.huggingface.hub import download_data_set
from embedstore.sources.huggingface.saved import SavedDataSet, is_saved_data_set
from embedstore.sources.local_files import existing_path
from embedstore.sources.manifest import Manifest, is_manifest
from embedstore.sources.parquet.place import open_parquet
from embedstore.sources.parts.source import PartsSource
from embedstore.sources.place import expand_braces, is_archive_name, open_archives, open_remote
from embedstore.sources.plug_in.source import open_plug_in
from embedstore.sources.remote.filesystem import is_remote
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import Source
from embedstore.sources.table_options import TableOptions
from embedstore.sources.text_tables.source import TextRows
from embedstore.sources.unread_files import refuse_unread_files
from embedstore.sources.uris import REMOTE_CURE, local_path, remote_scheme, replace_parent, scheme_of

RULES = ("folder",)


def open_source(
    source: Any,
    *,
    label_rule: str | None = "folder",
    split_rule: str | None = "folder",
    table: TableOptions = TableOptions(),
    annotations: AnnotationOptions = AnnotationOptions(),
    exclude: Collection[str] = (),
    rules: SkipRules = SkipRules(),
    listings: Path | None = None,
) -> Source:
    """Open the source that a user names.

    Args:
        source: a folder; a manifest (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``, ``.json``) or a table in memory;
            Parquet files that hold the images, or a folder or glob of them; an image or a glob (also with ``**``); an
            archive (``.tar``, ``.zip``); a prefix of a bucket (``s3://bucket/photos/``) or a file on a server; or
            several of them, but for tables.
        label_rule: ``"folder"`` takes the label from the folders' names; None takes none (splits stay).
        split_rule: ``"folder"`` takes the split from the folders' names; None takes none.
        table: how a manifest is read.
        annotations: which annotations of the photos are read, and what becomes an item.
        exclude: absolute folders never entered; stores are never entered anyway.
        rules: which names in folders are skipped, which files are embedded by their pages and frames, and what kind of
            items the space embeds.
        listings: the folder that keeps the listings of archives and tables; None keeps none.

    Raises:
        SourceNotFound: if nothing is named, or a folder, file or glob does not exist or has an unknown scheme.
        BadManifest: if a manifest cannot be used, or is given together with other sources or with exclusions.
        BadAnnotations: if annotations cannot be read, or are given together with several sources.
        SourceError: if ``label_rule`` or ``split_rule`` is unknown, or a server refuses or does not answer.
        MissingExtra: if a scheme needs a package that is not installed.
        PluginError: if an installed source plug-in cannot be used.
    """
    for what, rule in (("label", label_rule), ("split", split_rule)):
        if rule is not None and rule not in RULES:
            raise SourceError(f"unknown {what} rule {rule!r}; use 'folder', or None for no {what}s")
    if is_frame(source):
        if table.text_column is not None:
            raise BadManifest("text_column names a column of a file; write the table to a CSV or Parquet file")
        return Manifest(source, table)
    given = [source] if isinstance(source, str | os.PathLike) else source
    expanded = [name for given_name in given for name in expand_braces(os.fspath(given_name))]
    added = open_plug_in(expanded, labels=label_rule is not None, splits=split_rule is not None)
    if added is not None:
        is_plain = table == TableOptions(known_types=table.known_types) and rules.are_plain
        if not is_plain or annotations.paths or annotations.crops:
            raise BadManifest(f"{expanded[0]} is read by a plug-in; leave out the options for tables and folders")
        return added
    names = [_local_name(download_data_set(name) if scheme_of(name) == "hf" else name) for name in expanded]
    if len(names) == 1 and is_saved_data_set(names[0]):
        own = TableOptions(table.uri_column, text_column=table.text_column, known_types=table.known_types)
        if table != own or not rules.are_plain:
            raise BadManifest(f"{names[0]} is a saved data set; leave out the options for tables and folders")
        column, of_texts = table.text_column or table.uri_column, table.text_column is not None
        return SavedDataSet(names[0], column, splits=split_rule is not None, of_texts=of_texts)
    if not annotations.paths and len(names) == 1 and is_annotation_file(names[0]):
        annotations, names = replace(annotations, paths=tuple(names)), []
    if annotations.paths or annotations.crops:
        images = _folder_of_photos(names, annotations, table)
        labels, splits = label_rule is not None, split_rule is not None
        return open_annotations(images, annotations, table=table, labels=labels, splits=splits, rules=rules)
    if not names:
        raise SourceNotFound("no source was named; name a folder, images or a manifest")
    rows = open_parquet(names, table, splits=split_rule is not None, listings=listings)
    if rows is not None:
        _require_plain(rules, f"{names[0]} holds its images as rows")
        return rows
    if len(names) == 1 and is_manifest(names[0]):
        _require_plain(rules, f"{names[0]} names its images one by one")
        return TextRows(names[0], table) if table.text_column is not None else Manifest(names[0], table)
    for name in names:
        if is_manifest(name):
            raise BadManifest(f"{name} is given among others; give a table alone, or Parquet files of images together")
    refuse_unread_files(names, rules.modality)
    if table != TableOptions(known_types=table.known_types):
        raise BadManifest(f"{names[0]} is not a table; options such as --uri-column and --text-column are for tables")
    labels, splits = label_rule is not None, split_rule is not None
    archives = [name for name in names if is_archive_name(name)]
    remote = [name for name in names if is_remote(name) and name not in archives]
    local = [name for name in names if name not in archives and name not in remote]
    sources: list[Source] = (
        [_combine(local, labels=labels, splits=splits, exclude=exclude, rules=rules)] if local else []
    )
    if archives:
        sources.append(open_archives(archives, labels=labels, splits=splits, listings=listings, rules=rules))
    sources += open_remote(remote, labels=labels, splits=splits, rules=rules)
    files = sources[0] if len(sources) == 1 else ChainedSource(sources)
    hints = [hint for name in local if (hint := annotation_hint(name)) is not None]
    return PartsSource(files, rules.parts, rules.modality, listings, hints)


def _require_plain(rules: SkipRules, what: str) -> None:
    """Raise BadManifest if there are options for folders, which a table has no use for."""
    if rules.exclude or rules.hidden:
        raise BadManifest(f"{what}; leave out --exclude and --hidden")
    if not rules.are_plain:
        raise BadManifest(f"{what}; leave out --raw-pairs, --pages, --every and --key-frames, which are for folders")


def _folder_of_photos(names: Sequence[str], annotations: AnnotationOptions, table: TableOptions) -> str | None:
    """Return the folder or prefix of the photos that annotations name; None if none is named.

    Raises:
        BadAnnotations: if there are no annotations, or more than one folder of photos.
    """
    if not annotations.paths:
        raise BadAnnotations("--crops needs boxes; name the file or folder of annotations with --annotations")
    folders = [*names, *([] if table.root is None else [os.fspath(table.root)])]
    if len(folders) > 1 or any(not is_remote(name) and not os.path.isdir(name) for name in folders):  # noqa: PTH112
        raise BadAnnotations(
            f"annotations are read with one folder of photos, not with {', '.join(folders)}; name the folder that the "
            "names in the annotations start from"
        )
    return None if not folders else folders[0] if is_remote(folders[0]) else os.path.abspath(folders[0])  # noqa: PTH100


def _local_name(name: str) -> str:
    """Return the name as it can be opened; raise SourceNotFound if its scheme is unknown or it does not exist."""
    if is_remote(name):
        if is_manifest(name):
            raise SourceError(f"{name}: a table on a server is not read; copy it to a folder first")
        if not name.split("://", 1)[1].strip("/"):
            raise SourceNotFound(
                f"{name} names no server or bucket; write {name.split('://', maxsplit=1)[0]}://NAME/FOLDER"
            )
        return name
    scheme = remote_scheme(name)
    if scheme:
        raise SourceNotFound(f"{name}: {scheme}:// {REMOTE_CURE}")
    name = local_path(name, folder="") if scheme_of(name) else os.path.expanduser(name)  # noqa: PTH111 - Path drops the trailing components that matter to a glob
    name = existing_path(name)
    if not os.path.lexists(name) and not is_glob(name):
        raise SourceNotFound(f"{name or repr(name)} does not exist (looked in {Path.cwd()})")
    return name


def _combine(names: Sequence[str], *, labels: bool, splits: bool, exclude: Collection[str], rules: SkipRules) -> Source:
    """Return folders, globs and files as one source; the files are one part, in their order."""
    parts: list[LocalSource] = []
    files: list[str] = []
    folders = [name for name in names if not is_glob(name) and os.path.isdir(name)]  # noqa: PTH112
    above = dict(zip(folders, names_below_common([os.path.abspath(name) for name in folders]), strict=True))  # noqa: PTH100
    for name in names:
        if is_glob(name):
            parts.append(_require_match(Glob(name, labels=labels, splits=splits, exclude=exclude, rules=rules)))
        elif name in above:
            folder = Folder(name, labels=labels, splits=splits, exclude=exclude, rules=rules, above=above[name])
            parts.append(folder)
        else:
            files.append(name)
    if files:
        parts.insert(0, Files(files, labels=labels, splits=splits))
    parts = _drop_nested(parts)
    return parts[0] if len(parts) == 1 else CombinedSource(parts)


def _require_match(glob: Glob) -> Glob:
    """Return the glob; raise SourceNotFound if it matches nothing."""
    if next(glob.scan(), None) is None:
        raise SourceNotFound(f"no file matches {glob.description} (a folder is entered with /**)")
    return glob


def _drop_nested(parts: Sequence[LocalSource]) -> list[LocalSource]:
    """Leave out a folder inside another one that is given too, unless only a link leads there."""
    real = {p.root: os.path.realpath(p.root) for p in parts if isinstance(p, Folder)}
    out: list[LocalSource] = []
    for part in parts:
        if isinstance(part, Folder):
            above = [r for r in real if r != part.root and real[part.root] == replace_parent(part.root, r, real[r])]
            same = [p for p in out if isinstance(p, Folder) and p.root == part.root]
            if above or same:
                continue
        out.append(part)
    return out
