"""Annotations as a source: the photos that they list, or the boxes in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from embedstore.errors import BadAnnotations
from embedstore.sources.annotations.coco import read_coco
from embedstore.sources.annotations.fiftyone import read_fiftyone
from embedstore.sources.annotations.formats import AnnotationFormat, find_annotations
from embedstore.sources.annotations.image_files import ImageFiles
from embedstore.sources.annotations.options import AnnotationOptions
from embedstore.sources.annotations.photo_names import PhotoNames, split_of_file, split_of_name
from embedstore.sources.annotations.records import Photo, Record
from embedstore.sources.annotations.tables import AnnotationTables
from embedstore.sources.annotations.voc import read_voc
from embedstore.sources.annotations.yolo import read_yolo
from embedstore.sources.local_files import existing_path
from embedstore.sources.locations import stat_locations
from embedstore.sources.manifest import Manifest, open_table
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import LocationSource, Scan, ScanSummary, Source
from embedstore.sources.table_entries import TableEntries
from embedstore.sources.table_options import TableOptions
from embedstore.types import Failure, ImageRef

FILE_NAME = "file_name"  # the column of an image folder's table (Hugging Face, ImageFolder)

_JSON_READERS: Mapping[AnnotationFormat, Callable[[str], Iterator[Record]]] = {
    AnnotationFormat.COCO: read_coco,
    AnnotationFormat.FIFTYONE: read_fiftyone,
}
_FILE_READERS: Mapping[AnnotationFormat, Callable[[str, ImageFiles], Iterator[Record]]] = {
    AnnotationFormat.YOLO: read_yolo,
    AnnotationFormat.VOC: read_voc,
}


def open_annotations(
    images: str | None,
    options: AnnotationOptions,
    *,
    table: TableOptions,
    labels: bool,
    splits: bool,
    rules: SkipRules,
) -> Source:
    """Open annotations as a source.

    Args:
        images: the folder, prefix or archive that the names of photos start from; None looks for it.
        options: which annotations, and what becomes an item.
        table: how a table of an image folder is read.
        labels: take the label from the annotations.
        splits: take the split from the annotations, and from names of files and folders.
        rules: which names are skipped in folders of photos.

    Raises:
        SourceNotFound: if there are no such annotations.
        BadAnnotations: if they cannot be read or contradict themselves.
        BadManifest: if the table of an image folder cannot be used.
    """
    found = [find_annotations(path) for path in options.paths]
    tables = [path for kind, path in found if kind is AnnotationFormat.METADATA]
    if not tables:
        return AnnotatedSource(found, images, crops=options.crops, labels=labels, splits=splits, rules=rules)
    if options.crops:
        raise BadAnnotations(f"{tables[0]} has no boxes; leave out --crops")
    if len(found) > 1:
        raise BadAnnotations(f"{tables[0]} is a table, and is read alone; embed the others in a run of their own")
    return _open_metadata(tables[0], images, table, splits=splits)


def _open_metadata(path: str, images: str | None, options: TableOptions, *, splits: bool) -> Manifest:
    """Return the table of an image folder, with the split that its folder states."""
    options = replace(options, uri_column=options.uri_column or FILE_NAME, root=options.root or images)
    table = open_table(path, options)
    split = split_of_file(path) if splits else None
    if split and "split" not in {name.lower() for name in table.columns()}:
        table.con.execute(f"ALTER TABLE given ADD COLUMN split VARCHAR DEFAULT '{split}'")
    return Manifest(table, options)


class AnnotatedSource(LocationSource):
    """The photos that annotations list, or the boxes in them.

    Args:
        annotations: format and path of each file or folder.
        images: the folder or prefix that the names of photos start from, or None.
        crops: make an item of every box, in place of the photos.
        labels: take the label from the annotations.
        splits: take the split from them.
        rules: which names are skipped in folders of photos.

    Raises:
        BadAnnotations: if they cannot be read or contradict themselves.
    """

    overrides_metadata = True

    def __init__(
        self,
        annotations: Sequence[tuple[AnnotationFormat, str]],
        images: str | None,
        *,
        crops: bool,
        labels: bool,
        splits: bool,
        rules: SkipRules,
    ) -> None:
        first = annotations[0][1]
        self.description = first if len(annotations) == 1 else f"{len(annotations)} files of annotations, first {first}"
        self._files = ImageFiles(images, rules)
        self._splits = splits
        tables = AnnotationTables(self.description)
        names = [self._add(tables, n, kind, path) for n, (kind, path) in enumerate(annotations)]
        table = tables.build(crops=crops)
        self._skipped = tables.skipped
        self._notices = [*table.notices, *(note for name in names for note in name.notes())]
        roles = {role: role for role in ("uri", "label", "split", "group")}
        self._entries = TableEntries(table, roles=roles, path_of=lambda _, uri: existing_path(uri or ""))
        self._own_columns = self._entries
        self._labels = labels
        self.stated_columns = tuple(
            role for role, is_stated in (("label", labels), ("split", splits), ("group", crops)) if is_stated
        )

    @property
    def notices(self) -> list[str]:
        """What a person should know about the reading, one sentence each."""
        return [*self._notices, *self._entries.notes]

    def scan(self) -> Scan:
        """Start a pass over the photos or boxes; a photo that does not exist is a failure."""
        summary = ScanSummary(self._skipped + self._files.summary.skipped)
        return Scan(self._references(), summary)

    def _references(self) -> Iterator[ImageRef | Failure]:
        """Yield what could not be read of the annotations, then every item."""
        yield from self._files.failures
        for chunk in self._entries.chunks():
            yield from stat_locations(
                (path, label if self._labels else None, split, group) for _, path, label, split, group in chunk
            )

    def _add(self, tables: AnnotationTables, number: int, kind: AnnotationFormat, path: str) -> PhotoNames:
        """Read one file or folder of annotations."""
        names = PhotoNames(path, self._files.root)
        reader = _JSON_READERS.get(kind)
        records = reader(path) if reader else _FILE_READERS[kind](path, self._files)
        own = split_of_file(path) if reader else None
        tables.add(number, (self._with_split(record, own) for record in records), names.uri)
        return names

    def _with_split(self, record: Record, split_of_annotations: str | None) -> Record:
        """Return a photo with its split: as stated, else by its folders, else by the file of annotations."""
        if not isinstance(record, Photo):
            return record
        if not self._splits:
            return replace(record, split=None)
        return replace(record, split=record.split or split_of_name(record.name) or split_of_annotations)
