"""Which inbox a person or a worker means."""

from __future__ import annotations

from pathlib import Path

from embedstore.errors import PartsError
from embedstore.storage.inbox.bucket import is_bucket
from embedstore.storage.inbox.inbox import Inbox, inboxes
from embedstore.storage.inbox.worker_inbox import WorkerInbox
from embedstore.storage.layout import Layout, find_store


def open_worker_inbox(address: str, space: str | None) -> Inbox:
    """Return the inbox that a worker uses.

    Args:
        address: the folder of the store, or the folder of a plan in a bucket.
        space: the key or name of a space; None is the only one that has a plan.

    Raises:
        PartsError: if there is no plan, it is of another space, or there are several and none is named.
        StoreDamaged: if a plan cannot be used.
        StoreIOError: if the server of a bucket refuses or does not answer.
    """
    if not is_bucket(address):
        return find_inbox(find_store(Path(address)), space)
    inbox = WorkerInbox.open(address)
    name = inbox.read_plan().space.name
    if space not in (None, inbox.space, name):
        raise PartsError(f"the plan at {address} is for the space {name}, not for {space}; leave --space out")
    return inbox


def find_inbox(layout: Layout, space: str | None) -> Inbox:
    """Return the inbox with a plan.

    Args:
        layout: the paths of the store.
        space: the key or name of a space; None is the only one that has a plan.

    Raises:
        PartsError: if there is no plan, or there are several and none is named.
        StoreDamaged: if a plan cannot be used.
    """
    found = inboxes(layout)
    if space is not None:
        found = [inbox for inbox in found if inbox.space == space or inbox.read_plan().space.name == space]
    if not found:
        of = "" if space is None else f" for space {space}"
        raise PartsError(f"{layout.root} has no plan of parts{of}; make one with `embedstore plan-parts STORE SOURCE`")
    if len(found) > 1:
        names = ", ".join(inbox.read_plan().space.name for inbox in found)
        raise PartsError(f"{layout.root} has plans for the spaces {names}; name one with --space")
    return found[0]
