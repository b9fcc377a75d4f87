"""Every error that a user can cause or meet.

A message says what happened, where, what was expected, what was found, and the cure. The command line prints it as one
line and exits with status 1. Every class also derives from the fitting builtin, so ``except FileNotFoundError`` works.

::

    EmbedstoreError
    ├── StoreError
    │   ├── StoreNotFound      (FileNotFoundError)  there is no folder
    │   ├── NotAStore          (ValueError)         the folder is not a store
    │   ├── StoreExists        (FileExistsError)    something would be overwritten
    │   ├── StoreTooNew        (ValueError)         a later embedstore wrote the store
    │   ├── StoreBusy          (BlockingIOError)    another process is writing
    │   ├── StoreIOError       (OSError)            the disk is full, fails, or cannot be written
    │   │   └── StoreUnreadable                     a file cannot be read now; it may be whole
    │   ├── StoreDamaged       (ValueError)         stored bytes are not what was written
    │   ├── UnsafeStore        (ValueError)         the store holds what embedstore never writes: links, views, macros
    │   └── PartsError         (ValueError)         a plan of parts that is missing or unfinished, or has no such part
    ├── SpaceError
    │   ├── SpaceNotFound      (LookupError)        there is no space of that name, or none yet
    │   └── SpaceMismatch      (ValueError)         vectors, weights or a head of another space
    │       └── DimensionMismatch                   vectors of another dimension
    ├── BackboneError
    │   ├── UnknownBackbone    (LookupError)        there is no such architecture or tag
    │   ├── WeightsNotFound    (FileNotFoundError)  the weights are not on this machine
    │   ├── WeightsMismatch    (ValueError)         the weights do not fit the architecture
    │   ├── BadBackbone        (ValueError)         the backbone cannot be built or used as requested
    │   ├── NoTextTower        (ValueError)         a text query in a space of an image-only backbone
    │   ├── RuntimeMismatch    (ValueError)         a runtime whose vectors differ from the eager backbone's
    │   └── CodeNotAllowed     (PermissionError)    the store names code that the user did not allow
    ├── SourceError
    │   ├── SourceNotFound     (FileNotFoundError)  there is no such folder, file or glob
    │   ├── NoImages           (ValueError)         there is nothing to embed
    │   ├── BadManifest        (ValueError)         a table without uris, or that cannot be read
    │   │   └── BadEncoding                         a text file in another encoding
    │   ├── BadAnnotations     (ValueError)         annotations that cannot be read or contradict themselves
    │   └── BadVectors         (ValueError)         a wrong shape, or NaN, infinite or zero vectors
    ├── ItemError              (ValueError)         one file, text or sound cannot be used; has the reason
    │   ├── ImageError                              one image
    │   ├── TextError                               one text
    │   └── AudioError                              one sound
    ├── QueryError             (ValueError)         a query or change that cannot be done
    │   ├── BadFilter                               a filter that is not one condition over the items
    │   ├── QueryTimeout       (TimeoutError)       a query or filter that takes longer than its limit
    │   ├── QueryTooLarge      (MemoryError)        a query that takes more memory than its limit
    │   ├── EditConflict                            values that changed since they were shown
    │   ├── ItemNotFound       (LookupError)        there is no such item or selection
    │   └── UnknownColumn                           a column that the items lack
    ├── HeadError
    │   ├── UnknownHead        (LookupError)        there is no classifier of that name
    │   └── BadHead            (ValueError)         an option that the head lacks, or a head that cannot be stored
    ├── FinetuneError          (ValueError)         settings that do not fit the network, the data or each other
    ├── LabelError             (ValueError)         the labels cannot support what was requested
    │   └── NoLabels                                no item has a label and a vector
    ├── BadOption              (ValueError)         a value that an option does not accept, such as a dtype
    ├── UnknownOption          (TypeError)          a keyword that a function does not have
    ├── EngineError            (RuntimeError)       a cluster that cannot be used, or workers that failed too often
    ├── ReplicaError           (ConnectionError)    a vector database that cannot be used, or holds something else
    ├── OutputError            (OSError)            a file that the user named cannot be written
    ├── ServerError            (OSError)            the page cannot be served at its address
    ├── MissingExtra           (ImportError)        an optional package is not installed
    └── PluginError            (ImportError)        an installed plug-in cannot be used
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedstore.types import FailureReason


class EmbedstoreError(Exception):
    """Root of every error that a user can cause or meet."""

    def __str__(self) -> str:
        """The message, which every stream can write: a name that is not Unicode is shown escaped."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class StoreError(EmbedstoreError):
    """Something is wrong with the store on disk."""


class StoreNotFound(StoreError, FileNotFoundError):
    """There is no folder."""


class NotAStore(StoreError, ValueError):
    """The folder or file is not a store."""


class StoreExists(StoreError, FileExistsError):
    """Something would be overwritten."""


class StoreTooNew(StoreError, ValueError):
    """A later embedstore wrote the store."""


class StoreBusy(StoreError, BlockingIOError):
    """Another process is writing."""


class StoreIOError(StoreError, OSError):
    """The disk is full, fails, or cannot be written; what was acknowledged before is kept."""


class StoreUnreadable(StoreIOError):
    """A file of the store cannot be read now; it was not read and found wrong, so it may be whole."""


