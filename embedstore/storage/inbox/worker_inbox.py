"""The inbox of a worker that does not see the folder of the store: a bucket, and a folder for what was read from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore import temporary
from embedstore.errors import PartsError, StoreDamaged
from embedstore.json_objects import parse_json_object
from embedstore.space import Space
from embedstore.storage import reading
from embedstore.storage.inbox import part_result
from embedstore.storage.inbox.inbox import KNOWN, LISTS, Inbox
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.part_result import PartResult
from embedstore.storage.inbox.plan_bucket import PLAN, PlanBucket
from embedstore.storage.inbox.work_plan import WorkPlan
from embedstore.storage.layout import Layout


class WorkerInbox(Inbox):
    """The inbox of a plan in a bucket.

    What is read once is kept in a folder of this process, and compared with the plan.

    Args:
        layout: the layout of a temporary folder.
        space: the key of the space.
        source: the bucket of the plan.
    """

    def __init__(self, layout: Layout, space: str, source: PlanBucket) -> None:
        super().__init__(layout, space)
        self._source = source

    @classmethod
    def open(cls, address: str) -> WorkerInbox:
        """Return the inbox of the plan at an address.

        Raises:
            BadOption: if it is no folder of a bucket.
            PartsError: if there is no plan.
            StoreDamaged: if it is not one that embedstore wrote.
            StoreIOError: if the server refuses or does not answer.
        """
        source = PlanBucket.parse(address)
        data = source.read_plan()
        if data is None:
            raise PartsError(
                f"{source.bucket.url} has no plan of parts; name the folder that `embedstore plan-parts STORE SOURCE "
                "--inbox s3://BUCKET/FOLDER` printed"
            )
        layout = Layout(temporary.new_folder("parts"))
        inbox = cls(layout, _space_key(data, source.bucket.url), source)
        (inbox.folder / LISTS).mkdir(parents=True)
        (inbox.folder / PLAN).write_bytes(data)
        return inbox

    def read_list(self, plan: WorkPlan, part: int) -> list[PartFile]:
        """Return the files of a part; see :meth:`Inbox.read_list`."""
        self._keep(f"{LISTS}/{part:09d}.jsonl")
        return super().read_list(plan, part)

    def known_contents(self, plan: WorkPlan) -> NDArray[np.bytes_]:
        """Return the contents that had a vector when the plan was made; see :meth:`Inbox.known_contents`."""
        if KNOWN in plan.shared_files and self._keep(KNOWN):
            self.shared_file(plan, KNOWN)
        return super().known_contents(plan)

    def is_done(self, part: int) -> bool:
        """Return whether a part has a result, or is registered."""
        return self._source.is_done(part)

    def begin(self, part: int) -> int:
        """Note that a worker begins a part; return how many earlier ones began it and died."""
        before = self._source.begun(part)
        self._source.set_begun(part, before + 1)
        return before

    def give_back(self, part: int, before: int) -> None:
        """Note that a worker that began a part ended by itself, without a result."""
        self._source.set_begun(part, before)

    def put_result(self, plan: WorkPlan, result: PartResult) -> str:
        """Write the result of a part with one request, and return its name.

        Raises:
            StoreIOError: if the server refuses or does not answer; nothing is left of the part.
        """
        data = part_result.encode_result(plan, result)
        name = f"{result.part:09d}-{part_result.result_digest(data)}.part"
        self._source.put_result(name, data)
        return name

    def _keep(self, name: str) -> bool:
        """Download a file of the plan, and return whether it was not there yet."""
        target: Path = self.folder / name
        if reading.exists(target):
            return False
        self._source.download(name, target)
        return True


def _space_key(data: bytes, where: str) -> str:
    """Return the key of the space of a plan, which may be anybody's.

    Raises:
        StoreDamaged: if it is not a plan.
    """
    try:
        return Space.from_json(parse_json_object(data)["space"]["facts"]).key
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise StoreDamaged(
            f"{where} is not a plan of parts ({type(e).__name__}); run `embedstore plan-parts STORE SOURCE --replace`"
        ) from e
