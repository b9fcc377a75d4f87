"""Which training rows select C where a protocol has no validation split: drawn as the published code draws them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.protocols.protocol import Protocol
from embedstore.errors import LabelError

HELD_OUT_SHARE = 0.1  # of the training rows, in the code of DINOv2 and DINOv3
VTAB_TRAIN, VTAB_VAL = 800, 200  # Zhai et al. 2019, section 2.2
_DRAW_SEED = 0  # in both codes


@dataclass(frozen=True)
class ChoiceSplit:
    """The rows that the candidates are fitted on, and those that select one.

    Attributes:
        data: both, the fitted rows first.
        fitted: int64, their places in ``data``.
        choice: int64, the places of the rows that select.
        chosen_on: the rows that select, in words.
        n_left_out: rows that are not fitted before the refit, because they share a content or a declared group with a
            row that selects.
        n_near: rows that select and have a near-duplicate among the fitted ones.
    """

    data: Features
    fitted: NDArray[np.int64]
    choice: NDArray[np.int64]
    chosen_on: str
    n_left_out: int
    n_near: int


def split_for_choice(protocol: Protocol, data: Features, n_train: int) -> ChoiceSplit:
    """Divide the rows into those that are fitted and those that select.

    Args:
        protocol: says how.
        data: the training rows, then the validation rows, if there are any.
        n_train: the number of training rows.

    Raises:
        LabelError: if there are too few rows to select on.
    """
    if protocol is Protocol.VTAB1K:
        data, n_train, name = _vtab_rows(data, n_train)
    else:
        name = "the val items"
    is_choice = np.arange(len(data)) >= n_train
    if not is_choice.any():
        is_choice = drawn_rows(protocol, data.y)
        name = "a tenth of the training items" + (" of each class" if protocol is not Protocol.DINOV2 else "")
    if not is_choice.any():
        raise LabelError(
            f"protocol {protocol} selects C on a tenth of the training items, and {len(data)} are too few for that; "
            "label more, or give some the split val"
        )
    exact = data.groups if data.exact_groups is None else data.exact_groups
    shared = ~is_choice & np.isin(exact, exact[is_choice])
    fitted = np.flatnonzero(~is_choice & ~shared)
    near = np.isin(data.groups[is_choice], data.groups[fitted])
    return ChoiceSplit(data, fitted, np.flatnonzero(is_choice), name, int(shared.sum()), int(near.sum()))


def drawn_rows(protocol: Protocol, y: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return the training rows that select C, bool ``(N,)``, where there are no validation rows.

    DINOv2 takes the first tenth of a random order (seed 0 of PyTorch). DINOv3 takes a tenth of each class in that
    order: at least one row, and none of a class of one. CLIP divides the training rows of such data sets, and does not
    publish how: it gets DINOv3's rows.

    Args:
        protocol: says how.
        y: labels ``(N,)``.
    """
    import torch

    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(_DRAW_SEED)).numpy()
    drawn = np.zeros(len(y), dtype=bool)
    if protocol is Protocol.DINOV2:
        drawn[order[: len(y) // 10]] = True
        return drawn
    codes = np.unique(y.astype(str), return_inverse=True)[1]
    for code in range(int(codes.max(initial=-1)) + 1):
        members = order[codes[order] == code]
        n = max(1, int(HELD_OUT_SHARE * len(members))) if len(members) > 1 else 0
        drawn[members[:n]] = True
    return drawn


def _vtab_rows(data: Features, n_train: int) -> tuple[Features, int, str]:
    """Return the first 800 training rows and the first 200 validation rows, or else the next 200 training rows.

    Raises:
        LabelError: if there are fewer.
    """
    train, val = np.arange(n_train), np.arange(n_train, len(data))
    name = f"the first {VTAB_VAL} val items"
    if not len(val):
        train, val, name = train[:VTAB_TRAIN], train[VTAB_TRAIN:], f"{VTAB_VAL} training items after the first 800"
    if len(train) < VTAB_TRAIN or len(val) < VTAB_VAL:
        raise LabelError(
            f"protocol vtab1k needs {VTAB_TRAIN} training items and {VTAB_VAL} more that select C (split val, or "
            f"training items), and there are {len(train)} and {len(val)}; label more, or use another protocol"
        )
    rows = np.concatenate([train[:VTAB_TRAIN], val[:VTAB_VAL]])
    return data.take(rows), VTAB_TRAIN, name
