"""Label and split from the names of folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from embedstore.errors import SourceError
from embedstore.sources.skip_rules import SOUND_SUFFIXES, TEXT_SUFFIXES
from embedstore.text_form import clean_name, is_absent, known_split, resembles_split, split_words
from embedstore.types import Failure, ImageRef

# Images that count when folders of one level are compared: a folder of annotations next to train and test is no split.
IMAGE_SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .tif .tiff .webp .avif .heic .heif .jp2 .jxl .ppm .pgm .dng .cr2 .nef".split()
)
_COUNTED_SUFFIXES = (*IMAGE_SUFFIXES, *TEXT_SUFFIXES, *SOUND_SUFFIXES)  # a scan yields those of one modality
_MAX_LISTED_FOLDERS = 5

NO_SPLIT = (  # the end of a message
    "images there would be in no split; rename the folder to train, val or test (or another word for one), or take no "
    "splits from folders with --splits-from none"
)
NO_FOLDERS = ("", ".", "..")  # in the path of a file
NAMED_ROLES = ("label", "split")  # what the names of folders state

LabelAndSplit = tuple[str | None, str | None]


def label_and_split(folders: Sequence[str], *, root: str = "", splits: bool = True) -> LabelAndSplit:
    """Return label and split of a file from the folders above it.

    One folder may name the split; of the others the last is the label. Where several could be the split, the file's
    own folder is taken as a class (CIFAR-100 and COCO have one called "train"), and the nearest of the others is the
    split.

    Args:
        folders: the components of the path, outermost first, without the file name.
        root: the name of the folder that the user gave, which may be a split but never a label.
        splits: whether folders may name splits at all.

    Returns:
        ``(label, split)``; either may be None.
    """
    folders = [name for name in folders if name not in NO_FOLDERS]
    named = [i for i, name in enumerate(folders) if splits and known_split(name)]
    if not named:
        split = known_split(root) if splits else None
        return (clean_name(folders[-1]) if folders else None), (split.value if split else None)
    chosen = named[-2] if len(named) > 1 and named[-1] == len(folders) - 1 else named[-1]
    rest = [name for i, name in enumerate(folders) if i != chosen]
    split = known_split(folders[chosen])
    return (clean_name(rest[-1]) if rest else None), (split.value if split else None)


def from_names(entry: ImageRef | Failure) -> ImageRef | Failure:
    """Return a reference whose label and split are those of the names of folders."""
    return replace(entry, named_roles=NAMED_ROLES) if isinstance(entry, ImageRef) else entry


def sidecar_split(path: str, word: str | None) -> str | None:
    """Return the split that a sidecar file of an image states; None if it is absent.

    Raises:
        SourceError: if the word does not name a split.
    """
    if word is None or is_absent(word):
        return None
    split = known_split(word)
    if split is None:
        raise SourceError(
            f"{path} has the split {word!r} in a sidecar file, which is no known split; use {split_words()}"
        )
    return split.value


class SplitFolderCheck:
    """Refuse folders that seem to name a split and do not: their items would be in no split.

    These are folders next to one that names a split, and names such as ``validation2`` of the folder that the user gave
    or of one that has folders of classes.

    Args:
        root: the folder that the user gave.
        above: the names down to it that count; by default its own.
    """

    def __init__(self, root: str, above: Sequence[str] | None = None) -> None:
        self._root = root
        self._prefix = root.rstrip("/") + "/"
        self._is_split = any(map(known_split, (os.path.basename(root),) if above is None else above))  # noqa: PTH119
        self._levels: dict[tuple[str, ...], set[str]] = {}
        self._last_folders: tuple[str, ...] = ()

    def watch(self, entries: Iterator[ImageRef | Failure]) -> Iterator[ImageRef | Failure]:
        """Yield the entries of a scan, and check the folders of the images at its end.

        Raises:
            SourceError: if a folder that does not name a split is next to one that does.
        """
        counted = ""  # the folder that was added last
        for entry in entries:
            if isinstance(entry, ImageRef):
                folder, name = os.path.split(entry.path)
                if folder == counted:
                    yield entry
                    continue
                below = folder.removeprefix(self._prefix).split("/") if folder.startswith(self._prefix) else ()
                self.add(below, name)
            yield entry
        self.check()

    def add(self, folders: Sequence[str], name: str) -> None:
        """Add one file: the folders above it, outermost first, and its name; other suffixes are ignored."""
        below = tuple(folders)
        if below == self._last_folders or not name.lower().endswith(_COUNTED_SUFFIXES):
            return
        self._last_folders = below
        for depth, child in enumerate(below):
            self._levels.setdefault(below[:depth], set()).add(child)
            if known_split(child):
                break

    def check(self) -> None:
        """Raise SourceError for the first folder that seems to name a split and does not."""
        if self._is_split:
            return
        self._check_root()
        for above, names in sorted(self._levels.items()):
            splits = sorted(n for n in names if known_split(n))
            others = sorted(n for n in names if n not in splits and (splits or self._resembles_split((*above, n))))
            if others:
                listed = ", ".join(map(repr, others[:_MAX_LISTED_FOLDERS]))
                more = f" and {len(others) - _MAX_LISTED_FOLDERS} more" if len(others) > _MAX_LISTED_FOLDERS else ""
                place = os.path.join(self._root, *above) or Path.cwd()  # noqa: PTH118
                beside = f" next to the split {', '.join(splits)}" if splits else ", which names no split"
                raise SourceError(f"{place} has {listed}{more}{beside}: {NO_SPLIT}")

    def _check_root(self) -> None:
        """Raise SourceError if the name of the folder that the user gave resembles a split, and none is below it."""
        name = os.path.basename(self._root)  # noqa: PTH119
        if self._levels and resembles_split(name) and not any(known_split(n) for n in self._levels[()]):
            raise SourceError(f"{self._root}: {name!r} names no split: {NO_SPLIT}")

    def _resembles_split(self, folders: tuple[str, ...]) -> bool:
        """Return whether a folder has folders of classes, and a name such as ``validation2``."""
        return folders in self._levels and resembles_split(folders[-1])
