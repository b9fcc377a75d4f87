"""A plan of parts and its results made of numbers, for tests that need no image."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from embedstore.space import Recipe
from embedstore.storage.inbox.inbox import Inbox, new_plan_folder
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.part_result import FileOutcome, PartResult
from embedstore.storage.inbox.work_plan import PlannedSource, WorkPlan
from embedstore.storage.layout import Layout
from embedstore.storage.spaces import RecipeSpace
from embedstore.types import ContentInfo, Failure, FailureReason, ImageRef
from tests.helpers.vector_stores import SPACE, digest, make, vector

PLAN_ID = "0123456789abcdef" * 2


def reference(n: int) -> ImageRef:
    """The file of item number n, as `vector_stores` has it."""
    return ImageRef(f"/i/{n}.jpg", f"/i/{n}.jpg", n, n, f"c{n % 3}")


def part_numbers(part: int, size: int, first: int) -> range:
    """The numbers of the items of a part."""
    return range(first + (part - 1) * size, first + part * size)


def write_plan(path: Path, *, parts: int, size: int, first: int) -> tuple[Inbox, WorkPlan]:
    """Write a plan of items first … first + parts * size - 1 into the inbox of a store."""
    inbox = Inbox(Layout(path.absolute()), SPACE.key)
    space = RecipeSpace("test", SPACE, "float16", True, datetime(2026, 1, 1), Recipe("timm/x"))
    source = PlannedSource("numbers", overrides_metadata=False, covers=False)
    with new_plan_folder(inbox) as folder:
        for part in range(1, parts + 1):
            folder.add_part([PartFile(reference(n), None) for n in part_numbers(part, size, first)])
        counts = {"found": parts * size, "failed": {}}
        plan = WorkPlan(PLAN_ID, space, source, tuple(folder.parts), {}, counts)
        folder.write_plan(plan)
    return inbox, inbox.read_plan()


def result(part: int, *, size: int, first: int, failed: int = 0) -> PartResult:
    """The result of a part, whose last files failed."""
    numbers = part_numbers(part, size, first)
    good = numbers[: size - failed]
    outcomes = [FileOutcome(digest(n), ContentInfo(n, 1, "JPEG")) for n in good]
    outcomes += [
        FileOutcome("", failure=Failure.from_ref(reference(n), FailureReason.CORRUPT, "broken"))
        for n in numbers[size - failed :]
    ]
    vectors = np.stack([vector(n) for n in good]).astype(np.float16) if len(good) else None
    return PartResult(part, "decoder", outcomes, [digest(n) for n in good], vectors)


def make_store_with_results(path: Path, *, parts: int = 3, size: int = 8) -> Inbox:
    """A store with items 1 … 8, and results of items 9 … that wait in its inbox."""
    make(path, 8)
    inbox, plan = write_plan(path, parts=parts, size=size, first=9)
    for part in range(1, parts + 1):
        inbox.put_result(plan, result(part, size=size, first=9))
    return inbox


def as_other_part(original: PartResult, part: int) -> PartResult:
    """The same result under the number of another part."""
    return replace(original, part=part)
