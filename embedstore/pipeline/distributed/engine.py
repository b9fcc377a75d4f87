"""Which engine embeds, and how it is set; this module imports none of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from embedstore.errors import BadOption
from embedstore.storage.inbox.bucket import Bucket

PART_FILES = 1024  # of a part on a cluster: a worker that dies costs one part
PROCESS_PART_FILES = 4096  # of a part of a process on this machine: at its end a device waits for its last images
MAX_ATTEMPTS = 4  # of one part: its workers died, or failed, so many times


class Engine(StrEnum):
    """The values of ``--engine``."""

    LOCAL = "local"  # threads of this process
    PROCESSES = "processes"  # one process per device of this machine
    RAY = "ray"  # workers of a Ray cluster


@dataclass(frozen=True)
class EngineOptions:
    """Which engine embeds, and how.

    Attributes:
        engine: the engine.
        address: the address of the cluster, ``HOST:PORT``; None starts Ray on this machine.
        workers: how many workers; None is one per GPU, or one per so many ``cpus`` of the cluster; of ``processes`` one
            per device.
        cpus: cores of a worker; None is 4, or all of a smaller node.
        gpus: GPUs of a worker, also a fraction; None is 1 where the cluster has GPUs.
        part_files: files of a part.
        bucket: where workers find the plan and put their results; None is the folder of the store.
    """

    engine: Engine = Engine.LOCAL
    address: str | None = None
    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    part_files: int = PART_FILES
    bucket: Bucket | None = None

    @classmethod
    def parse(
        cls,
        engine: str,
        *,
        address: str | None,
        workers: int | None,
        cpus: int | None,
        gpus: float | None,
        inbox: str | None,
    ) -> EngineOptions:
        """Return the options that a user gave.

        Raises:
            BadOption: if there is no such engine, or an option is for another one.
        """
        try:
            chosen = Engine(engine)
        except ValueError:
            raise BadOption(f"unknown engine {engine!r}; use one of {', '.join(Engine)}") from None
        given = {"address": address, "workers": workers, "cpus": cpus, "gpus": gpus, "inbox": inbox}
        for name in (name for name, value in given.items() if value is not None):
            _require_engine(name, chosen)
        for name, value, least in (("workers", workers, 1), ("cpus", cpus, 1), ("gpus", gpus, 0)):
            if value is not None and value < least:
                raise BadOption(f"{name} is {value}, but must be at least {least}")
        files = PROCESS_PART_FILES if chosen is Engine.PROCESSES else PART_FILES
        return cls(chosen, address, workers, cpus, gpus, files, Bucket.parse(inbox) if inbox else None)


def _require_engine(option: str, chosen: Engine) -> None:
    """Require that an engine has an option.

    Raises:
        BadOption: if it has not.
    """
    engines = (Engine.PROCESSES, Engine.RAY) if option == "workers" else (Engine.RAY,)
    if chosen not in engines:
        names = " and ".join(engines)
        owners = f"the engines {names} have" if len(engines) > 1 else f"the engine {names} has"
        raise BadOption(f"{option}: only {owners} this option; name the engine, or leave {option} out")