class StoreDamaged(StoreError, ValueError):
    """Stored bytes are not the bytes that were written."""


class UnsafeStore(StoreError, ValueError):
    """The store holds what embedstore never writes, such as links, views or macros, and was not opened."""


class PartsError(StoreError, ValueError):
    """A plan of parts is missing or unfinished, or has no such part."""


class SpaceError(EmbedstoreError):
    """Something is wrong with a space."""


class SpaceNotFound(SpaceError, LookupError):
    """There is no space of that name, or none yet."""


class SpaceMismatch(SpaceError, ValueError):
    """Vectors, weights or a head belong to another space."""


class DimensionMismatch(SpaceMismatch):
    """Vectors have another dimension."""


class BackboneError(EmbedstoreError):
    """Something is wrong with a backbone."""


class UnknownBackbone(BackboneError, LookupError):
    """There is no such architecture or pre-trained tag."""


class WeightsNotFound(BackboneError, FileNotFoundError):
    """The weights are not on this machine."""


class WeightsMismatch(BackboneError, ValueError):
    """The weights do not fit the architecture."""


class BadBackbone(BackboneError, ValueError):
    """The backbone cannot be built or used as requested."""


class NoTextTower(BackboneError, ValueError):
    """A text query meets a space of an image-only backbone."""


class RuntimeMismatch(BackboneError, ValueError):
    """A runtime gives vectors that differ from the eager backbone's."""


class CodeNotAllowed(BackboneError, PermissionError):
    """The store names code that the user did not allow."""


class SourceError(EmbedstoreError):
    """Something is wrong with a source of items."""


class SourceNotFound(SourceError, FileNotFoundError):
    """There is no such folder, file or glob."""


class NoImages(SourceError, ValueError):
    """There is nothing to embed."""


class BadManifest(SourceError, ValueError):
    """A table has no uris or cannot be read."""


class BadEncoding(BadManifest):
    """A text file is not text in its encoding."""


class BadAnnotations(SourceError, ValueError):
    """Annotations cannot be read or contradict themselves."""


class BadVectors(SourceError, ValueError):
    """Precomputed vectors cannot be stored."""


class ItemError(EmbedstoreError, ValueError):
    """One file, text or sound cannot be used.

    Args:
        reason: the code that the table ``failures`` stores.
        detail: one line that says more.
    """

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ImageError(ItemError):
    """One image cannot be used, or one file of any kind cannot be read."""


class TextError(ItemError):
    """One text cannot be used."""


class AudioError(ItemError):
    """One sound cannot be used."""


class QueryError(EmbedstoreError, ValueError):
    """A query or a change cannot be done."""


class BadFilter(QueryError):
    """A filter is not one condition over the items.

    Attributes:
        position: where in the filter the error is, in characters from 0; None where that is not known.
    """

    position: int | None = None


class QueryTimeout(QueryError, TimeoutError):
    """A query or a filter takes longer than its limit."""


class QueryTooLarge(QueryError, MemoryError):
    """A query takes more memory than its limit."""


class EditConflict(QueryError):
    """Values changed since they were shown; nothing was changed.

    Args:
        message: the sentence for the user.
        items: ids of the items, or the first of them.
    """

    def __init__(self, message: str, items: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.items = list(items)


class ItemNotFound(QueryError, LookupError):
    """There is no such item or selection."""


class UnknownColumn(QueryError):
    """The items lack a column.

    Attributes:
        position: where in the filter it is named, in characters from 0; None where that is not known.
    """

    position: int | None = None


class HeadError(EmbedstoreError):
    """Something is wrong with a classifier."""


class UnknownHead(HeadError, LookupError):
    """There is no classifier of that name."""


class BadHead(HeadError, ValueError):
    """The head lacks an option, or cannot be stored or exported."""


class FinetuneError(EmbedstoreError, ValueError):
    """Settings do not fit the network, the data or each other."""


class LabelError(EmbedstoreError, ValueError):
    """The labels cannot support what was requested."""


class NoLabels(LabelError):
    """No item has a label and a vector."""


class OutputError(EmbedstoreError, OSError):
    """A file that the user named cannot be written."""


class BadOption(EmbedstoreError, ValueError):
    """An option does not accept this value."""


class UnknownOption(EmbedstoreError, TypeError):
    """A function does not have this keyword."""


class ServerError(EmbedstoreError, OSError):
    """The page cannot be served at its address."""


class EngineError(EmbedstoreError, RuntimeError):
    """A cluster cannot be used, or its workers failed too often."""


class ReplicaError(EmbedstoreError, ConnectionError):
    """A vector database cannot be used, or holds something else."""


class MissingExtra(EmbedstoreError, ImportError):
    """An optional package is not installed."""


class PluginError(EmbedstoreError, ImportError):
    """An installed plug-in cannot be loaded or does not give what its entry point promises."""


def did_you_mean(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return the known names nearest to ``name`` in any case as the end of a message, ``""`` if none is near."""
    by_folded: dict[str, list[str]] = {}
    for known_name in known:
        by_folded.setdefault(known_name.casefold(), []).append(known_name)
    near = difflib.get_close_matches(name.casefold(), by_folded, n=n, cutoff=0.5)
    found = [known_name for folded in near for known_name in by_folded[folded]][:n]
    return f"; did you mean {' or '.join(found)}?" if found else ""
