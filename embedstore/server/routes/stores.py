"""The store itself: counts, spaces, columns, the writer."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from embedstore import __version__
from embedstore.operations.browse import StoreOverview
from embedstore.server.context import Context
from embedstore.server.errors import Refusal
from embedstore.server.models import ColumnBody, Counts, ReplicaBody, ReplicaLag, SpaceBody, StoreBody, WriterBody
from embedstore.server.replica import ServedReplica
from embedstore.storage.spaces import RecipeSpace, SpaceRecord

router = APIRouter(tags=["store"])


@router.get("/store")
def get_store(context: Context) -> StoreBody:
    """Return what the store holds."""
    overview = context.browser.overview()
    return StoreBody(
        id=overview.id,
        name=context.session.path.name,
        version=__version__,
        generation=overview.generation,
        counts=Counts(
            items=overview.items,
            contents=overview.contents,
            failures=overview.failures,
            unlabelled=overview.unlabelled,
        ),
        spaces=[_space_body(record) for record in context.store.spaces],
        columns=[ColumnBody(name=c.name, kind=c.kind.value, origin=c.origin.value) for c in overview.columns],
        read_only=context.access.read_only,
        writer=writer_body(overview),
        replica=replica_body(context.replica, overview.generation),
    )


@router.get("/replica/lag")
def get_replica_lag(context: Context) -> ReplicaLag:
    """Return how far the copy that searches go by is behind the store."""
    if context.replica is None:
        raise Refusal(404, "the server searches the store itself", "start it with --replica NAME")
    return ReplicaLag(name=context.replica.name, lacks=context.replica.count_lacking())


def writer_body(overview: StoreOverview) -> WriterBody | None:
    """Return who writes to the store, and how far its run is."""
    if overview.writer is None:
        return None
    done, total = (None, None) if overview.progress is None else (overview.progress.done, overview.progress.total)
    return WriterBody(**asdict(overview.writer), done=done, total=total)


def replica_body(replica: ServedReplica | None, generation: int) -> ReplicaBody | None:
    """Return the copy that searches go by, and how far it is behind a generation of the store."""
    state = None if replica is None else replica.state()
    if state is None:
        return None
    behind = max(0, generation - state.generation)
    return ReplicaBody(name=state.name, kind=state.kind, rows=state.rows, behind=behind, written=state.written)


def _space_body(record: SpaceRecord) -> SpaceBody:
    """Return the facts of one space."""
    recipe = record.recipe if isinstance(record, RecipeSpace) else None
    return SpaceBody(
        name=record.name,
        key=record.key,
        backbone=recipe.backbone if recipe else None,
        modality=record.space.modality.value,
        dim=record.space.dim,
        can_search_words=record.space.text,
        is_default=record.is_default,
    )
