"""Embed on a cluster or by several processes; see :meth:`embedstore.Store.embed` with ``engine``."""

from __future__ import annotations

from functools import partial

from embedstore.operations.device_process import device_workers
from embedstore.operations.part_worker import PartWorker
from embedstore.operations.session import Session
from embedstore.pipeline.distributed import ray_cluster
from embedstore.pipeline.distributed.cluster_run import EngineWorkers, embed_in_parts
from embedstore.pipeline.distributed.engine import Engine, EngineOptions
from embedstore.pipeline.report import EmbedReport
from embedstore.pipeline.run import EmbedJob


def embed(session: Session, job: EmbedJob, engine: EngineOptions) -> EmbedReport:
    """Embed on a cluster that sees the source, and the folder of the store or a bucket; or by processes here."""
    if engine.engine is Engine.PROCESSES:
        return embed_in_parts(job, engine, device_workers(session, job, engine.workers))
    ray_cluster.import_ray()
    task = (job.space.key, session.options, job.options)
    workers = partial(ray_cluster.ray_workers, engine, PartWorker, task)
    return embed_in_parts(job, engine, EngineWorkers(workers, None, "a cluster", "node"))
