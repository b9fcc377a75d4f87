"""A plan of parts in a bucket: workers use it in place of the folder of the store, which may be on another machine.

::

    s3://bucket/folder/<plan>/
      plan.json, lists/, attributes.parquet, missing.parquet, known.digests   as in the folder
      results/000000017-<xxh3>.part   the result of a part, written with one request
      marks/000000017.begun           workers began this part and have not ended it, one byte each
      marks/000000017.registered      the part is in the catalog

The folder of the store has the plan too, and ``bucket.json`` names the bucket. The writer downloads results into the
folder and registers them there, so whatever is checked of a file in the folder is checked of one from a bucket.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from embedstore.errors import StoreDamaged, StoreIOError
from embedstore.json_objects import parse_json_object
from embedstore.storage import durable_files, reading
from embedstore.storage.inbox.bucket import Bucket, is_bucket
from embedstore.storage.store_files import read_bounded

PLAN = "plan.json"
MAX_PLAN_BYTES = 1 << 30
_ID = re.compile(r"[0-9a-f]{32}")
_RESULT = re.compile(r"[0-9]{9}-[0-9a-f]{32}\.part")
# what embedstore writes, and so all that it ever deletes, by folder
_OWN = {
    "": re.compile(r"plan\.json|attributes\.parquet|missing\.parquet|known\.digests"),
    "lists": re.compile(r"[0-9]{9}\.jsonl"),
    "results": _RESULT,
    "marks": re.compile(r"[0-9]{9}\.(begun|registered)"),
}


@dataclass(frozen=True)
class PlanBucket:
    """The bucket of one plan.

    Attributes:
        bucket: the folder of the plan; its last name is the id of the plan.
    """

    bucket: Bucket

    @classmethod
    def parse(cls, address: str) -> PlanBucket:
        """Return the bucket of a plan at an address.

        Raises:
            BadOption: if it is no folder of a bucket.
        """
        return cls(Bucket.parse(address))

    @classmethod
    def load(cls, description: Path) -> PlanBucket:
        """Return the bucket that a file of :meth:`dump` names, which may be anybody's.

        Raises:
            StoreDamaged: if it is not one that embedstore writes.
            StoreUnreadable: if it cannot be read now.
        """
        try:
            with reading.read_errors(description):
                given = read_bounded(description)
            url = parse_json_object(given)["url"]
            if not is_bucket(url) or not _ID.fullmatch(url.rsplit("/", 1)[-1]):
                raise ValueError(f"{url!r:.100} is not the bucket of a plan")
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise StoreDamaged(
                f"{description} is not the bucket of a plan; run `embedstore plan-parts STORE SOURCE --replace`"
            ) from e
        return cls(Bucket(url))

    def dump(self, description: Path) -> None:
        """Write the file that names the bucket."""
        description.write_text(json.dumps({"url": self.bucket.url}) + "\n")

    def publish(self, folder: Path) -> None:
        """Upload the folder of a plan, the plan itself last.

        Raises:
            StoreIOError: if the server refuses or does not answer; without its plan the rest is litter.
        """
        for path in reading.list_files(folder):
            name = path.relative_to(folder).as_posix()
            parent, _, last = name.rpartition("/")
            if name != PLAN and parent in _OWN and _OWN[parent].fullmatch(last):
                self.bucket.upload(name, path)
        self.bucket.upload(PLAN, folder / PLAN)

    def read_plan(self) -> bytes | None:
        """Return the bytes of the plan, None if it is not there.

        Raises:
            StoreIOError: if the server refuses or does not answer.
        """
        return self.bucket.read(PLAN, MAX_PLAN_BYTES)

    def require_plan(self, plan: bytes) -> None:
        """Require that the bucket holds a plan, before anything in it is changed.

        Raises:
            StoreIOError: if the server refuses, does not answer or holds no plan.
            StoreDamaged: if it holds another one.
        """
        found = self.read_plan()
        if found is None:
            raise StoreIOError(
                f"{self.bucket.url} holds no plan any more; run `embedstore plan-parts STORE SOURCE --replace`"
            )
        if found != plan:
            raise StoreDamaged(
                f"{self.bucket.url} holds another plan than the store; run `embedstore plan-parts STORE SOURCE "
                "--replace`"
            )

    def results(self) -> list[str]:
        """Return the names of the results that were not registered yet.

        Raises:
            StoreIOError: if the server refuses or does not answer.
        """
        return [name for name in self.bucket.names("results") if _RESULT.fullmatch(name)]

    def download(self, name: str, target: Path) -> None:
        """Write a file of the plan to the disk, whole or not at all.

        Raises:
            StoreIOError: if the server refuses, does not answer or has no such file, or the disk is full.
        """
        with durable_files.atomic_path(target, ".tmp") as path:
            self.bucket.download(name, path)

    def put_result(self, name: str, data: bytes) -> None:
        """Write the result of a part with one request, and end its mark.

        Raises:
            StoreIOError: if the server refuses or does not answer; nothing is left of the part.
        """
        self.bucket.write(f"results/{name}", data)
        self.bucket.delete([f"marks/{name[:9]}.begun"])

    def is_done(self, part: int) -> bool:
        """Return whether a part has a result, or is registered."""
        number = f"{part:09d}"
        return f"{number}.registered" in self.bucket.names("marks", number) or any(
            _RESULT.fullmatch(name) for name in self.bucket.names("results", number)
        )

    def begun(self, part: int) -> int:
        """Return how many workers began a part and did not end it."""
        return len(self.bucket.read(f"marks/{part:09d}.begun", 1 << 20) or b"")

    def set_begun(self, part: int, workers: int) -> None:
        """Note how many workers began a part and did not end it."""
        name = f"marks/{part:09d}.begun"
        self.bucket.write(name, b"x" * workers) if workers else self.bucket.delete([name])

    def set_registered(self, part: int, name: str) -> None:
        """Note that a part is in the catalog, and then delete its result."""
        self.bucket.write(f"marks/{part:09d}.registered", b"x")
        self.delete_result(name)

    def delete_result(self, name: str) -> None:
        """Delete a result, so that its part is done again unless it is registered."""
        if _RESULT.fullmatch(name):
            self.bucket.delete([f"results/{name}"])

    def remove(self) -> None:
        """Delete what embedstore wrote, the plan first.

        Raises:
            StoreIOError: if the server refuses or does not answer; without its plan the rest is litter.
        """
        self.bucket.delete([PLAN])
        for folder, own in _OWN.items():
            names = [name for name in self.bucket.names(folder) if own.fullmatch(name)]
            self.bucket.delete([f"{folder}/{name}".lstrip("/") for name in names])
