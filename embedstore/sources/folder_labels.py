"""Label and split from the names of folders."""

from __future__ import annotations

from collections.abc import Sequence

from embedstore.types import Split

SPLIT_NAMES = {
    "train": Split.TRAIN, "training": Split.TRAIN,
    "val": Split.VAL, "valid": Split.VAL, "validation": Split.VAL,
    "test": Split.TEST, "testing": Split.TEST,
}  # fmt: skip


def label_and_split(folders: Sequence[str], *, root: str = "") -> tuple[str | None, str | None]:
    """Return label and split of a file from the folders above it.

    One folder may name the split; of the others the last is the label. Where several could be the split, the file's
    own folder is taken as a class (CIFAR-100 and COCO have one called "train"), and the nearest of the others is the
    split.

    Args:
        folders: the components of the path, outermost first, without the file name.
        root: the name of the folder that the user gave, which may be a split but never a label.

    Returns:
        ``(label, split)``; either may be None.
    """
    splits = [i for i, name in enumerate(folders) if name.lower() in SPLIT_NAMES]
    if not splits:
        split = SPLIT_NAMES.get(root.lower())
        return (folders[-1] if folders else None), (split.value if split else None)
    chosen = splits[-2] if len(splits) > 1 and splits[-1] == len(folders) - 1 else splits[-1]
    rest = [name for i, name in enumerate(folders) if i != chosen]
    return (rest[-1] if rest else None), SPLIT_NAMES[folders[chosen].lower()].value
