"""The results of a comparison of strategies in one file, which a run after an interruption reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedstore.errors import StoreIOError
from embedstore.finetuning.strategies import StrategyResult
from embedstore.storage import durable_files
from embedstore.storage.store_files import read_json_object


@dataclass(frozen=True)
class StrategyFile:
    """The file of one comparison.

    Attributes:
        path: the file; its folder exists.
    """

    path: Path

    def read(self) -> list[StrategyResult]:
        """Return the results of an earlier run; none where there is no file or it is of no use."""
        try:
            return [StrategyResult.from_json(values) for values in read_json_object(self.path)["results"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def write(self, results: Sequence[StrategyResult]) -> None:
        """Replace the file by all results so far.

        Raises:
            StoreIOError: if the disk is full or fails; the previous results stay.
        """
        try:
            durable_files.write_synced(self.path, json.dumps({"results": [r.to_json() for r in results]}).encode())
        except OSError as e:
            raise StoreIOError(
                f"cannot write {self.path}: {e.strerror or e}; free disk space and run the same command again, which "
                "keeps the trainings that are done"
            ) from e
