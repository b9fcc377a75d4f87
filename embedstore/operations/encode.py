"""Vectors of images and texts that are not items of the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import Tower
from embedstore.errors import BadBackbone, BadOption, ImageError, QueryError, SourceNotFound
from embedstore.modality import Modality
from embedstore.operations import query_encoder
from embedstore.operations.ingest import check_text_column
from embedstore.operations.query_arguments import ImageQuery, parse_image, parse_images, parse_parts
from embedstore.operations.session import Session
from embedstore.operations.text_encoder import TextEncoder
from embedstore.pipeline.decode import DecodeSettings, ImageSettings
from embedstore.pipeline.decode_method import stack_pixels
from embedstore.pipeline.encoder import EncoderRequest, RunEncoder, prepare_encoder
from embedstore.pipeline.run import EmbedProgress
from embedstore.pipeline.unstored import FixedBatches, ListedFiles, UnstoredImage, encode_unstored
from embedstore.reports.progress import Progress, embedding_progress
from embedstore.resources import available_cores
from embedstore.sources.memory import MemoryImages, NamedImage
from embedstore.sources.open import open_source
from embedstore.sources.skip_rules import SkipRules, skipped_summary
from embedstore.sources.source import Source
from embedstore.sources.table_options import TableOptions
from embedstore.storage.commit import storable_rows
from embedstore.storage.spaces import SpaceRecord
from embedstore.types import Failure, FailureReason, ImageRef

Images: TypeAlias = "ImageQuery | Sequence[ImageQuery]"
FEW_IMAGES = 256  # up to so many, the tower of searches is quicker than loading a network for a run


@dataclass(frozen=True)
class NewItems:
    """What a caller passed to have it embedded without storing it.

    Attributes:
        named: names of files, folders, globs, archives, uris or one table; or images in memory.
        table: how a table is read, if one was named.
    """

    named: Any
    table: TableOptions = field(default_factory=TableOptions)


@dataclass(frozen=True)
class ImageSet:
    """Images that a caller named or holds in memory.

    Attributes:
        source: reads them.
        entries: the entries of its scan.
        skipped: how many files of each kind the scan left out.
    """

    source: Source
    entries: list[ImageRef | Failure]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def refs(self) -> list[ImageRef]:
        """The entries that can be read."""
        return [e for e in self.entries if isinstance(e, ImageRef)]

    @property
    def notices(self) -> list[str]:
        """What a person should know about the reading, one sentence each."""
        return [*self.source.notices, *([skipped_summary(self.skipped)] if self.skipped else [])]


def encode(session: Session, texts: Any, images: Any, *, space: str | None, progress: Progress) -> NDArray[np.float32]:
    """Return vectors of texts or images; see :meth:`embedstore.Store.encode`."""
    if (texts is None) == (images is None):
        raise QueryError(
            "give texts or images, one of the two: store.encode(texts=[...]) or store.encode(images=[...])"
        )
    record = session.space(space)
    if texts is not None:
        return _encode_texts(session, record, texts)
    found = list(
        encode_images(session, record, open_images(NewItems(images), record.space.modality), progress=progress)
    )
    for image in found:
        if image.failure is not None:
            raise ImageError(image.failure.reason, f"{image.uri}: {image.failure.detail}")
    return np.stack([image.vector for image in found if image.vector is not None])


def open_images(items: NewItems, modality: Modality = Modality.IMAGE) -> ImageSet:
    """Return the images that a caller passed: names of files, folders, globs, archives or uris, or images in memory.

    Args:
        items: as passed.
        modality: what the space reads: other modalities have names of files in the place of images.

    Raises:
        SourceNotFound: if there is no image, or what is named does not exist.
        SourceError: if a server refuses or does not answer.
        BadManifest: if the table cannot be read or has no such column, or options of a table are for something else.
        BadEncoding: if the table has another encoding.
        BadOption: if a column of texts is named for a space of another modality, there is no such encoding, or
            options of a table are given for images in memory.
        QueryError: if one is neither a name nor an image.
    """
    parts = parse_images(items.named)
    if not parts:
        raise SourceNotFound("no image was named; name files, folders or uris")
    check_text_column(items.table.text_column, modality)
    if all(isinstance(part, str | os.PathLike) for part in parts):
        names, rules = [os.fspath(part) for part in parts], SkipRules(modality=modality)
        source: Source = open_source(names, label_rule=None, split_rule=None, table=items.table, rules=rules)
    else:
        if items.table != TableOptions():
            raise BadOption(
                "text_column, uri_column, root and encoding are for the file of a table, not for items in memory; "
                "leave them out, or write the items to a CSV or Parquet file"
            )
        source = MemoryImages([_named_image(number, part) for number, part in enumerate(parts, 1)])
    scan = source.scan()
    entries = list(scan)
    if not entries:
        raise SourceNotFound(f"{source.description} has no {modality.plural[:-1]}")
    return ImageSet(source, entries, scan.summary.skipped)


def encode_images(
    session: Session,
    record: SpaceRecord,
    images: ImageSet,
    *,
    progress: Progress,
    notify: Callable[[str], None] = lambda _: None,
) -> Iterator[UnstoredImage]:
    """Yield every image with its vector as the space would store it, in order.

    Args:
        session: the open store.
        record: the space.
        images: what is embedded.
        progress: see :class:`embedstore.Store`.
        notify: called at the end with each thing that a person should know about the encoder's work.

    Raises:
        BadBackbone: if the space has no network.
        WeightsNotFound: if the weights are not on this machine.
    """
    failed, total = 0, len(images.entries)
    with embedding_progress(progress) as report, _open_encoder(session, record, images) as (encoder, settings):
        encoded = encode_unstored(images.source, images.entries, encoder, settings)
        for done, image in enumerate(encoded, 1):
            stored = _as_stored(record, image)
            failed += stored.failure is not None
            report(EmbedProgress(done, total, done - failed, failed, record.space.modality))
            yield stored
        for notice in encoder.notices:
            notify(notice)


@contextmanager
def _open_encoder(
    session: Session, record: SpaceRecord, images: ImageSet
) -> Iterator[tuple[RunEncoder | FixedBatches, DecodeSettings]]:
    """Open the tower of searches for a few images, and what a run would use for many and for other modalities."""
    refs, preprocess = images.refs, record.space.preprocess
    if preprocess is None and record.space.input is None:
        raise BadBackbone(f"space {record.name} holds precomputed vectors, and no network that makes them of images")
    if preprocess is not None and len(refs) <= FEW_IMAGES:
        tower = query_encoder.encoder(session, record, Tower.IMAGE)
        batches = FixedBatches(lambda pixels: tower.encode_images(stack_pixels(pixels)))
        yield batches, ImageSettings(preprocess, available_cores())
        return
    o = session.options
    run = prepare_encoder(
        lambda: session.backbones_on_devices(record),
        images.source,
        ListedFiles(refs),
        EncoderRequest(o.runtime, o.decoder, available_cores(), on_cpu=session.computes_on_cpu),
        space=record.space,
        towers_folder=session.storage.layout.towers_folder(record.key),
    )
    try:
        yield run, run.decode_settings(available_cores(), isolate_all=False)
    finally:
        run.close()


def _as_stored(record: SpaceRecord, image: UnstoredImage) -> UnstoredImage:
    """Return the image with its vector in the precision of the space, or with a failure if it cannot be stored."""
    if image.vector is None:
        return image
    if not storable_rows(image.vector[None], record.dtype)[0]:
        detail = f"the backbone's vector is zero, not finite, or cannot be stored as {record.dtype} exactly enough"
        return UnstoredImage(image.uri, None, Failure(image.uri, image.uri, 0, 0, FailureReason.NOT_FINITE, detail))
    return UnstoredImage(image.uri, image.vector.astype(record.dtype).astype(np.float32), None)


def _encode_texts(session: Session, record: SpaceRecord, texts: Any) -> NDArray[np.float32]:
    """Return the vectors of texts, without a prompt template."""
    sentences = parse_parts(texts, "texts")
    wrong = [t for t in sentences if not isinstance(t, str) or not t.strip()]
    if wrong or not sentences:
        raise QueryError(f"texts are not empty, and at least one; {len(wrong)} of {len(sentences)} are no text")
    return TextEncoder(query_encoder.encoder(session, record, Tower.TEXT), []).encode_texts(sentences)


def _named_image(number: int, value: Any) -> NamedImage:
    """Return one image with a name, and its bytes unless it is a file."""
    image = parse_image(value)
    if isinstance(image.source, str):
        return image.source, None
    return f"image {number}", image.source if isinstance(image.source, bytes) else _png_bytes(image.source)


def _png_bytes(image: Any) -> bytes:
    """Return a PIL image, RGB and upright, as the bytes of a PNG file, which keeps every pixel."""
    import io

    from embedstore.media.image.decode import to_rgb_image

    data = io.BytesIO()
    to_rgb_image(image).save(data, "PNG", compress_level=1)
    return data.getvalue()
