"""The labeled rows of a training run, whatever they are made of, and the batches in which an epoch reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from embedstore.errors import ImageError
from embedstore.sources.locations import read_location
from embedstore.types import FailureReason, content_digest

Batches: TypeAlias = "DataLoader[tuple[Any, int]]"


@dataclass(frozen=True)
class LabeledItem:
    """One labeled item.

    Attributes:
        path: file to open, or the uri of a row.
        content: hash of its bytes when it was embedded, 32 hexadecimal digits.
        class_index: number of its class, -1 for a class that is not trained.
    """

    path: str
    content: str
    class_index: int


class LabeledDataset(Protocol):
    """Every row of a run, as the network reads it.

    Attributes:
        loads_in_processes: processes may prepare the items.
    """

    loads_in_processes: bool

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, int]:
        """Return the input of ``(row, seed)`` in training, which the pair alone decides, and its class number."""

    def class_indices(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class number of some rows."""

    def is_readable(self, row: int) -> bool:
        """Return whether the item can be read and has the bytes that were embedded."""

    def evaluation_batch(self, rows: Sequence[int]) -> Any:
        """Return some rows exactly as embedding prepares them, as a batch.

        Raises:
            ItemError: if one cannot be read, or its bytes differ from those that were embedded.
        """

    def batch_bytes(self, batch: Any) -> int:
        """Return the memory that a batch takes."""

    def collate(self, samples: list[tuple[Any, int]]) -> tuple[Any, torch.Tensor]:
        """Return samples as a batch and class numbers ``(B,)``."""


def class_indices(samples: Sequence[LabeledItem], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class number of some rows."""
    return np.array([samples[r].class_index for r in rows.tolist()], dtype=np.int64)


def read_unchanged(sample: LabeledItem) -> bytes:
    """Return the bytes of an item.

    Raises:
        ItemError: if it cannot be read, or its bytes differ from those that were embedded.
    """
    data = read_location(sample.path)
    if content_digest(data) != sample.content:
        raise ImageError(FailureReason.CORRUPT, f"{sample.path} has changed since it was embedded")
    return data


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch, in an order that depends on the seed and the epoch alone.

    Args:
        rows: training rows.
        batch_size: rows per batch.
        seed: the random seed of the run.
        rank: the rank of this process among those that train together.
        world_size: number of those processes; each takes its share of every batch.
    """

    def __init__(
        self, rows: NDArray[np.int64], batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows, self.batch_size, self.seed, self.epoch = rows, batch_size, seed, 0
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return max(1, -(-len(self.rows) // self.batch_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.rows)
        seeds = rng.integers(0, 2**62, len(order))
        keys = list(zip(order.tolist(), seeds.tolist(), strict=True))
        for begin in range(0, len(keys), self.batch_size):
            batch = keys[begin : begin + self.batch_size]
            if len(batch) < self.world_size:
                batch = (batch * self.world_size)[: self.world_size]
            yield batch[self.rank :: self.world_size]


def create_loader(dataset: LabeledDataset, sampler: EpochBatchSampler, num_workers: int) -> Batches:
    """Return a loader of batches as the data set collates them, with class numbers ``(B,)``."""
    workers: dict[str, Any] = (
        {"num_workers": num_workers, "persistent_workers": True, "multiprocessing_context": "forkserver"}
        if num_workers and dataset.loads_in_processes
        else {}
    )
    typed = cast("Dataset[tuple[Any, int]]", dataset)
    return DataLoader(typed, batch_sampler=sampler, collate_fn=dataset.collate, **workers)
