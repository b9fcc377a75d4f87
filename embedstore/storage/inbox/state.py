"""What waits in the inboxes of a store, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import StoreDamaged, StoreUnreadable
from embedstore.storage import reading
from embedstore.storage.inbox.inbox import ATTRIBUTES, KNOWN, MISSING, Inbox, inboxes
from embedstore.storage.layout import Layout, quarantine_file


@dataclass(frozen=True)
class PlanInfo:
    """A plan of parts as ``info`` shows it.

    Attributes:
        space: the name of the space; its key where the plan cannot be read.
        waiting: how many parts have a result that is not registered.
        source: what is embedded.
        parts: how many parts the plan has.
        files: how many files they have.
        registered: how many results were registered.
        created: when the plan was made, UTC, ISO 8601.
        inbox: the folder of a bucket for parts and results; "" for the folder of the store.
        problem: why the plan cannot be read; "" if it can. Its source and its numbers are then empty and 0.
    """

    space: str
    waiting: int
    source: str = ""
    parts: int = 0
    files: int = 0
    registered: int = 0
    created: str = ""
    inbox: str = ""
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; of a plan that cannot be read what is known."""
        known = ("space", "waiting", "problem") if self.problem else [n for n in vars(self) if n != "problem"]
        return {name: value for name, value in asdict(self).items() if name in known}


def plan_states(layout: Layout) -> list[PlanInfo]:
    """Return facts on each plan of parts."""
    return [_state(inbox) for inbox in inboxes(layout)]


def _state(inbox: Inbox) -> PlanInfo:
    """Return facts on one plan."""
    waiting = len({r.part for r in inbox.waiting()})
    try:
        plan, bucket = inbox.read_plan(), inbox.bucket()
    except (StoreDamaged, StoreUnreadable) as e:
        return PlanInfo(inbox.space, waiting, problem=str(e))
    return PlanInfo(
        space=plan.space.name,
        waiting=waiting,
        source=plan.source.description,
        parts=len(plan.parts),
        files=plan.files,
        registered=len(reading.list_folder(inbox.folder, "*.registered")),
        created=plan.created,
        inbox=bucket.bucket.url if bucket else "",
    )


@dataclass(frozen=True)
class InboxProblem:
    """A file of an inbox that is not what was written.

    Attributes:
        path: the file.
        problem: what is wrong with it.
        cure: what a person can do.
    """

    path: Path
    problem: str
    cure: str


def check_inboxes(layout: Layout) -> Iterator[InboxProblem | int]:
    """Read every file of every inbox, and compare it with its name and the plan.

    Yields:
        Problems, and the bytes of each file that is whole.

    Raises:
        StoreUnreadable: if a file cannot be read now.
    """
    for inbox in inboxes(layout):
        try:
            plan = inbox.read_plan()
            for name in (ATTRIBUTES, MISSING, KNOWN):
                inbox.shared_file(plan, name)
            for part in range(1, len(plan.parts) + 1):
                inbox.read_list(plan, part)
        except StoreDamaged as e:
            problem, _, cure = str(e).partition("; ")
            yield InboxProblem(inbox.folder, problem, cure)
            continue
        for waiting in inbox.waiting():
            try:
                inbox.read_result(plan, waiting)
            except StoreDamaged as e:
                yield InboxProblem(waiting.path, str(e), "run `embedstore register STORE`, and do its part again")
            else:
                yield reading.file_size(waiting.path)


def quarantine_bad_results(layout: Layout) -> list[str]:
    """Move results that cannot be used to the quarantine; a plan that cannot be used is moved with all of them.

    Returns:
        What was done, one sentence each.

    Raises:
        OSError: if the disk is full or fails.
    """
    actions = []
    for problem in [p for p in check_inboxes(layout) if isinstance(p, InboxProblem)]:
        space = problem.path.parent.name if problem.path.suffix != ".part" else problem.path.parent.parent.name
        kept = quarantine_file(layout, problem.path, f"{space}-{problem.path.name}")
        what = "its part has to be done again" if problem.path.suffix == ".part" else "plan its parts again"
        actions.append(f"{problem.path.name}: {problem.problem}; moved to {kept}, and {what}")
    return actions
