"""One module per group of verbs: functions over a :class:`~embedstore.operations.session.Session`.

A module is imported when it is first used, so that ``info`` and ``--help`` never import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from embedstore.operations.session import Session

if TYPE_CHECKING:
    from embedstore.operations import (
        advise,
        checkup,
        classify_images,
        clean,
        compare_spaces,
        copy_errors,
        edit,
        encode,
        evaluate,
        export_classifier,
        finetune,
        heads,
        info,
        ingest,
        label_conflicts,
        labels,
        maintenance,
        near_duplicate_check,
        parts,
        query_encoder,
        replicas,
        retrieval,
        search,
        shift,
        spaces,
        untrusted,
        zero_shot,
    )

__all__ = [
    "Session",
    "advise",
    "checkup",
    "classify_images",
    "clean",
    "compare_spaces",
    "copy_errors",
    "edit",
    "encode",
    "evaluate",
    "export_classifier",
    "finetune",
    "heads",
    "info",
    "ingest",
    "label_conflicts",
    "labels",
    "maintenance",
    "near_duplicate_check",
    "parts",
    "query_encoder",
    "replicas",
    "retrieval",
    "search",
    "shift",
    "spaces",
    "untrusted",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
