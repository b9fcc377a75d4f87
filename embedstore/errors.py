"""Everything that can go wrong and is not a bug.

Each error says what, where, what was expected, what was found, and the cure; the command line prints it as
one line and exits 1. Every class also derives from the fitting builtin, so ``except FileNotFoundError`` works.

::

    EmbedstoreError
    ├── StoreError
    │   ├── StoreNotFound      (FileNotFoundError)  no folder there
    │   ├── NotAStore          (ValueError)         a folder, but not one of ours
    │   ├── StoreExists        (FileExistsError)    create would overwrite
    │   ├── StoreTooNew        (ValueError)         written by a later embedstore
    │   ├── StoreBusy          (BlockingIOError)    another process is writing
    │   ├── StoreIOError       (OSError)            the disk is full, fails, or refuses to be written
    │   └── StoreDamaged       (ValueError)         bytes are not what was written
    ├── SpaceError
    │   ├── SpaceNotFound      (LookupError)        no space of that name, or none yet
    │   └── SpaceMismatch      (ValueError)         vectors of another space
    │       └── DimensionMismatch                   ... visible already in the dimension
    ├── BackboneError
    │   ├── UnknownBackbone    (LookupError)        no such architecture or tag
    │   ├── WeightsNotFound    (FileNotFoundError)  weights are not on this machine
    │   ├── WeightsMismatch    (ValueError)         weights do not fit the architecture
    │   ├── BadBackbone        (ValueError)         an option the backbone does not have
    │   ├── NoTextTower        (ValueError)         words asked of an image-only space
    │   ├── RuntimeMismatch    (ValueError)         another runtime gives other vectors than the eager network
    │   └── CodeNotAllowed     (PermissionError)    a store names code the user did not allow
    ├── SourceError
    │   ├── SourceNotFound     (FileNotFoundError)  no such folder, file or glob
    │   ├── NoImages           (ValueError)         nothing to embed
    │   ├── BadManifest        (ValueError)         a table without uri, or not a table
    │   └── BadVectors         (ValueError)         wrong shape, NaN, infinite or zero vectors
    ├── ImageError             (ValueError)         one image cannot be used; carries the reason
    ├── QueryError             (ValueError)
    │   ├── BadFilter                               a --where that is not one boolean expression
    │   └── UnknownColumn                           ... that names a column the items lack
    ├── HeadError
    │   ├── UnknownHead        (LookupError)        no classifier of that name
    │   └── BadHead            (ValueError)         an option the head lacks, or a head that cannot be stored so
    ├── FinetuneError          (ValueError)         fine-tuning that cannot be done so
    ├── LabelError             (ValueError)         labels cannot support the question asked
    ├── OutputError            (OSError)            a file that the user named cannot be written
    ├── UnknownOption          (TypeError)          a keyword that a function does not have
    └── MissingExtra           (ImportError)        an optional package is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedstore.types import FailureReason


class EmbedstoreError(Exception):
    """Root of every error a user can cause or meet."""


class StoreError(EmbedstoreError):
    """The store on disk."""


class StoreNotFound(StoreError, FileNotFoundError):
    """No folder there."""


class NotAStore(StoreError, ValueError):
    """A folder or file, but not a store."""


class StoreExists(StoreError, FileExistsError):
    """``create`` would overwrite something."""


class StoreTooNew(StoreError, ValueError):
    """Written by a later embedstore."""


class StoreBusy(StoreError, BlockingIOError):
    """Another process holds what is needed."""


class StoreIOError(StoreError, OSError):
    """The disk is full, fails, or may not be written; what was acknowledged before is kept."""


class StoreDamaged(StoreError, ValueError):
    """Stored bytes are not the bytes that were written."""


class SpaceError(EmbedstoreError):
    """What a vector means."""


class SpaceNotFound(SpaceError, LookupError):
    """No space of that name, or none yet."""


class SpaceMismatch(SpaceError, ValueError):
    """Vectors, weights or a head of another space."""


class DimensionMismatch(SpaceMismatch):
    """Vectors of another dimension."""


class BackboneError(EmbedstoreError):
    """The network that makes vectors."""


class UnknownBackbone(BackboneError, LookupError):
    """No such architecture or pre-trained tag."""


class WeightsNotFound(BackboneError, FileNotFoundError):
    """The weights are not on this machine."""


class WeightsMismatch(BackboneError, ValueError):
    """The weights do not fit the architecture."""


class BadBackbone(BackboneError, ValueError):
    """An option that the backbone does not have."""


class NoTextTower(BackboneError, ValueError):
    """Words asked of a space that knows images only."""


class RuntimeMismatch(BackboneError, ValueError):
    """Another runtime gives other vectors than the eager network."""


class CodeNotAllowed(BackboneError, PermissionError):
    """A store names a user's own code, and this user has not allowed it."""


class SourceError(EmbedstoreError):
    """Where images come from."""


class SourceNotFound(SourceError, FileNotFoundError):
    """No such folder, file or glob."""


class NoImages(SourceError, ValueError):
    """Nothing to embed."""


class BadManifest(SourceError, ValueError):
    """A table that does not say where the images are."""


class BadVectors(SourceError, ValueError):
    """Precomputed vectors that cannot be stored."""


class ImageError(EmbedstoreError, ValueError):
    """One image cannot be used.

    Args:
        reason: the code that goes into the ``failures`` table.
        detail: one line for a person.
    """

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class QueryError(EmbedstoreError, ValueError):
    """A question that cannot be asked."""


class BadFilter(QueryError):
    """A filter that is not one boolean expression over the items."""


class UnknownColumn(QueryError):
    """A filter that names a column the items lack."""


class HeadError(EmbedstoreError):
    """A classifier over the vectors."""


class UnknownHead(HeadError, LookupError):
    """No classifier of that name."""


class BadHead(HeadError, ValueError):
    """An option that the head does not have, or a head that cannot be stored or exported so."""


class FinetuneError(EmbedstoreError, ValueError):
    """Fine-tuning with settings that do not fit the network, the data or each other."""


class LabelError(EmbedstoreError, ValueError):
    """Labels that cannot support the question asked."""


class OutputError(EmbedstoreError, OSError):
    """A file that the user named cannot be written."""


class UnknownOption(EmbedstoreError, TypeError):
    """A keyword that a function does not have."""


class MissingExtra(EmbedstoreError, ImportError):
    """An optional package is not installed."""


def did_you_mean(name: str, known: Iterable[str], n: int = 3) -> str:
    """The known names nearest to ``name``, as the end of an error message ("" when none is near)."""
    found = difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)
    return f"; did you mean {' or '.join(found)}?" if found else ""
