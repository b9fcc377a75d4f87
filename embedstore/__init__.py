"""Embed an image collection once with a frozen backbone; search it, probe it, label it from the cached features.

::

    import embedstore as es

    store = es.create("pets.store", backbone="clip")
    store.embed("photos/")
    hits = store.search("a dog on a beach", k=20, where="split = 'val'")
    probe = store.probe("label")

Importing this package imports nothing heavy; PyTorch is imported with the first backbone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from embedstore import privacy

privacy.switch_off_telemetry()  # before any library is imported

__version__ = "0.1.0"

if TYPE_CHECKING:
    from embedstore.classify.data.features import Features
    from embedstore.classify.evaluation import Evaluation, RegressionEvaluation
    from embedstore.classify.evaluation.active_learning import LabelSuggestions
    from embedstore.classify.evaluation.compare_heads import HeadComparison
    from embedstore.classify.evaluation.compare_spaces import SpaceComparison
    from embedstore.classify.evaluation.label_errors import LabelErrorReport
    from embedstore.classify.evaluation.label_forecast import AccuracyForecast, LabelForecast
    from embedstore.classify.evaluation.learning_curve import LearningCurve
    from embedstore.classify.evaluation.regression.compare import RegressionComparison
    from embedstore.classify.evaluation.shift import ShiftReport
    from embedstore.classify.registry import HeadRecord
    from embedstore.classify.retrieval.report import RetrievalReport
    from embedstore.errors import (
        AudioError,
        BackboneError,
        BadAnnotations,
        BadBackbone,
        BadEncoding,
        BadFilter,
        BadHead,
        BadManifest,
        BadOption,
        BadVectors,
        CodeNotAllowed,
        DimensionMismatch,
        EditConflict,
        EmbedstoreError,
        EngineError,
        FinetuneError,
        HeadError,
        ImageError,
        ItemError,
        ItemNotFound,
        LabelError,
        MissingExtra,
        NoImages,
        NoLabels,
        NotAStore,
        NoTextTower,
        OutputError,
        PartsError,
        PluginError,
        QueryError,
        QueryTimeout,
        QueryTooLarge,
        ReplicaError,
        RuntimeMismatch,
        ServerError,
        SourceError,
        SourceNotFound,
        SpaceError,
        SpaceMismatch,
        SpaceNotFound,
        StoreBusy,
        StoreDamaged,
        StoreError,
        StoreExists,
        StoreIOError,
        StoreNotFound,
        StoreTooNew,
        StoreUnreadable,
        TextError,
        UnknownBackbone,
        UnknownColumn,
        UnknownHead,
        UnknownOption,
        UnsafeStore,
        WeightsMismatch,
        WeightsNotFound,
    )
    from embedstore.exports.run import ExportReport
    from embedstore.finetuning.advice import FinetuningAdvice
    from embedstore.finetuning.strategies import StrategyComparison
    from embedstore.operations.checkup import CheckupReport
    from embedstore.operations.copy_errors import CopyErrors
    from embedstore.operations.finetune_result import FinetuneResult
    from embedstore.operations.label_conflicts import LabelConflicts
    from embedstore.operations.maintenance import RepairReport, VerificationReport
    from embedstore.operations.near_duplicate_check import NearDuplicateCheck
    from embedstore.operations.parts import RegisterReport
    from embedstore.operations.results import (
        ArchiveCounts,
        Backup,
        ChangedItems,
        Compaction,
        DefaultSpace,
        DroppedSpace,
        ExportedClassifier,
        PredictionSummary,
        PurgedItems,
        StoreInfo,
        TableEdit,
    )
    from embedstore.operations.untrusted import UntrustedReport
    from embedstore.operations.zero_shot import ZeroShotClassifier
    from embedstore.pipeline.distributed.plan_parts import PlanReport
    from embedstore.pipeline.distributed.worker import PartReport
    from embedstore.pipeline.import_vectors import ImportReport
    from embedstore.pipeline.report import EmbedReport
    from embedstore.replicas.write import ReplicaReport
    from embedstore.reports.classified import ClassifiedImage, ClassifiedImages
    from embedstore.reports.map_page import EmbeddingMap
    from embedstore.reports.results import Hits, SqlResult
    from embedstore.search.duplicate_groups import DuplicateGroups
    from embedstore.search.index.build import IndexBuild
    from embedstore.storage.spaces import SpaceRecord
    from embedstore.store import Store, create, import_store, open, repair_store, restore, verify_untrusted, work
    from embedstore.types import Hit

# Where each public name is defined; it is imported when it is first used.
_MODULES = {
    "embedstore.classify.data.features": ("Features",),
    "embedstore.classify.evaluation": ("Evaluation", "RegressionEvaluation"),
    "embedstore.classify.evaluation.active_learning": ("LabelSuggestions",),
    "embedstore.classify.evaluation.label_forecast": ("AccuracyForecast", "LabelForecast"),
    "embedstore.classify.evaluation.compare_heads": ("HeadComparison",),
    "embedstore.classify.evaluation.compare_spaces": ("SpaceComparison",),
    "embedstore.classify.evaluation.label_errors": ("LabelErrorReport",),
    "embedstore.classify.evaluation.learning_curve": ("LearningCurve",),
    "embedstore.classify.evaluation.regression.compare": ("RegressionComparison",),
    "embedstore.classify.evaluation.shift": ("ShiftReport",),
    "embedstore.classify.registry": ("HeadRecord",),
    "embedstore.classify.retrieval.report": ("RetrievalReport",),
    "embedstore.errors": (
        "AudioError",
        "BackboneError",
        "BadAnnotations",
        "BadBackbone",
        "BadEncoding",
        "BadFilter",
        "BadHead",
        "BadManifest",
        "BadOption",
        "BadVectors",
        "CodeNotAllowed",
        "DimensionMismatch",
        "EditConflict",
        "EmbedstoreError",
        "EngineError",
        "FinetuneError",
        "HeadError",
        "ImageError",
        "ItemError",
        "ItemNotFound",
        "LabelError",
        "MissingExtra",
        "NoImages",
        "NoLabels",
        "NoTextTower",
        "NotAStore",
        "OutputError",
        "PartsError",
        "PluginError",
        "QueryError",
        "QueryTimeout",
        "QueryTooLarge",
        "ReplicaError",
        "RuntimeMismatch",
        "ServerError",
        "SourceError",
        "SourceNotFound",
        "SpaceError",
        "SpaceMismatch",
        "SpaceNotFound",
        "StoreBusy",
        "StoreDamaged",
        "StoreError",
        "StoreExists",
        "StoreIOError",
        "StoreNotFound",
        "StoreTooNew",
        "StoreUnreadable",
        "TextError",
        "UnknownBackbone",
        "UnknownColumn",
        "UnknownHead",
        "UnknownOption",
        "UnsafeStore",
        "WeightsMismatch",
        "WeightsNotFound",
    ),
    "embedstore.exports.run": ("ExportReport",),
    "embedstore.finetuning.advice": ("FinetuningAdvice",),
    "embedstore.finetuning.strategies": ("StrategyComparison",),
    "embedstore.operations.checkup": ("CheckupReport",),
    "embedstore.operations.copy_errors": ("CopyErrors",),
    "embedstore.operations.label_conflicts": ("LabelConflicts",),
    "embedstore.operations.finetune_result": ("FinetuneResult",),
    "embedstore.operations.maintenance": ("RepairReport", "VerificationReport"),
    "embedstore.operations.near_duplicate_check": ("NearDuplicateCheck",),
    "embedstore.operations.results": (
        "ArchiveCounts",
        "Backup",
        "ChangedItems",
        "Compaction",
        "DefaultSpace",
        "DroppedSpace",
        "ExportedClassifier",
        "PredictionSummary",
        "PurgedItems",
        "StoreInfo",
        "TableEdit",
    ),
    "embedstore.operations.parts": ("RegisterReport",),
    "embedstore.operations.untrusted": ("UntrustedReport",),
    "embedstore.operations.zero_shot": ("ZeroShotClassifier",),
    "embedstore.pipeline.distributed.plan_parts": ("PlanReport",),
    "embedstore.pipeline.distributed.worker": ("PartReport",),
    "embedstore.pipeline.import_vectors": ("ImportReport",),
    "embedstore.pipeline.report": ("EmbedReport",),
    "embedstore.replicas.write": ("ReplicaReport",),
    "embedstore.reports.classified": ("ClassifiedImage", "ClassifiedImages"),
    "embedstore.reports.map_page": ("EmbeddingMap",),
    "embedstore.reports.results": (
        "Hits",
        "SqlResult",
    ),
    "embedstore.search.duplicate_groups": ("DuplicateGroups",),
    "embedstore.search.index.build": ("IndexBuild",),
    "embedstore.storage.spaces": ("SpaceRecord",),
    "embedstore.store": (
        "Store",
        "create",
        "import_store",
        "open",
        "repair_store",
        "restore",
        "verify_untrusted",
        "work",
    ),
    "embedstore.types": ("Hit",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "AccuracyForecast",
    "ArchiveCounts",
    "AudioError",
    "BackboneError",
    "Backup",
    "BadAnnotations",
    "BadBackbone",
    "BadEncoding",
    "BadFilter",
    "BadHead",
    "BadManifest",
    "BadOption",
    "BadVectors",
    "ChangedItems",
    "CheckupReport",
    "ClassifiedImage",
    "ClassifiedImages",
    "CodeNotAllowed",
    "Compaction",
    "CopyErrors",
    "DefaultSpace",
    "DimensionMismatch",
    "DroppedSpace",
    "DuplicateGroups",
    "EditConflict",
    "EmbedReport",
    "EmbeddingMap",
    "EmbedstoreError",
    "EngineError",
    "Evaluation",
    "ExportReport",
    "ExportedClassifier",
    "Features",
    "FinetuneError",
    "FinetuneResult",
    "FinetuningAdvice",
    "HeadComparison",
    "HeadError",
    "HeadRecord",
    "Hit",
    "Hits",
    "ImageError",
    "ImportReport",
    "IndexBuild",
    "ItemError",
    "ItemNotFound",
    "LabelConflicts",
    "LabelError",
    "LabelErrorReport",
    "LabelForecast",
    "LabelSuggestions",
    "LearningCurve",
    "MissingExtra",
    "NearDuplicateCheck",
    "NoImages",
    "NoLabels",
    "NoTextTower",
    "NotAStore",
    "OutputError",
    "PartReport",
    "PartsError",
    "PlanReport",
    "PluginError",
    "PredictionSummary",
    "PurgedItems",
    "QueryError",
    "QueryTimeout",
    "QueryTooLarge",
    "RegisterReport",
    "RegressionComparison",
    "RegressionEvaluation",
    "RepairReport",
    "ReplicaError",
    "ReplicaReport",
    "RetrievalReport",
    "RuntimeMismatch",
    "ServerError",
    "ShiftReport",
    "SourceError",
    "SourceNotFound",
    "SpaceComparison",
    "SpaceError",
    "SpaceMismatch",
    "SpaceNotFound",
    "SpaceRecord",
    "SqlResult",
    "Store",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreExists",
    "StoreIOError",
    "StoreInfo",
    "StoreNotFound",
    "StoreTooNew",
    "StoreUnreadable",
    "StrategyComparison",
    "TableEdit",
    "TextError",
    "UnknownBackbone",
    "UnknownColumn",
    "UnknownHead",
    "UnknownOption",
    "UnsafeStore",
    "UntrustedReport",
    "VerificationReport",
    "WeightsMismatch",
    "WeightsNotFound",
    "ZeroShotClassifier",
    "create",
    "import_store",
    "open",
    "repair_store",
    "restore",
    "verify_untrusted",
    "work",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'embedstore' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
