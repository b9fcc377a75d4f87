"""The inbox of a space: one plan, the lists of its parts, and the results that workers wrote.

::

    spaces/<key>/inbox/
      plan.json              the plan; written last, removed first: without it the folder is litter
      lists/000000017.jsonl  the files of a part
      attributes.parquet     uri and the user's own columns, if the source has any
      missing.parquet        items whose files the scan did not find: they may have another name now
      known.digests          contents that have a vector, 16 bytes each, ascending
      000000017-<xxh3>.part  the result of a part
      000000017.begun        workers began this part and have not ended it, one byte each
      000000017.registered   the part is in the catalog
      bucket.json            workers use this plan in a bucket; see ``plan_bucket``
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import PartsError, StoreDamaged
from embedstore.storage import durable_files, reading
from embedstore.storage.inbox import part_list, part_result, work_plan
from embedstore.storage.inbox.bucket import Bucket
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.part_result import PartResult
from embedstore.storage.inbox.plan_bucket import MAX_PLAN_BYTES, PLAN, PlanBucket
from embedstore.storage.inbox.work_plan import PlannedPart, WorkPlan
from embedstore.storage.layout import Layout
from embedstore.storage.store_files import open_binary, read_bounded, read_json_object

BUCKET = "bucket.json"
LISTS = "lists"
ATTRIBUTES = "attributes.parquet"
MISSING = "missing.parquet"
KNOWN = "known.digests"
MAX_LIST_BYTES = 1 << 30
MAX_RESULT_BYTES = 8 << 30
MAX_SHARED_BYTES = 32 << 30  # the contents of two billion items


@dataclass(frozen=True)
class WaitingResult:
    """A result that was not registered yet.

    Attributes:
        path: its file.
        part: the number of its part, by its name.
        digest: the digest of its bytes, by its name.
    """

    path: Path
    part: int
    digest: str


class Inbox:
    """The inbox of one space.

    Args:
        layout: the paths of the store.
        space: the key of the space.
    """

    def __init__(self, layout: Layout, space: str) -> None:
        self.layout, self.space = layout, space
        self.folder = layout.inbox_folder(space)
        self._checked_bucket: PlanBucket | None = None

    def has_plan(self) -> bool:
        """Return whether there is a plan."""
        return reading.exists(self.folder / PLAN)

    def read_plan(self) -> WorkPlan:
        """Return the plan.

        Raises:
            PartsError: if there is none.
            StoreDamaged: if it is not one that embedstore wrote.
            StoreUnreadable: if it cannot be read now.
        """
        path = self.folder / PLAN
        if not reading.exists(path):
            raise PartsError(
                f"{self.layout.root} has no plan of parts; make one with `embedstore plan-parts STORE SOURCE`"
            )
        try:
            with reading.read_errors(path):
                values = read_json_object(path, MAX_PLAN_BYTES)
        except (ValueError, TypeError) as e:
            if isinstance(e, StoreDamaged):
                raise
            values = {}
        return work_plan.parse_plan(values, str(path), self.space)

    def read_list(self, plan: WorkPlan, part: int) -> list[PartFile]:
        """Return the files of a part.

        Raises:
            StoreDamaged: if it is not the list that the plan names.
            StoreUnreadable: if it cannot be read now.
        """
        path, planned = self._list(part), plan.parts[part - 1]
        data = self._read(path, MAX_LIST_BYTES)
        return part_list.decode_list(data, where=str(path), files=planned.files, xxh3=planned.xxh3)

    def known_contents(self, plan: WorkPlan) -> NDArray[np.bytes_]:
        """Return the contents that had a vector when the plan was made, ``S16``, ascending and mapped."""
        path = self.folder / KNOWN
        if KNOWN not in plan.shared_files or reading.file_size(path) < 16:
            return np.empty(0, "S16")
        with open_binary(path) as f:
            return np.memmap(f, dtype="S16", mode="r")

    def shared_file(self, plan: WorkPlan, name: str) -> Path | None:
        """Return one of the plan's other files, compared with the plan; None if the plan has no such file.

        Raises:
            StoreDamaged: if it is not the file that the plan names.
        """
        if name not in plan.shared_files:
            return None
        path = self.folder / name
        with reading.read_errors(path):
            is_planned = path.stat().st_size <= MAX_SHARED_BYTES
            if not is_planned or durable_files.file_xxh3(path) != plan.shared_files[name]:
                raise StoreDamaged(
                    f"{path} is not the file that the plan names; run `embedstore plan-parts STORE SOURCE --replace`"
                )
        return path

    def waiting(self) -> list[WaitingResult]:
        """Return the results that were not registered yet, by part and name."""
        found = []
        for path in reading.list_folder(self.folder, "*.part"):
            number, _, digest = path.stem.partition("-")
            if number.isdecimal() and digest:
                found.append(WaitingResult(path, int(number), digest))
        return sorted(found, key=lambda result: (result.part, result.path.name))

    def read_result(self, plan: WorkPlan, waiting: WaitingResult) -> PartResult:
        """Return a result, checked against its name and the plan.

        Raises:
            StoreDamaged: if it is torn, or not a result that embedstore writes.
            StoreUnreadable: if it cannot be read now.
        """
        data = self._read(waiting.path, MAX_RESULT_BYTES)
        if part_result.result_digest(data) != waiting.digest:
            raise StoreDamaged("its bytes do not match its name: it is torn, or was changed")
        if not 0 < waiting.part <= len(plan.parts):
            raise StoreDamaged(f"the plan has no part {waiting.part}")
        files = self.read_list(plan, waiting.part)
        return part_result.decode_result(data, plan, files, part=waiting.part)

    def put_result(self, plan: WorkPlan, result: PartResult) -> str:
        """Write the result of a part, and return its name: a temporary name of this process, fsync, rename.

        Raises:
            OSError: if the disk is full or fails; nothing is left of it.
        """
        data = part_result.encode_result(plan, result)
        target = self.folder / f"{result.part:09d}-{part_result.result_digest(data)}.part"
        with durable_files.atomic_write(target, f".{os.getpid()}-{time.time_ns()}.tmp") as f:
            f.write(data)
        self._begun(result.part).unlink(missing_ok=True)
        return target.name

    def is_done(self, part: int) -> bool:
        """Return whether a part has a result, or is registered."""
        return reading.exists(self._registered(part)) or any(r.part == part for r in self.waiting())

    def begin(self, part: int) -> int:
        """Note that a worker begins a part; return how many earlier ones began it and died.

        The mark has one byte per worker.
        """
        marker = self._begun(part)
        before = max(1, reading.file_size(marker)) if reading.exists(marker) else 0
        marker.write_bytes(b"x" * (before + 1))
        return before

    def give_back(self, part: int, before: int) -> None:
        """Note that a worker that began a part ended by itself, without a result.

        Args:
            part: the part.
            before: what :meth:`begin` returned.
        """
        marker = self._begun(part)
        if before:
            marker.write_bytes(b"x" * before)
        else:
            marker.unlink(missing_ok=True)

    def bucket(self) -> PlanBucket | None:
        """Return the bucket that workers use, None if they use this folder; it is not asked.

        Raises:
            StoreDamaged: if the file that names it is not one that embedstore writes.
        """
        path = self.folder / BUCKET
        return PlanBucket.load(path) if reading.exists(path) else None

    def download_results(self) -> None:
        """Bring what waits in the bucket into this folder, if workers use a bucket.

        Raises:
            StoreIOError: if the server refuses or does not answer.
            StoreDamaged: if the bucket belongs to another plan.
        """
        bucket = self._own_bucket()
        if bucket is None:
            return
        for name in bucket.results():
            if not reading.exists(self.folder / name):
                bucket.download(f"results/{name}", self.folder / name)

    def forget_bucket(self) -> None:
        """Leave the bucket alone from now on, such as one that exists no more."""
        (self.folder / BUCKET).unlink(missing_ok=True)
        self._checked_bucket = None

    def set_registered(self, waiting: WaitingResult) -> None:
        """Note that a part is in the catalog, and remove its result."""
        self._registered(waiting.part).touch()
        waiting.path.unlink(missing_ok=True)
        if bucket := self._own_bucket():
            bucket.set_registered(waiting.part, waiting.path.name)

    def discard(self, waiting: WaitingResult) -> None:
        """Let a part be done again, whose result was moved out of this folder."""
        if bucket := self._own_bucket():
            bucket.delete_result(waiting.path.name)

    def remove(self) -> None:
        """Remove the plan and everything that belongs to it.

        Raises:
            OSError: if the disk fails; without its plan the folder is litter, which the next plan removes.
            StoreIOError: if the plan is also in a bucket, whose server refuses or does not answer.
        """
        if reading.exists(self.folder / PLAN) and (bucket := self._own_bucket()):
            bucket.remove()
        (self.folder / PLAN).unlink(missing_ok=True)
        if reading.exists(self.folder):
            durable_files.sync_folder(self.folder)
            shutil.rmtree(self.folder)

    def _own_bucket(self) -> PlanBucket | None:
        """Return the bucket after a check that it holds this plan: a store may name any bucket.

        Raises:
            StoreIOError: if the server refuses, does not answer or holds no plan.
            StoreDamaged: if it holds another plan.
        """
        if self._checked_bucket is None and (bucket := self.bucket()):
            bucket.require_plan(self._read(self.folder / PLAN, MAX_PLAN_BYTES))
            self._checked_bucket = bucket
        return self._checked_bucket

    def _list(self, part: int) -> Path:
        return self.folder / LISTS / f"{part:09d}.jsonl"

    def _begun(self, part: int) -> Path:
        return self.folder / f"{part:09d}.begun"

    def _registered(self, part: int) -> Path:
        return self.folder / f"{part:09d}.registered"

    @staticmethod
    def _read(path: Path, most: int) -> bytes:
        """Return the bytes of a file of limited size."""
        try:
            with reading.read_errors(path):
                return read_bounded(path, most)
        except ValueError as e:
            if isinstance(e, StoreDamaged):
                raise
            raise StoreDamaged(f"{path}: {e}") from e


class PlanFolder:
    """The folder of a new plan while it is written.

    Args:
        folder: a temporary folder, which becomes the inbox.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[PlannedPart] = []
        (folder / LISTS).mkdir()

    def add_part(self, files: Sequence[PartFile]) -> None:
        """Write the list of the next part."""
        data = part_list.encode_list(files)
        number = len(self.parts) + 1
        (self.folder / LISTS / f"{number:09d}.jsonl").write_bytes(data)
        self.parts.append(PlannedPart(len(files), part_result.result_digest(data)))

    def shared_files(self) -> dict[str, str]:
        """Return the XXH3-128 of the plan's other files that were written, by name.

        Raises:
            PartsError: if one is too large for workers to read.
        """
        found = {}
        for path in (self.folder / name for name in (ATTRIBUTES, MISSING, KNOWN)):
            if path.exists():
                if path.stat().st_size > MAX_SHARED_BYTES:
                    raise PartsError(
                        f"{path.name} has more than {MAX_SHARED_BYTES >> 30} GiB; plan fewer files at once"
                    )
                found[path.name] = durable_files.file_xxh3(path)
        return found

    def write_plan(self, plan: WorkPlan, bucket: Bucket | None = None) -> None:
        """Write the plan itself, and everything into a bucket if workers use one.

        Raises:
            StoreIOError: if the server of the bucket refuses or does not answer.
        """
        (self.folder / PLAN).write_text(json.dumps(plan.to_json()) + "\n")
        if bucket is not None:
            of_plan = PlanBucket(bucket.folder(plan.id))
            of_plan.publish(self.folder)
            of_plan.dump(self.folder / BUCKET)


@contextmanager
def new_plan_folder(inbox: Inbox) -> Iterator[PlanFolder]:
    """Yield the folder of a new plan; it becomes the inbox when the block ends, whole or not at all.

    An inbox that exists is removed first: the caller has registered what it held.

    Raises:
        OSError: if the disk is full or fails; there is no plan then.
    """
    inbox.remove()
    with durable_files.atomic_folder(inbox.folder) as folder:
        yield PlanFolder(folder)


def inboxes(layout: Layout) -> list[Inbox]:
    """Return the inboxes with a plan, by space."""
    folders = reading.list_folder(layout.root / "spaces")
    return [inbox for folder in folders if (inbox := Inbox(layout, folder.name)).has_plan()]
