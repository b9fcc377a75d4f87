"""What waits in the inboxes of a store, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import StoreDamaged, StoreUnreadable
from embedstore.storage import reading
from embedstore.storage.inbox.inbox import ATTRIBUTES, KNOWN, MISSING, Inbox, inboxes
from embedstore.storage.layout import Layout, quarantine_file


def inbox_states(layout: Layout) -> list[dict[str, Any]]:
    """Return facts on each plan of parts, as JSON values."""
    return [_state(inbox) for inbox in inboxes(layout)]


def _state(inbox: Inbox) -> dict[str, Any]:
    """Return facts on one plan; a plan that cannot be read has a problem in place of them."""
    facts: dict[str, Any] = {"space": inbox.space, "waiting": len({r.part for r in inbox.waiting()})}
    try:
        plan, bucket = inbox.read_plan(), inbox.bucket()
    except (StoreDamaged, StoreUnreadable) as e:
        return facts | {"problem": str(e)}
    return facts | {
        "space": plan.space.name,
        "source": plan.source.description,
        "parts": len(plan.parts),
        "files": plan.files,
        "registered": len(reading.list_folder(inbox.folder, "*.registered")),
        "created": plan.created,
        "inbox": bucket.bucket.url if bucket else "",
    }


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
