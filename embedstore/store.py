"""The public surface: :class:`Store`, and the functions that create, open, restore, import and repair one.

Every signature and docstring is here; the work is done by :mod:`embedstore.operations`.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from embedstore import operations
from embedstore.operations.keywords import check_arguments, check_public_methods
from embedstore.operations.session import OpenOptions, Session
from embedstore.pipeline.distributed.engine import EngineOptions
from embedstore.search.options import SearchOptions
from embedstore.sources.annotations.options import AnnotationOptions
from embedstore.sources.companions import RawPairs
from embedstore.sources.parts.options import PartOptions
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.table_options import TableOptions
from embedstore.storage.query_limits import QUERY_SECONDS
from embedstore.storage.storage import Storage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embedstore.backbones.base import Backbone
    from embedstore.classify.data.features import Features
    from embedstore.classify.evaluation import Evaluation, ProbeResult
    from embedstore.classify.evaluation.active_learning import LabelSuggestions
    from embedstore.classify.evaluation.compare_heads import HeadComparison
    from embedstore.classify.evaluation.compare_spaces import SpaceComparison
    from embedstore.classify.evaluation.label_errors import LabelErrorReport
    from embedstore.classify.evaluation.label_forecast import LabelForecast
    from embedstore.classify.evaluation.learning_curve import LearningCurve
    from embedstore.classify.evaluation.regression.compare import RegressionComparison
    from embedstore.classify.evaluation.shift import ShiftReport
    from embedstore.classify.registry import HeadRecord
    from embedstore.classify.retrieval.report import RetrievalReport
    from embedstore.exports.run import ExportReport
    from embedstore.finetuning.advice import FinetuningAdvice
    from embedstore.finetuning.settings import FinetuneOptions
    from embedstore.finetuning.strategies import StrategyComparison
    from embedstore.operations.arguments import Counts, ItemIds, Names, Paths, Source, Vectors
    from embedstore.operations.checkup import CheckupReport
    from embedstore.operations.copy_errors import CopyErrors
    from embedstore.operations.encode import Images
    from embedstore.operations.evaluate import Classes
    from embedstore.operations.finetune_result import FinetuneResult
    from embedstore.operations.label_conflicts import LabelConflicts
    from embedstore.operations.maintenance import RepairReport, VerificationReport
    from embedstore.operations.near_duplicate_check import NearDuplicateCheck
    from embedstore.operations.parts import RegisterReport
    from embedstore.operations.query_arguments import ImageQuery, Query, QueryPart
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
    from embedstore.operations.watch import Watcher
    from embedstore.operations.zero_shot import ZeroShotClassifier
    from embedstore.pipeline.distributed.plan_parts import PlanReport
    from embedstore.pipeline.distributed.worker import PartReport
    from embedstore.pipeline.import_vectors import ImportReport
    from embedstore.pipeline.report import EmbedReport
    from embedstore.replicas.write import ReplicaReport
    from embedstore.reports.classified import ClassifiedImages
    from embedstore.reports.map_page import EmbeddingMap
    from embedstore.reports.progress import Progress
    from embedstore.reports.results import Hits, SqlResult
    from embedstore.search.duplicate_groups import DuplicateGroups
    from embedstore.search.index.build import IndexBuild
    from embedstore.space import JsonScalar
    from embedstore.storage.spaces import SpaceRecord


@check_public_methods
class Store:
    """One store: a folder with items, spaces and their vectors.

    Made by :func:`embedstore.create` and :func:`embedstore.open`. It needs no closing; as a context manager it keeps
    what makes the next process start faster, see :meth:`close`.

    Terms that the methods share:
        label: a column of the items: ``label``, or one of the user's own.
        space: a space by name or key; by default the default space of the store.
        where: a filter: one SQL condition over the items, such as ``"split = 'val' and year >= 2020"``.
        wait: seconds to wait for another process that is writing; after that :class:`~embedstore.errors.StoreBusy`.
            An index, the exported towers and the replicas of a space each have a lock of their own, which other writers
            do not hold.
        progress: None draws a bar where stderr is a terminal, True always, False never; a function is called with
            each progress event.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def _repr_html_(self) -> str:
        info = self.info()
        spaces = ", ".join(f"{s.name} ({s.vectors:,} vectors, {s.dim} dimensions)" for s in info.spaces)
        rows = {"items": f"{info.items:,}", "failures": f"{info.failures:,}", "spaces": spaces}
        cells = "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
        return f"<b>{html.escape(str(self.path))}</b><table>{cells}</table>"

    def __reduce__(self) -> tuple[Callable[[str, OpenOptions], Store], tuple[str, OpenOptions]]:
        """A copy, also one that is sent to another process, opens the store again."""
        return _open_with, (str(self.path), self._session.options)

    def __len__(self) -> int:
        """The number of items."""
        return operations.info.count_items(self._session)

    def __bool__(self) -> bool:
        """True: an empty store is a store."""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()

    def close(self) -> list[str]:
        """Export the towers that queries of this process ran with PyTorch, so that the next process starts without it.

        Does nothing where the folder is read-only, or the runtime was chosen by the user.

        Returns:
            One sentence per exported tower.
        """
        return operations.query_encoder.export_used_towers(self._session)

    # ---- the store itself

    @property
    def path(self) -> Path:
        """The folder of the store."""
        return self._session.path

    @property
    def spaces(self) -> list[SpaceRecord]:
        """The spaces, oldest first."""
        return self._session.storage.spaces()

    @property
    def items(self) -> SqlResult:
        """All items with their columns, ordered by id: iterate over the rows, or take ``.df()`` or ``.arrow()``.

        For a part of many items, :meth:`sql` selects what is needed.
        """
        return operations.info.all_items(self._session)

    @property
    def notices(self) -> list[str]:
        """What was repaired when the store was opened, and what could not be recorded; one sentence each."""
        return self._session.storage.notices

    def info(self) -> StoreInfo:
        """Count items, contents, failures, spaces, indexes, heads and bytes.

        Returns:
            The counts as attributes.
        """
        return operations.info.info(self._session)

    def sql(
        self,
        query: str,
        parameters: Sequence[Any] = (),
        *,
        timeout: float = QUERY_SECONDS,
        memory: str | int | None = None,
    ) -> SqlResult:
        """Run a DuckDB query over the tables ``items``, ``contents``, ``spaces``, ``failures``, ``runs`` ….

        A query only reads these tables: no files, no network, no settings, no Python variables. As in filters,
        ``pred.NAME`` is the class that a head predicted for an item, and ``pred.NAME.score`` its score.

        Args:
            query: one SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN statement.
            parameters: values for its ``?``.
            timeout: seconds that it may take. Meanwhile, writers of the store wait.
            memory: what it may take, such as ``4GB``, or bytes; for DuckDB and for the rows of the result each. By
                default 1 GiB, or a quarter of the memory of this process where that is less.

        Returns:
            Column names and rows; ``.df()`` and ``.arrow()`` convert them.

        Raises:
            QueryError: if the query does anything but read these tables, or DuckDB rejects it.
            QueryTimeout: if it takes longer than ``timeout``.
            QueryTooLarge: if it takes more than ``memory``.
            UnknownColumn: if it names a prediction that does not exist.
            BadOption: if a limit is not above 0.
        """
        return operations.info.sql(self._session, query, parameters, timeout=timeout, memory=memory)

    def failures(self) -> SqlResult:
        """List the images that could not be embedded, with the reason.

        Returns:
            Rows of uri, reason, detail, size and time.
        """
        return operations.info.failures(self._session)

    def item_uris(self, items: ItemIds) -> dict[int, str]:
        """Return the uri of each item.

        Args:
            items: item ids.

        Returns:
            Uris by item id; unknown ids are left out.
        """
        return operations.info.item_uris(self._session, items)

    def item_paths(self, items: ItemIds) -> dict[int, str]:
        """Return the path that opens each item's file. It differs from the uri where the name is not UTF-8.

        Args:
            items: item ids.

        Returns:
            Paths by item id, as :func:`os.fsdecode` returns them; unknown ids are left out.
        """
        return operations.info.item_paths(self._session, items)

    def failed_paths(self) -> list[str]:
        """Return the path of each image that could not be embedded, in the order of :meth:`failures`.

        Returns:
            Paths, as :func:`os.fsdecode` returns them.
        """
        return operations.info.failed_paths(self._session)

    # ---- put in

    def embed(
        self,
        source: Source = (),
        *,
        annotations: Paths = (),
        crops: bool = False,
        labels_from: str | None = "folder",
        splits_from: str | None = "folder",
        uri_column: str | None = None,
        text_column: str | None = None,
        root: str | Path | None = None,
        encoding: str | None = None,
        collect_rows: bool = False,
        exclude: Names = (),
        hidden: bool = False,
        raw_pairs: str = "photo",
        pages: bool = False,
        every: float | None = None,
        key_frames: bool = False,
        space: str | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        order: str = "scan",
        runtime: str | None = None,
        engine: str = "local",
        address: str | None = None,
        workers: int | None = None,
        cpus: int | None = None,
        gpus: float | None = None,
        inbox: str | None = None,
        watcher: Watcher | None = None,
        poll: float | None = None,
        wait: float = 0.0,
        progress: Progress = None,
    ) -> EmbedReport:
        """Embed what is new or changed in a source; incremental, and resumable after a kill.

        Args:
            source: an image folder, paths or globs; a manifest with a column ``uri``: a CSV, TSV, Parquet or JSON file,
                a DataFrame of pandas or polars, an Arrow table or a dict of columns; Parquet files that hold the images
                as bytes or in Hugging Face's structure, also a folder or glob of them; archives and buckets. With
                annotations: the folder of the photos; without one it is looked for next to them.
            annotations: files or folders of annotations of the photos: COCO, YOLO, Pascal VOC, FiftyOne, or a table
                with a column ``file_name``. The photos that they list are embedded, with their classes and captions.
            crops: embed every box of the annotations in place of the photos, as ``photo.jpg#xywh=10,20,30,40``.
            labels_from: ``"folder"`` takes the label from the parent folder's name, None takes none.
            splits_from: ``"folder"`` takes the split from folders, and names of Parquet files with images, that say
                train, val or test; None takes none.
            uri_column: the column of the manifest that names the images, by default ``uri``; or the column of a Parquet
                file that holds them.
            text_column: the column of a CSV, TSV, JSON or Parquet file, or of a saved data set, whose texts are the
                items, one per row; for a space of texts. The other columns are kept.
            root: the folder that relative uris start from; by default the table's own folder.
            encoding: the encoding of a text file, e.g. ``"cp1252"``; by default UTF-8, or what a byte-order mark says.
            collect_rows: make one item of several rows of one image; columns whose values differ become lists.
            exclude: patterns of names that are skipped in folders, such as ``"raw"`` or ``"*_edited.jpg"``; with ``/``,
                of paths relative to the folder. Litter such as ``@eaDir`` and files that are no images are skipped
                anyway.
            hidden: embed hidden files and folders too.
            raw_pairs: what is embedded of a camera's RAW file and a JPEG or HEIC file of the same name in one folder:
                ``"photo"``, the JPEG or HEIC file, or ``"both"``.
            pages: embed the pages of PDF files in folders, archives and buckets, as ``doc.pdf#page=3``. A PDF file that
                is the source is always embedded by its pages.
            every: embed a frame of each video every so many seconds, as ``clip.mp4#t=12.5``. Of a video that is the
                source there is one every 5 seconds by default.
            key_frames: embed the key frames of each video.
            space: the space to fill.
            batch_size: images per forward pass; by default the backbone's own.
            threads: decoding threads; by default one per core, if memory allows.
            order: ``scan`` reads the files as the source lists them. ``spread`` takes one of every folder in turn, and
                within a folder from all dates, so that a search covers the whole collection soon; archives are read
                back and forth then, which is slow.
            runtime: see :func:`embedstore.open`; by default the store's.
            engine: ``local`` embeds in this process, ``processes`` in one process per device of this machine, ``ray``
                on a Ray cluster whose nodes see the store and the source.
            address: the address of the Ray cluster, ``HOST:PORT``; by default Ray is started on this machine.
            workers: workers on the cluster; by default one per GPU, or one per ``cpus`` cores. With ``processes``: by
                default one per device; more are spread over the devices in turn.
            cpus: cores of a worker, by default 4.
            gpus: GPUs of a worker, also a fraction; by default 1 if the cluster has GPUs.
            inbox: see :meth:`plan_parts`; for workers on the cluster that do not see the folder of the store.
            watcher: go on and embed again whenever the source has changed and is quiet, until a signal. The function is
                called with the report of every run, and with a line of text where a run cannot be made yet; it ends
                the watch by returning True for a report.
            poll: with a watcher, list the source again after so many seconds; by default local folders report their
                changes, and buckets and network disks are listed every 30 s.
            wait: see :class:`Store`.
            progress: see :class:`Store`.

        Returns:
            What was embedded, reused, failed and skipped, and which stage was the bottleneck.

        Raises:
            SourceNotFound: if a folder, file or glob is not there.
            NoImages: if the source has no file.
            SourceError: if a folder is next to train, val or test and does not name a split.
            BadManifest: if a manifest cannot be read or has no uris.
            BadAnnotations: if annotations cannot be read or contradict themselves.
            BadEncoding: if a text manifest has another encoding.
            BadOption: if there is no such choice for RAW pairs or the order, or ``every`` is not a time.
            RuntimeMismatch: if the requested runtime or decoder gives other vectors.
            MissingExtra: if the requested runtime or engine is not installed.
            EngineError: if the cluster cannot be used, no process can be started, or a part failed too often.
            WeightsNotFound: if there is something to embed and the weights are not on this machine.
            SpaceMismatch: if there is something to embed and the backbone is not the one of the space any more.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.ingest.embed(
            self._session,
            source,
            labels_from=labels_from,
            splits_from=splits_from,
            table=TableOptions(uri_column, root, encoding, collect_rows, text_column),
            annotations=AnnotationOptions(tuple(map(os.fspath, annotations)), crops),
            rules=SkipRules(
                tuple(exclude),
                hidden,
                parts=PartOptions(pages, every, key_frames),
                raw_pairs=RawPairs.parse(raw_pairs),
            ),
            space=space,
            batch_size=batch_size,
            threads=threads,
            order=order,
            runtime=runtime,
            engine=EngineOptions.parse(engine, address=address, workers=workers, cpus=cpus, gpus=gpus, inbox=inbox),
            watcher=watcher,
            poll=poll,
            wait=wait,
            progress=progress,
        )

    def plan_parts(
        self,
        source: Source = (),
        parts: int | None = None,
        *,
        replace: bool = False,
        inbox: str | None = None,
        annotations: Paths = (),
        crops: bool = False,
        labels_from: str | None = "folder",
        splits_from: str | None = "folder",
        uri_column: str | None = None,
        root: str | Path | None = None,
        encoding: str | None = None,
        collect_rows: bool = False,
        text_column: str | None = None,
        exclude: Names = (),
        hidden: bool = False,
        raw_pairs: str = "photo",
        pages: bool = False,
        every: float | None = None,
        key_frames: bool = False,
        space: str | None = None,
        wait: float = 0.0,
        progress: Progress = None,
    ) -> PlanReport:
        """Plan what :meth:`embed` would do as parts, which workers on several machines embed with :func:`work`.

        The plan is written into the folder ``inbox`` of the space. What needs no image is done at once: columns and
        metadata of known items, and failures of the scan. :meth:`register` takes the results of the workers over.

        Args:
            source: see :meth:`embed`. Workers read it by the same paths and uris.
            parts: how many parts; by default parts of 4,096 files.
            replace: replace a plan that has parts left. Their results that are waiting are registered first.
            inbox: a folder of a bucket, ``s3://…`` or ``gs://…``: workers find the plan there and put their results
                there, and need not see the folder of the store.
            annotations: see :meth:`embed`.
            crops: see :meth:`embed`.
            labels_from: see :meth:`embed`.
            splits_from: see :meth:`embed`.
            uri_column: see :meth:`embed`.
            root: see :meth:`embed`.
            encoding: see :meth:`embed`.
            collect_rows: see :meth:`embed`.
            text_column: see :meth:`embed`.
            exclude: see :meth:`embed`.
            hidden: see :meth:`embed`.
            raw_pairs: see :meth:`embed`.
            pages: see :meth:`embed`.
            every: see :meth:`embed`.
            key_frames: see :meth:`embed`.
            space: the space to fill.
            wait: see :class:`Store`.
            progress: see :class:`Store`.

        Returns:
            How many parts there are, and what the scan found.

        Raises:
            PartsError: if an earlier plan has parts left.
            BadOption: if the parts are too large for the memory of a worker, or ``inbox`` is no folder of a bucket.
            BadBackbone: if the space holds precomputed vectors; if its weights are in the store, and the inbox in a
                bucket.
            StoreIOError: if the server of the bucket refuses or does not answer; there is no plan then.
            SourceNotFound: if a folder, file or glob is not there.
            NoImages: if the source has no file.
            BadManifest: if a manifest cannot be read or has no uris.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.ingest.plan_parts(
            self._session,
            source,
            reading=operations.ingest.SourceOptions(
                labels_from,
                splits_from,
                TableOptions(uri_column, root, encoding, collect_rows, text_column),
                AnnotationOptions(tuple(map(os.fspath, annotations)), crops),
                SkipRules(
                    tuple(exclude),
                    hidden,
                    parts=PartOptions(pages, every, key_frames),
                    raw_pairs=RawPairs.parse(raw_pairs),
                ),
            ),
            space=space,
            parts=parts,
            replace_plan=replace,
            inbox=inbox,
            wait=wait,
            progress=progress,
        )

    def register(self, space: str | None = None, *, wait: float = 0.0) -> RegisterReport:
        """Register the results of workers: in any order, any number of times, each in one transaction.

        A result that is torn is moved to the folder ``quarantine``, and its part has to be done again. With the last
        part, items whose files do not exist any more are marked, and the plan is removed.

        Args:
            space: the name or key of the plan's space; by default the only one that has a plan.
            wait: see :class:`Store`.

        Returns:
            What was registered, and which parts are left.

        Raises:
            PartsError: if there is no plan.
            StoreDamaged: if the plan is not what was written.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.parts.register(self._session, space, wait=wait)

    def add_vectors(
        self,
        vectors: str | Path | Vectors,
        table: Any = None,
        *,
        vector_column: str | None = None,
        uri_column: str | None = None,
        root: str | Path | None = None,
        encoding: str | None = None,
        space: str = "precomputed",
        unit_norm: bool | None = None,
        dtype: str | None = None,
        wait: float = 0.0,
    ) -> ImportReport:
        """Import vectors that were computed elsewhere.

        Args:
            vectors: ``(N, D)`` array, or the path of a ``.npy`` file or of a Parquet file with a column of vectors.
            table: N rows, one per vector: a CSV, TSV, Parquet or JSON file, a DataFrame, an Arrow table or a dict of
                columns; by default the other columns of the Parquet file.
            vector_column: the column of a Parquet file that holds the vectors; by default ``vector``, or the only one
                of lists of floats.
            uri_column: the column that names the images; by default ``uri``; without one, rows are named by number.
            root: see :meth:`embed`.
            encoding: see :meth:`embed`.
            space: the name of their space; it is added if it is new.
            unit_norm: whether the vectors have length 1; None measures it.
            dtype: ``float16`` or ``float32`` on disk; by default that of the space, and ``float16`` for a new one.
            wait: see :class:`Store`.

        Returns:
            Counts of rows, new items and new vectors.

        Raises:
            BadVectors: if the array has a wrong shape, NaN, infinite or zero rows, or rows that ``dtype`` would change
                so much that they rank differently; nothing is stored.
            BadOption: if ``dtype`` is not that of the space; nothing is stored.
            BadManifest: if the table does not fit; nothing is stored.
            BadEncoding: if a text file has another encoding; nothing is stored.
            DimensionMismatch: if the space has another dimension; nothing is stored.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.ingest.add_vectors(
            self._session,
            vectors,
            table,
            options=TableOptions(uri_column, root, encoding, vector_column=vector_column),
            space=space,
            unit_norm=unit_norm,
            dtype=dtype,
            wait=wait,
        )

    def add_space(
        self,
        backbone: str,
        *,
        weights: str | Path | None = None,
        backbone_args: Mapping[str, JsonScalar] | None = None,
        preprocess: Mapping[str, JsonScalar] | None = None,
        layer: str | None = None,
        pool: str | None = None,
        random_init: bool = False,
        seed: int = 0,
        dtype: str = "float16",
        space_name: str | None = None,
        wait: float = 0.0,
    ) -> SpaceRecord:
        """Add the space of another backbone; :meth:`reembed` fills it.

        A backbone that was added before with the same options is not loaded again where its exported tower embeds: the
        bytes of its weights file and the versions of the libraries decide whether it is the same.

        Args:
            backbone: see :func:`embedstore.create`.
            weights: see :func:`embedstore.create`.
            backbone_args: see :func:`embedstore.create`.
            preprocess: see :func:`embedstore.create`.
            layer: see :func:`embedstore.create`.
            pool: see :func:`embedstore.create`.
            random_init: see :func:`embedstore.create`.
            seed: see :func:`embedstore.create`.
            dtype: see :func:`embedstore.create`.
            space_name: see :func:`embedstore.create`.
            wait: see :class:`Store`.

        Returns:
            The record of the space.

        Raises:
            UnknownBackbone: if there is no such architecture or tag.
            WeightsNotFound: if the weights are not on this machine.
            WeightsMismatch: if the weights do not fit the architecture.
            BadBackbone: if an option does not fit the backbone.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        recipe = operations.spaces.make_recipe(
            backbone,
            weights=weights,
            backbone_args=backbone_args,
            preprocess=preprocess,
            layer=layer,
            pool=pool,
            random_init=random_init,
            seed=seed,
        )
        return operations.spaces.add_space(self._session, recipe, dtype=dtype, space_name=space_name, wait=wait)

    def reembed(self, space: str | None = None, *, wait: float = 0.0, progress: Progress = None) -> EmbedReport:
        """Embed the images of the store into one of its spaces; only what is missing is computed; resumable.

        Args:
            space: the space to fill.
            wait: see :class:`Store`.
            progress: see :class:`Store`.

        Returns:
            What was embedded and what failed.

        Raises:
            NoImages: if the vectors of the store came without images.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.ingest.reembed(self._session, space, wait=wait, progress=progress)

    def export_towers(self, space: str | None = None, towers: Names | None = None, *, wait: float = 0.0) -> list[str]:
        """Export the backbone of a space next to its vectors, in a form that queries load without PyTorch.

        An exported tower is compared with the eager backbone on the store's own images, or on sentences, and refused
        if the least cosine, plain or centered, is below 0.9999.

        Args:
            space: see :class:`Store`.
            towers: ``"image"`` and ``"text"``; by default those that the space has.
            wait: see :class:`Store`.

        Returns:
            One sentence per tower.

        Raises:
            MissingExtra: if onnx is not installed.
            RuntimeMismatch: if the exported tower gives other vectors.
            BadBackbone: if the backbone cannot be exported.
            StoreIOError: if the store cannot be written.
            StoreBusy: if another process is still exporting towers of this space after ``wait`` seconds.
        """
        return operations.query_encoder.export_towers(self._session, space, towers, wait=wait)

    # ---- search

    def search(
        self,
        query: Query | None = None,
        *,
        image: ImageQuery | None = None,
        plus: Sequence[QueryPart] = (),
        minus: Sequence[QueryPart] = (),
        like: Sequence[Query] = (),
        unlike: Sequence[Query] = (),
        templates: str | None = None,
        space: str | None = None,
        k: int | None = 10,
        offset: int = 0,
        where: str | None = None,
        min_score: float | None = None,
        group_by: str | None = None,
        diversity: float = 0.0,
        exact: bool = False,
        replica: str | None = None,
        hybrid: str | None = None,
    ) -> Hits:
        """Find the nearest items; with a filter, the nearest of those that match: if k items match, k are returned.

        Args:
            query: text (str), an item id (int) or a hit, a vector (an array, tensor, Series or list of D numbers), or
                an image (Path, bytes of a file, PIL image, or array or tensor uint8 ``(H, W, 3)``); in a space of clips
                or texts a file of them (Path or bytes).
            image: the query as an image: a path, bytes of a file, a PIL image, or a uint8 array ``(H, W, 3)``.
            plus: parts to add, each a query or ``(query, weight)``.
            minus: parts to subtract, each a query or ``(query, weight)``.
            like: examples of what is wanted (Rocchio; with eight or more examples and no other query, a logistic
                regression between wanted and unwanted).
            unlike: examples of what is not wanted.
            templates: a prompt template with ``{}``, or a template set: ``name``, ``photo``, ``simple``, ``imagenet``.
            space: see :class:`Store`.
            k: hits wanted, 1 to 100,000; None returns every item that reaches ``min_score``.
            offset: hits to skip at the front.
            where: see :class:`Store`.
            min_score: the least cosine similarity of a hit.
            group_by: a column; at most one hit per value of it. ``content`` gives one hit per different file.
            diversity: 0 ranks by score alone; towards 1, hits differ more from each other (maximal marginal relevance,
                Carbonell and Goldstein 1998, with lambda = 1 - diversity).
            exact: do not use an approximate index.
            replica: search by this copy of the space in a vector database, see :meth:`replicate`. Which items match and
                their scores are the store's; items that the copy lacks are searched in the store.
            hybrid: a column of texts: the ranking by vectors is joined with one by the words of the query in this
                column (BM25) by reciprocal rank fusion. The score of a hit is then the sum of ``1 / (60 + rank)`` over
                both.

        Returns:
            The hits, best first, with the search plan.

        Raises:
            NoTextTower: if the query is text and the space has no text tower.
            QueryError: if the query is empty, or ``k``, ``offset`` or another option is out of range; with ``hybrid``,
                if the query is no text, or has ``min_score``, ``diversity`` or ``replica``.
            BadFilter: if ``where`` is not one condition.
            UnknownColumn: if ``where``, ``group_by`` or ``hybrid`` names a column that the items lack.
            ImageError: if the image cannot be decoded.
            ReplicaError: if the replica cannot be used.
        """
        parts = operations.search.QueryParts.parse(
            query, image, plus=plus, minus=minus, like=like, unlike=unlike, templates=templates
        )
        words = parts.words(hybrid)
        options = SearchOptions(k, offset, where, min_score, group_by, diversity, exact, words=words)
        return operations.search.search(self._session, parts, space=space, options=options, replica=replica)

    def replicate(
        self,
        addresses: Names = (),
        *,
        name: str = "embedstore",
        columns: Names | None = None,
        space: str | None = None,
        check: bool = False,
        wait: float = 0.0,
        progress: Progress = False,
    ) -> ReplicaReport:
        """Copy a space into PostgreSQL with pgvector or into Qdrant, or bring the copy up to date.

        The store stays the truth: a copy can be dropped and made again. Passwords are not stored.

        Args:
            addresses: ``postgresql://USER@HOST:PORT/DATABASE`` or ``qdrant://HOST:PORT``; several servers hold a part
                of the contents each. By default those of the last call. A password comes from ``$PGPASSWORD`` or
                ``~/.pgpass``, an API key from ``$QDRANT_API_KEY``.
            name: the name of the replica and its table.
            columns: the columns to copy with the vectors; by default those of the last call.
            space: the space to copy.
            check: compare counts and 1,000 sampled vectors with the store, and write nothing.
            wait: see :class:`Store`.
            progress: see :class:`Store`.

        Returns:
            What was written, or what a check found.

        Raises:
            ReplicaError: if a server cannot be used, or its table belongs to something else.
            BadOption: if no address was ever given, or the name cannot be one.
            UnknownColumn: if the items lack a column.
            MissingExtra: if the client of the database is not installed.
            StoreBusy: if another process is still writing a copy of this space after ``wait`` seconds.
        """
        return operations.replicas.replicate(
            self._session, addresses, name=name, columns=columns, space=space, check=check, wait=wait, progress=progress
        )

    def map(
        self,
        *,
        color_by: str = "label",
        where: str | None = None,
        space: str | None = None,
        max_items: int | None = 2000,
        seed: int = 0,
    ) -> EmbeddingMap:
        """Project the items onto a plane, where near in the space is near on the map.

        Args:
            color_by: the column that colors the points.
            where: see :class:`Store`.
            space: see :class:`Store`.
            max_items: a random sample of so many items is shown if there are more; None shows all. t-SNE places some
                thousands of them; the others are placed among the nearest of these. The map of all items without a
                filter is that of the page: it is kept, and items that are added get places of their own while no other
                item moves.
            seed: random seed of the sample and the projection; with another seed than 0 a map is drawn and not kept.

        Returns:
            The map; ``.html()`` and ``.png(path)`` draw it.

        Raises:
            QueryError: if fewer than five items match.
            BadFilter: if ``where`` is not one condition.
            UnknownColumn: if ``where`` or ``color_by`` names a column that the items lack.
        """
        return operations.search.project_items(
            self._session, color_by=color_by, where=where, space=space, max_items=max_items, seed=seed
        )

    def duplicates(
        self,
        threshold: float | None = None,
        *,
        where: str | None = None,
        keep: str = "first",
        exact: bool | None = None,
        check_pixels: bool = False,
        write_columns: bool = False,
        group_column: str = "duplicate_group",
        keep_column: str = "duplicate_keep",
        space: str | None = None,
        wait: float = 0.0,
    ) -> DuplicateGroups:
        """Group items that look alike.

        Args:
            threshold: the least cosine of a pair; None chooses it from the vectors of the space.
            where: see :class:`Store`.
            keep: which item of a group to keep: ``first`` (the lowest id), ``largest`` (file), ``resolution`` (the most
                pixels), ``oldest`` or ``train-first``.
            exact: whether to compare all pairs; None does so up to 200,000 contents.
            check_pixels: compare the pixels of the twenty nearest of each image, mirrored, shifted and cropped, and let
                them decide instead of the cosine. It reads the images.
            write_columns: write the group of each item and whether to keep it as columns. They are cleared for a whole
                group when its kept item is deleted, changed or missing.
            group_column: the column for the group.
            keep_column: the column for whether to keep the item.
            space: see :class:`Store`.
            wait: see :class:`Store`.

        Returns:
            The groups, and the pairs across splits.

        Raises:
            QueryError: if the threshold is out of range, ``keep`` is unknown, or a column to write is your own.
            StoreBusy: with ``write_columns``, if another process is still writing after ``wait`` seconds.
        """
        return operations.clean.duplicates(
            self._session,
            threshold=threshold,
            where=where,
            keep=keep,
            exact=exact,
            check_pixels=check_pixels,
            columns=(group_column, keep_column) if write_columns else None,
            space=space,
            wait=wait,
        )

    def copy_errors(
        self,
        threshold: float | None = None,
        *,
        max_images: int = 100,
        where: str | None = None,
        space: str | None = None,
        seed: int = 0,
    ) -> CopyErrors:
        """Measure both errors of :meth:`duplicates` on copies of the store's own images, by cosine and by pixels.

        A sample of the images is saved again, mirrored, halved in size and cropped, and embedded; pairs of the sample
        are the pairs that are no copies.

        Args:
            threshold: see :meth:`duplicates`.
            max_images: how many images are copied, at most; two or more.
            where: see :class:`Store`.
            space: see :class:`Store`.
            seed: random seed of the sample.

        Returns:
            The share of each kind of pair that counts as copies, with its 95% interval; and, with enough images, a
            cosine that was chosen on one half of them, with its shares on the other half.

        Raises:
            BadOption: if fewer than two images are wanted.
            BadBackbone: if the space holds precomputed vectors.
            LabelError: if fewer than two images can be read.
        """
        return operations.copy_errors.measure_copy_errors(
            self._session, threshold=threshold, max_images=max_images, where=where, space=space, seed=seed
        )

    def label_conflicts(self, label: str = "label") -> LabelConflicts:
        """Find files of equal bytes with different labels: at least one label of each is wrong.

        Args:
            label: see :class:`Store`.

        Returns:
            The items of each such content with their labels.
        """
        return operations.label_conflicts.find_label_conflicts(self._session, label)

    def checkup(
        self, label: str = "label", *, budget: float = 60.0, where: str | None = None, space: str | None = None
    ) -> CheckupReport:
        """Check a set of images: failures, copies, leaks, labels, columns that tell the label, image quality.

        Args:
            label: see :class:`Store`.
            budget: no further check begins after so many seconds, and pictures are measured until then.
            where: see :class:`Store`; used by all checks but those of failures and equal files.
            space: see :class:`Store`.

        Returns:
            The findings, the worst first, each with the command that shows or corrects it, and what was looked at.

        Raises:
            BadOption: if the budget is not above 0.
        """
        return operations.checkup.checkup(self._session, label, budget=budget, where=where, space=space)

    def cluster(
        self,
        n_clusters: int,
        *,
        where: str | None = None,
        cluster_column: str = "cluster",
        outlier_column: str = "outlier",
        space: str | None = None,
        wait: float = 0.0,
    ) -> ChangedItems:
        """Write the k-means cluster of each item and its distance from the center as columns.

        Args:
            n_clusters: how many clusters; cluster 0 is the largest.
            where: see :class:`Store`.
            cluster_column: the column for the cluster.
            outlier_column: the column for 1 - cosine to the center.
            space: see :class:`Store`.
            wait: see :class:`Store`.

        Returns:
            How many items were written.

        Raises:
            QueryError: if there are fewer items than clusters, or a column to write is your own.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.clean.cluster(
            self._session,
            n_clusters,
            where=where,
            cluster_column=cluster_column,
            outlier_column=outlier_column,
            space=space,
            wait=wait,
        )

    def build_index(
        self,
        *,
        recall: float = 0.95,
        max_memory: str | int | None = None,
        kind: str | None = None,
        space: str | None = None,
        wait: float = 0.0,
        progress: Progress = None,
    ) -> IndexBuild:
        """Build an approximate index with a measured recall; searches go on meanwhile.

        Args:
            recall: the least recall of the 10 nearest that the index must reach.
            max_memory: bytes, or text such as ``"4GB"``, that the index may take, loaded or while it is built. By
                default 4 GiB, or half of the memory of this process where that is less.
            kind: ``flat``, ``hnsw`` or ``ivf``; by default chosen by size, recall and memory.
            space: see :class:`Store`.
            wait: see :class:`Store`.
            progress: see :class:`Store`.

        Returns:
            The index, its recall, and what was rejected.

        Raises:
            QueryError: if there is nothing to index, or nothing within the memory reaches the recall.
            StoreBusy: if another process is still building an index of this space after ``wait`` seconds.
        """
        return operations.search.build_index(
            self._session, recall=recall, max_memory=max_memory, kind=kind, space=space, wait=wait, progress=progress
        )

    def export(
        self,
        path: str | Path,
        *,
        file_format: str | None = None,
        vectors: bool | None = None,
        dtype: str | None = None,
        space: str | None = None,
        where: str | None = None,
    ) -> ExportReport:
        """Write items with their vectors, and images where the format holds them, for other tools.

        Args:
            path: the file to write, or a new folder.
            file_format: ``parquet``, ``npy`` (with a Parquet file of the items), ``csv``, ``webdataset`` (a ``.tar``
                file, or a folder of them), ``lance`` (a table of LanceDB), ``huggingface`` (a folder that
                ``datasets.load_dataset`` reads) or ``fiftyone``; by default as the suffix says.
            vectors: write the vectors; by default in every format but CSV.
            dtype: the type of the vectors, ``float32`` or ``float16``; by default that of the space, or float32 for
                ``npy`` and for Parquet without the extra ``frames``.
            space: see :class:`Store`.
            where: see :class:`Store`.

        Returns:
            How many items were written, and which were left out because their images cannot be read or have changed.

        Raises:
            QueryError: if the suffix is that of no format, no item matches, or no image can be read.
            BadOption: if the options do not fit the format.
            BadFilter: if ``where`` is not one condition.
            MissingExtra: if the format needs a package that is not installed.
            StoreExists: if the folder exists and is not empty.
            StoreIOError: if the folder cannot be written.
            OutputError: if the file cannot be written.
        """
        return operations.search.export(
            self._session,
            Path(path),
            file_format=file_format,
            vectors=vectors,
            dtype=dtype,
            space=space,
            where=where,
        )

    # ---- classify

    def encode(
        self,
        texts: str | Sequence[str] | None = None,
        images: Images | None = None,
        *,
        space: str | None = None,
        progress: Progress = False,
    ) -> NDArray[np.float32]:
        """Return the vectors of texts or images; nothing is stored.

        Args:
            texts: one or several; without a prompt template.
            images: paths, folders, globs, archives or uris; or images in memory (bytes of a file, an open file,
                a PIL image, a uint8 array ``(H, W, 3)``); one, or a list of them.
            space: see :class:`Store`.
            progress: see :class:`Store`.

        Returns:
            float32 ``(N, D)``, in order. Those of texts have length 1; those of images are as the space stores them,
            of length 1 only if its vectors are.

        Raises:
            QueryError: if not one of the two is given, or one is neither a text nor an image.
            NoTextTower: if the space has no text tower.
            ImageError: if an image cannot be used; the message names it.
            SourceNotFound: if there is no image, or what is named does not exist.
            BadBackbone: if the space holds precomputed vectors.
            WeightsNotFound: if the weights are not on this machine.
        """
        return operations.encode.encode(self._session, texts, images, space=space, progress=progress)

    def features(
        self,
        label: str = "label",
        *,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
    ) -> Features:
        """Load the vectors, labels, item ids, groups and splits of the labeled items.

        Args:
            label: see :class:`Store`; a list column gives several labels per item.
            where: see :class:`Store`.
            space: see :class:`Store`.
            separator: see :meth:`probe`.

        Returns:
            The features; ``.X`` is float32 ``(N, D)``, ``.y`` the labels.

        Raises:
            UnknownColumn: if the items lack the column.
            BadFilter: if ``where`` is not one condition.
            LabelError: if no item has a label and a vector.
        """
        return operations.evaluate.features(self._session, label, where=where, space=space, separator=separator)

    def distinct_labels(self, label: str = "label", *, where: str | None = None, space: str | None = None) -> list[str]:
        """List the different labels of the items that have a vector, sorted.

        Args:
            label: see :class:`Store`.
            where: see :class:`Store`.
            space: see :class:`Store`.

        Returns:
            The labels.
        """
        return operations.evaluate.distinct_labels(self._session, label, where=where, space=space)

    def probe(
        self,
        label: str = "label",
        *,
        head: str | None = None,
        task: str = "auto",
        weight: str | None = None,
        weighted_metrics: bool = False,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
        save_as: str | None = None,
        wait: float = 10.0,
        head_options: Mapping[str, Any] | None = None,
        folds: int = 0,
        seed: int = 0,
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
        drop_near_duplicates: bool = False,
        calibrate: str | None = None,
        abstain_precision: float | None = None,
        conformal_alpha: float | None = None,
        conformal_by_class: bool = False,
        choose_on: str = "folds",
        refit: bool = False,
        label_thresholds: str = "half",
        by: str | None = None,
        by_metric: str = "accuracy",
        protocol: str | None = None,
    ) -> ProbeResult:
        """Fit a head on the frozen features and evaluate it on held-out items; by default logistic regression.

        A label of numbers can be predicted as a number: then the head is ridge regression and the result a
        :class:`RegressionEvaluation`.

        Args:
            label: see :class:`Store`; a list column gives several labels per item.
            head: ``logistic``, ``knn``, ``prototype``, ``lda``, ``svm``, ``ridge``, ``mlp`` or ``kernel``; for numbers
                ``ridge`` or ``knn``. None is ``logistic`` for classes and ``ridge`` for numbers.
            task: ``classification``, ``regression``, ``ordinal`` (a few numbers in order, such as grades) or ``auto``:
                numbers with a fraction, and many different whole numbers, are a regression; everything else is a
                classification. A note says what was chosen for numbers.
            weight: a column with the weight of each item in training, at least 0; 2 counts as two items. The figures
                do not weigh the held-out items.
            weighted_metrics: also report accuracy, mean recall, log-loss and Brier score (of several labels the
                accuracy, of numbers both errors) over held-out items that count as often as their weight says.
            where: see :class:`Store`.
            space: see :class:`Store`.
            separator: split the text of the label here into several labels.
            save_as: save the fitted head under this name; with folds, one more head is fitted on all rows for that.
            wait: see :class:`Store`.
            head_options: options of the head's constructor, e.g. ``{"k": 20}``.
            folds: cross-validate over all items instead of using the split; 0 uses the split.
            seed: random seed of the hashed split, the folds and the heads.
            near_duplicates: ``group`` keeps near-duplicates together in every split and fold that is drawn and
                reports them across the items' own split, ``ignore`` does not search for them, ``drop`` also leaves
                those of held-out items out of training.
            near_duplicate_threshold: the cosine from which items count as near-duplicates; by default it is chosen
                from the vectors of the space; 0 is ``ignore``.
            drop_near_duplicates: another way to say ``near_duplicates="drop"``.
            calibrate: ``temperature`` or ``isotonic``.
            abstain_precision: answer "none of these" below a threshold that reaches this precision on new items, in
                95% of samples.
            conformal_alpha: answer with sets of classes, of which at most this share may miss the true one; for numbers
                the share outside of the prediction intervals, 0.1 by default.
            conformal_by_class: keep this share within every class.
            choose_on: ``folds`` of the training items, or the ``val`` items, select C of logistic regression.
            refit: train on the ``val`` items, too, after everything is selected.
            label_thresholds: with several labels per item, ``half`` predicts a label from a probability of one half on,
                ``chosen`` from the threshold with the highest F1 on the ``val`` items, else on training items out of
                fold.
            by: also report figures by the values of this column, e.g. a camera: accuracy per value, the worst value and
                the gaps between them (:attr:`Evaluation.slices`).
            by_metric: the figure that ranks the values, ``accuracy`` or ``mean_per_class_recall``.
            protocol: evaluate as a publication does: ``clip``, ``dinov2``, ``dinov3``, ``vtab1k`` or ``mteb`` for
                logistic regression, ``hear`` or ``superb`` for the small networks of these benchmarks of sound,
                ``dinov2`` or ``dinov3`` for ``knn``. It fixes who selects C or k, among which
                values, and what is refitted (:attr:`Evaluation.protocol`); options that contradict it are refused.

        Returns:
            The evaluation: metrics with 95% intervals, the confusion matrix, mistakes and the fitted head; of numbers
            the errors next to those of the mean, and the prediction intervals.

        Raises:
            UnknownColumn: if the items lack the column.
            BadFilter: if ``where`` is not one condition.
            LabelError: if the labels cannot support an evaluation, or the column ``by`` cannot be split into slices.
            BadOption: if ``by_metric`` is not one of the two, or is given without ``by``; if there is no such protocol,
                or an option contradicts it.
            UnknownHead: if there is no such head.
            BadHead: if the head lacks an option, or cannot be saved.
            StoreBusy: with ``save_as``, if another process is still writing after ``wait`` seconds.
        """
        return operations.evaluate.probe(
            self._session,
            label,
            head=head,
            task=task,
            weight=weight,
            weighted_metrics=weighted_metrics,
            where=where,
            space=space,
            separator=separator,
            save_as=save_as,
            wait=wait,
            head_options=head_options,
            settings=operations.evaluate.EvaluationSettings(
                folds=folds,
                seed=seed,
                near_duplicates=near_duplicates,
                near_duplicate_threshold=near_duplicate_threshold,
                drop_near_duplicates=drop_near_duplicates,
                calibrate=calibrate,
                abstain_precision=abstain_precision,
                conformal_alpha=conformal_alpha,
                conformal_by_class=conformal_by_class,
                choose_on=choose_on,
                refit=refit,
                label_thresholds=label_thresholds,
            ),
            slices=operations.evaluate.SliceOptions(by, by_metric),
            protocol=protocol,
        )

    def knn(
        self,
        label: str = "label",
        *,
        k: int | None = None,
        weights: str | None = None,
        task: str = "auto",
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
        save_as: str | None = None,
        wait: float = 10.0,
        folds: int = 0,
        seed: int = 0,
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
        drop_near_duplicates: bool = False,
        calibrate: str | None = None,
        abstain_precision: float | None = None,
        conformal_alpha: float | None = None,
        conformal_by_class: bool = False,
        choose_on: str = "folds",
        refit: bool = False,
        label_thresholds: str = "half",
        by: str | None = None,
        by_metric: str = "accuracy",
        protocol: str | None = None,
    ) -> ProbeResult:
        """Evaluate the k nearest neighbors by cosine; :meth:`probe` with ``head="knn"``.

        Args:
            label: see :class:`Store`.
            k: neighbors; 5 by default.
            weights: ``softmax`` (DINO: exp(cosine / 0.07), the default), ``uniform`` or ``distance``.
            task: see :meth:`probe`; of numbers the neighbors' weighted mean is predicted.
            where: see :class:`Store`.
            space: see :class:`Store`.
            separator: see :meth:`probe`.
            save_as: see :meth:`probe`.
            wait: see :class:`Store`.
            folds: see :meth:`probe`.
            seed: see :meth:`probe`.
            near_duplicates: see :meth:`probe`.
            near_duplicate_threshold: see :meth:`probe`.
            drop_near_duplicates: see :meth:`probe`.
            calibrate: see :meth:`probe`.
            abstain_precision: see :meth:`probe`.
            conformal_alpha: see :meth:`probe`.
            conformal_by_class: see :meth:`probe`.
            choose_on: see :meth:`probe`; only ``folds``, because nothing is selected.
            refit: see :meth:`probe`.
            label_thresholds: see :meth:`probe`.
            by: see :meth:`probe`.
            by_metric: see :meth:`probe`.
            protocol: ``dinov2`` or ``dinov3``: 10, 20, 100 and 200 neighbors in one search; the evaluated head has the
                k that is selected without the held-out items.

        Returns:
            The evaluation.

        Raises:
            StoreBusy: with ``save_as``, if another process is still writing after ``wait`` seconds.
        """
        return self.probe(
            label,
            head="knn",
            task=task,
            where=where,
            space=space,
            separator=separator,
            save_as=save_as,
            wait=wait,
            head_options=operations.evaluate.neighbor_options(k, weights, protocol),
            folds=folds,
            seed=seed,
            near_duplicates=near_duplicates,
            near_duplicate_threshold=near_duplicate_threshold,
            drop_near_duplicates=drop_near_duplicates,
            calibrate=calibrate,
            abstain_precision=abstain_precision,
            conformal_alpha=conformal_alpha,
            conformal_by_class=conformal_by_class,
            choose_on=choose_on,
            refit=refit,
            label_thresholds=label_thresholds,
            by=by,
            by_metric=by_metric,
            protocol=protocol,
        )

    def retrieval(
        self,
        label: str | None = None,
        *,
        captions: str | None = None,
        caption_vectors: Vectors | None = None,
        ks: Counts = (1, 5, 10),
        queries: str | None = None,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
        by: str | None = None,
    ) -> RetrievalReport:
        """Evaluate how well vectors find items of the same label, or captions and images each other.

        Items of the query's own group (copies of it, and a declared group) are no candidates. Of equal cosines the
        items that are not relevant come first.

        Args:
            label: see :class:`Store`; ``label`` by default, if there are no ``captions``. Items with one label of the
                query's are relevant.
            captions: a column of texts, or of lists of texts: each text searches the images, and each image the texts.
                The space needs a text tower, unless there are ``caption_vectors``.
            caption_vectors: ``(T, D)``, one row per caption: the items in order, the captions of each in theirs.
            ks: the ranks of R@k, mAP@k and nDCG@k.
            queries: ``test``, ``val`` or ``train``: items of this split search among all others. By default each item
                searches among all others.
            where: see :class:`Store`.
            space: see :class:`Store`.
            separator: see :meth:`probe`.
            near_duplicates: see :meth:`shift`.
            near_duplicate_threshold: see :meth:`probe`.
            by: also report R@1 by the values of this column.

        Returns:
            R@k, mAP@k, nDCG@k and MRR with 95% intervals over groups of queries, for each direction.

        Raises:
            UnknownColumn: if the items lack a column.
            BadFilter: if ``where`` is not one condition.
            LabelError: if there is nothing to find, or the column ``by`` cannot be split into slices.
            BadOption: if options do not go together, or a rank is below 1.
            BadVectors: if there is not one vector per caption.
            NoTextTower: if captions are to be encoded in a space of an image-only backbone.
        """
        return operations.retrieval.retrieval(
            self._session,
            label,
            where=where,
            space=space,
            separator=separator,
            options=operations.retrieval.RetrievalOptions(
                captions=captions,
                caption_vectors=caption_vectors,
                ks=ks,
                queries=queries,
                by=by,
                near_duplicates=operations.evaluate.NearDuplicateOptions(near_duplicates, near_duplicate_threshold),
            ),
        )

    def zero_shot(
        self,
        classes: Classes,
        *,
        templates: str | Names = "photo",
        space: str | None = None,
        class_vectors: Vectors | None = None,
        logit_scale: float | None = None,
    ) -> ZeroShotClassifier:
        """Make a classifier from text alone.

        Args:
            classes: class names, or prompts by class.
            templates: the sentences around a name: ``photo`` ("a photo of a {}."), ``name``, ``simple``,
                ``imagenet``, or sentences with ``{}``.
            space: see :class:`Store`.
            class_vectors: ``(K, D)`` text vectors that were computed elsewhere; then no text tower is needed.
            logit_scale: the scale of cosines; by default the model's own, 100 for given vectors.

        Returns:
            The classifier; ``.evaluate(label)`` evaluates it, ``.save(name)`` keeps it.

        Raises:
            NoTextTower: if the space has no text tower.
            LabelError: if there are fewer than two classes.
        """
        text = operations.evaluate.TextOptions(templates, class_vectors, logit_scale)
        return operations.zero_shot.zero_shot(self._session, classes, text=text, space=space)

    def few_shot(
        self,
        label: str = "label",
        classes: Classes | None = None,
        *,
        head: str = "tip-adapter",
        shots: int = 16,
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
        save_as: str | None = None,
        wait: float = 10.0,
        templates: str | Names = "photo",
        class_vectors: Vectors | None = None,
        logit_scale: float | None = None,
        by: str | None = None,
        by_metric: str = "accuracy",
    ) -> Evaluation:
        """Evaluate a head made from text and a few labeled images per class.

        Hyper-parameters are tuned on the split ``val`` if ``test`` is held out, else on shots that are held out for
        it; never on the rows that evaluate. With 0 shots it is zero-shot.

        Args:
            label: see :class:`Store`.
            classes: see :meth:`zero_shot`; by default the labels.
            head: ``tip-adapter``, ``tip-adapter-f`` (with trained keys) or ``blend``.
            shots: labeled images per class, drawn from the training rows.
            seed: random seed of the draw.
            where: see :class:`Store`.
            space: see :class:`Store`.
            near_duplicates: see :meth:`probe`; copies count as one label.
            near_duplicate_threshold: see :meth:`probe`.
            save_as: save the fitted head under this name.
            wait: see :class:`Store`.
            templates: see :meth:`zero_shot`.
            class_vectors: see :meth:`zero_shot`.
            logit_scale: see :meth:`zero_shot`.
            by: see :meth:`probe`.
            by_metric: see :meth:`probe`.

        Returns:
            The evaluation.

        Raises:
            NoTextTower: if the space has no text tower and no class vectors are given.
            LabelError: if the labels cannot support an evaluation.
            UnknownHead: if there is no such head.
            UnknownColumn: if the items lack a column.
            BadOption: if ``by_metric`` is wrong, or is given without ``by``.
            StoreBusy: with ``save_as``, if another process is still writing after ``wait`` seconds.
        """
        return operations.evaluate.few_shot(
            self._session,
            label,
            classes,
            head=head,
            shots=shots,
            seed=seed,
            where=where,
            space=space,
            save_as=save_as,
            wait=wait,
            near_duplicates=operations.evaluate.NearDuplicateOptions(near_duplicates, near_duplicate_threshold),
            text=operations.evaluate.TextOptions(templates, class_vectors, logit_scale),
            slices=operations.evaluate.SliceOptions(by, by_metric),
        )

    def few_shot_curve(
        self,
        label: str = "label",
        classes: Classes | None = None,
        *,
        head: str = "tip-adapter",
        shots: Counts = (1, 2, 4, 8, 16),
        repeats: int = 5,
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
        templates: str | Names = "photo",
        class_vectors: Vectors | None = None,
        logit_scale: float | None = None,
    ) -> LearningCurve:
        """Evaluate a few-shot head over numbers of shots.

        Args:
            label: see :class:`Store`.
            classes: see :meth:`zero_shot`; by default the labels.
            head: see :meth:`few_shot`.
            shots: labeled images per class; all training rows come last.
            repeats: draws per number of shots.
            seed: random seed of the first draw.
            where: see :class:`Store`.
            space: see :class:`Store`.
            near_duplicates: see :meth:`probe`; copies count as one label.
            near_duplicate_threshold: see :meth:`probe`.
            templates: see :meth:`zero_shot`.
            class_vectors: see :meth:`zero_shot`.
            logit_scale: see :meth:`zero_shot`.

        Returns:
            Accuracy over shots: mean and standard deviation.
        """
        return operations.evaluate.few_shot_learning_curve(
            self._session,
            label,
            classes,
            head=head,
            shots=shots,
            repeats=repeats,
            seed=seed,
            where=where,
            space=space,
            near_duplicates=operations.evaluate.NearDuplicateOptions(near_duplicates, near_duplicate_threshold),
            text=operations.evaluate.TextOptions(templates, class_vectors, logit_scale),
        )

    def learning_curve(
        self,
        label: str = "label",
        *,
        head: str | None = None,
        task: str = "auto",
        labels_per_class: Counts | None = None,
        repeats: int = 5,
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
        head_options: Mapping[str, Any] | None = None,
    ) -> LearningCurve:
        """Evaluate a head over numbers of labels: how many labels are needed?

        Args:
            label: see :class:`Store`.
            head: see :meth:`probe`.
            task: see :meth:`probe`.
            labels_per_class: labels per class, by default 1, 2, 4, 8 and 16; for numbers labels in all, by default 20,
                50, 100, 200 and 500. All training rows come last.
            repeats: draws per number of labels.
            seed: random seed of the first draw and of the split.
            where: see :class:`Store`.
            space: see :class:`Store`.
            separator: see :meth:`probe`.
            near_duplicates: see :meth:`probe`; copies count as one label.
            near_duplicate_threshold: see :meth:`probe`.
            head_options: see :meth:`probe`.

        Returns:
            Accuracy over labels per class (mean average precision for several labels per item, mean absolute error for
            numbers): mean and standard deviation.

        Raises:
            LabelError: if the labels cannot support an evaluation.
        """
        return operations.evaluate.evaluate_learning_curve(
            self._session,
            label,
            head=head,
            task=task,
            labels_per_class=labels_per_class,
            repeats=repeats,
            seed=seed,
            where=where,
            space=space,
            separator=separator,
            near_duplicates=operations.evaluate.NearDuplicateOptions(near_duplicates, near_duplicate_threshold),
            head_options=head_options,
        )

    def compare_heads(
        self,
        label: str = "label",
        *,
        spaces: Names | None = None,
        heads: Names | None = None,
        task: str = "auto",
        classes: Classes | None = None,
        templates: str | Sequence[str] = "photo",
        class_vectors: Vectors | None = None,
        logit_scale: float | None = None,
        labels_per_class: Counts = (),
        where: str | None = None,
        separator: str | None = None,
        folds: int = 0,
        seed: int = 0,
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
        drop_near_duplicates: bool = False,
        calibrate: str | None = None,
        abstain_precision: float | None = None,
        conformal_alpha: float | None = None,
        conformal_by_class: bool = False,
        choose_on: str = "folds",
        refit: bool = False,
        label_thresholds: str = "half",
    ) -> HeadComparison | RegressionComparison:
        """Compare spaces and heads on one split: which backbone, which head, how many labels, and is it luck?

        Args:
            label: see :class:`Store`.
            spaces: names or keys; by default every space that has vectors.
            heads: names of heads as for :meth:`probe`, by default ``logistic``, ``knn`` and ``prototype``, for numbers
                ``ridge`` and ``knn``; also ``zero-shot``, and the heads of :meth:`few_shot`, which learn from all
                training items.
            task: see :meth:`probe`.
            classes: see :meth:`zero_shot`; by default the labels.
            templates: see :meth:`zero_shot`.
            class_vectors: see :meth:`zero_shot`, for a comparison in one space.
            logit_scale: see :meth:`zero_shot`.
            labels_per_class: e.g. ``(1, 4, 16)``: adds each contestant's learning curve.
            where: see :class:`Store`.
            separator: see :meth:`probe`.
            folds: see :meth:`probe`.
            seed: see :meth:`probe`.
            near_duplicates: see :meth:`probe`.
            near_duplicate_threshold: see :meth:`probe`.
            drop_near_duplicates: see :meth:`probe`.
            calibrate: see :meth:`probe`.
            abstain_precision: see :meth:`probe`.
            conformal_alpha: see :meth:`probe`.
            conformal_by_class: see :meth:`probe`.
            choose_on: see :meth:`probe`; the other heads do not select C.
            refit: see :meth:`probe`.
            label_thresholds: see :meth:`probe`.

        Returns:
            The contestants, best first, with their gap to the best and its p-value; of numbers the gap of the mean
            absolute errors.

        Raises:
            SpaceNotFound: if there is no such space.
            LabelError: if the labels cannot support an evaluation.
            NoTextTower: if a head is made from text, and a space has no text tower.
            UnknownHead: if there is no such head.
        """
        return operations.evaluate.compare(
            self._session,
            label,
            spaces=spaces,
            head_names=heads,
            task=task,
            classes=classes,
            text=operations.evaluate.TextOptions(templates, class_vectors, logit_scale),
            labels_per_class=labels_per_class,
            where=where,
            separator=separator,
            settings=operations.evaluate.EvaluationSettings(
                folds=folds,
                seed=seed,
                near_duplicates=near_duplicates,
                near_duplicate_threshold=near_duplicate_threshold,
                drop_near_duplicates=drop_near_duplicates,
                calibrate=calibrate,
                abstain_precision=abstain_precision,
                conformal_alpha=conformal_alpha,
                conformal_by_class=conformal_by_class,
                choose_on=choose_on,
                refit=refit,
                label_thresholds=label_thresholds,
            ),
        )

    @property
    def heads(self) -> list[HeadRecord]:
        """The saved heads, oldest first."""
        return operations.heads.saved_heads(self._session)

    def head(self, name: str, *, space: str | None = None) -> Any:
        """Load a saved head as a fitted scikit-learn classifier.

        Args:
            name: the name that it was saved under.
            space: the space that the head must belong to; by default any.

        Returns:
            The classifier.

        Raises:
            UnknownHead: if there is no such head.
            SpaceMismatch: if it belongs to another space.
            StoreDamaged: if its files are not what was written.
        """
        return operations.heads.load(self._session, name, space=space)

    def save_head(self, name: str, evaluation: ProbeResult, *, wait: float = 10.0) -> HeadRecord:
        """Save the head of an evaluation, bound to its space, label and classes; a head of that name is replaced.

        Args:
            name: letters, digits, ``_`` and ``-``.
            evaluation: what :meth:`probe` or another method returned.
            wait: see :class:`Store`.

        Returns:
            The record of the head.

        Raises:
            BadHead: if the name does not fit, or the head cannot be stored without pickle.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.heads.save(self._session, name, evaluation, wait=wait)

    def delete_head(self, name: str, *, wait: float = 10.0) -> None:
        """Delete a saved head and its predictions.

        Args:
            name: see :meth:`head`.
            wait: see :class:`Store`.

        Raises:
            UnknownHead: if there is no such head.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        operations.heads.delete(self._session, name, wait=wait)

    def predict(
        self, head: str, *, where: str | None = None, space: str | None = None, wait: float = 10.0
    ) -> PredictionSummary:
        """Predict the class of every matching item with a saved head, and write the table ``predictions``.

        From then on every filter may use ``pred.NAME`` (the class) and ``pred.NAME.score``.

        Args:
            head: its name.
            where: see :class:`Store`; ``"pred.NAME is null"`` takes what is new or changed.
            space: see :meth:`head`; by default its own.
            wait: see :class:`Store`.

        Returns:
            Counts of items by predicted class.

        Raises:
            UnknownHead: if there is no such head.
            SpaceMismatch: if the head belongs to another space.
            StoreDamaged: if the files of the head are not what was written.
            BadFilter: if ``where`` is not one condition.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.heads.predict(self._session, head, where=where, space=space, wait=wait)

    def classify(
        self,
        images: Images,
        head: str,
        *,
        text_column: str | None = None,
        uri_column: str | None = None,
        root: str | Path | None = None,
        encoding: str | None = None,
        evidence: int = 3,
        space: str | None = None,
        progress: Progress = False,
    ) -> ClassifiedImages:
        """Classify images, texts or clips that are not items, with a saved head; nothing is stored.

        Each image is read, decoded, embedded and classified as ``embed`` and ``predict`` would, at the same speed.

        Args:
            images: see :meth:`encode`; for a head over texts or sounds files of these, or a table with ``text_column``.
            head: its name.
            text_column: the column whose texts are classified, one per row, if ``images`` is a table (CSV, TSV, JSON,
                Parquet) or a saved data set.
            uri_column: the column that names the images, if ``images`` is a table of names; by default ``uri``.
            root: see :meth:`embed`.
            encoding: see :meth:`embed`.
            evidence: how many labeled items that are nearest to an image to return with it, 0 to 100.
            space: see :meth:`head`; by default its own.
            progress: see :class:`Store`.

        Returns:
            One prediction per image, in order; an image that cannot be used has a failure instead.

        Raises:
            UnknownHead: if there is no such head.
            SpaceMismatch: if the head belongs to another space.
            StoreDamaged: if the files of the head are not what was written.
            SourceNotFound: if there is no image, or what is named does not exist.
            BadBackbone: if the space of the head has no network for images.
            WeightsNotFound: if its weights are not on this machine.
            BadOption: if ``text_column`` is given and the head is not over texts, there is no such encoding, an option
                of tables is given for images in memory, or evidence is out of range.
            BadManifest: if the table cannot be read or has no such column, or an option of tables is given for another
                source.
            BadEncoding: if the table has another encoding.
            QueryError: if one of the images is neither a name nor an image.
        """
        table = TableOptions(uri_column, root, encoding, text_column=text_column)
        items = operations.encode.NewItems(images, table)
        return operations.classify_images.classify(
            self._session, items, head=head, evidence=evidence, space=space, progress=progress
        )

    def export_head(self, name: str, path: str | Path) -> Path:
        """Write a head over vectors: a linear one as ``.npz`` (weights, intercepts, classes), most as ``.onnx``.

        Args:
            name: see :meth:`head`.
            path: the file to write.

        Returns:
            The path.

        Raises:
            UnknownHead: if there is no such head.
            BadHead: if the head cannot be written in that form, or the suffix is another one.
            OutputError: if the file cannot be written.
            MissingExtra: if onnx is not installed.
        """
        return operations.heads.export(self._session, name, Path(path))

    def export_classifier(self, name: str, path: str | Path) -> ExportedClassifier:
        """Write preprocessing, backbone and head as one ONNX model that needs neither the store nor embedstore.

        Its input is ``images``, uint8 ``(N, height, width, 3)``: RGB, upright, of any size. It resizes and crops as
        the space does. Its outputs are ``probabilities``, float32 ``(N, K)``, and ``label``, or ``predicted``, bool
        ``(N, K)``, of a head that predicts sets of classes. The classes are in the metadata of the model. Before the
        file is written, onnxruntime computes up to 16 images of the store: their probabilities agree to 1e-4.

        Args:
            name: see :meth:`head`.
            path: the ``.onnx`` file to write.

        Returns:
            The file, its size and the largest difference of a probability.

        Raises:
            UnknownHead: if there is no such head.
            BadHead: if the head has no such form (kNN, kernel and few-shot heads, numbers), or the suffix is another.
            BadBackbone: if the space has no network for images, or it cannot be exported.
            WeightsNotFound: if its weights are not on this machine.
            RuntimeMismatch: if the model gives other probabilities; nothing is written.
            OutputError: if the file cannot be written.
            MissingExtra: if onnx or onnxruntime is not installed.
        """
        return operations.export_classifier.export_classifier(self._session, name, Path(path))

    def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8642,
        token: str | None = None,
        read_only: bool = False,
        open_browser: bool = True,
        replica: str | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        """Serve the page and its HTTP API until the process is interrupted (Ctrl-C).

        Args:
            host: the address to listen at; any but a loopback address needs a token.
            port: the port to listen at; 0 takes a free one.
            token: the secret that a browser or program shows, of at least 32 characters; by default a new one.
            read_only: refuse every change of the store.
            open_browser: open the page in a browser.
            replica: see :meth:`search`; a request may name another or none.
            announce: called with each line for the user, the first of which has the address; by default they are
                written to stdout.

        Raises:
            BadOption: if the port, the token or the name of the replica cannot be used, or other machines could connect
                without a token.
            ReplicaError: if no space has such a replica.
            ServerError: if the server cannot listen at the address, such as a port that is in use.
        """
        from embedstore.server.run import ServerOptions, serve

        options = ServerOptions(host, port, token, read_only, open_browser, replica)
        serve(self, self._session, options, announce)

    def serve_tools(self, *, read_only: bool = False) -> None:
        """Offer the store as tools of the Model Context Protocol on stdin and stdout, until the client closes them.

        Args:
            read_only: offer no tool that changes the store.

        Raises:
            MissingExtra: if the package ``mcp`` is not installed.
        """
        from embedstore.server.mcp_tools import serve_tools

        serve_tools(self, self._session, read_only=read_only)

    # ---- label and clean

    def shift(
        self,
        first: str | None = None,
        second: str | None = None,
        *,
        where: str | None = None,
        space: str | None = None,
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
        max_items: int = 5000,
        seed: int = 0,
    ) -> ShiftReport:
        """Test whether two sets of items differ: train against test, or old items against new ones.

        A classifier is trained to tell the sets apart from their vectors, and judged on items that did not train it
        (a two-sample test, Lopez-Paz and Oquab 2017).

        Args:
            first: a filter; by default the items of the split ``train``.
            second: a filter, such as ``"added >= '2026-11-01'"``; by default the items of ``test``, or of ``val`` if
                there is no ``test``.
            where: see :class:`Store`; both sets must match it.
            space: see :class:`Store`.
            near_duplicates: ``group`` treats near-duplicates as one group, ``ignore`` does not search for them.
            near_duplicate_threshold: see :meth:`probe`.
            max_items: the most independent items of each set that are compared; more are sampled.
            seed: random seed of the sample, the folds and the permutations.

        Returns:
            The p-value, the AUROC with its interval, and the items that show the difference most.

        Raises:
            BadOption: if one of the two filters is missing.
            BadFilter: if a filter is not one condition.
            UnknownColumn: if a filter names an unknown column.
            LabelError: if the items have no split, or a set has fewer than 20 independent items.
        """
        settings = operations.shift.ShiftSettings(
            operations.evaluate.NearDuplicateOptions(near_duplicates, near_duplicate_threshold), max_items, seed
        )
        return operations.shift.shift(self._session, first, second, settings, where=where, space=space)

    def label_errors(
        self,
        label: str = "label",
        *,
        head: str = "logistic",
        folds: int = 5,
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
        ranked_by: str = "self_confidence",
        flagged_by: str = "confident_learning",
        near_duplicates: str = "group",
        near_duplicate_threshold: float | None = None,
    ) -> LabelErrorReport:
        """Rank all labels by how doubtful they are, and flag those that are probably wrong.

        Confident learning (Northcutt et al. 2021) on out-of-fold probabilities. Labels that :meth:`confirm_labels` has
        recorded are not listed again.

        Args:
            label: see :class:`Store`.
            head: see :meth:`probe`.
            folds: the number of folds of the cross-validation.
            seed: random seed of the folds and of the head.
            where: see :class:`Store`.
            space: see :class:`Store`.
            separator: see :meth:`probe`.
            ranked_by: ``self_confidence`` (the probability of the label), ``neighbors`` (its mean with the votes of the
                20 nearest items, which finds more and takes longer), ``normalized_margin`` (the probability minus that
                of the best other label) or ``weighted_entropy``.
            flagged_by: ``confident_learning``, ``prune_by_class``, ``prune_by_noise_rate`` or ``both`` of these.
            near_duplicates: see :meth:`probe`.
            near_duplicate_threshold: see :meth:`probe`.

        Returns:
            The labels that are probably wrong, the ranking of all, and the estimated share of wrong ones.

        Raises:
            LabelError: if there are too few items per class, or a score or filter has another name.
        """
        return operations.labels.find_label_errors(
            self._session,
            label,
            operations.labels.LabelErrorSettings(
                head=head,
                folds=folds,
                seed=seed,
                ranked_by=ranked_by,
                flagged_by=flagged_by,
                near_duplicates=operations.evaluate.NearDuplicateOptions(near_duplicates, near_duplicate_threshold),
            ),
            where=where,
            space=space,
            separator=separator,
        )

    def check_near_duplicates(
        self,
        label: str = "label",
        *,
        max_images: int = 30,
        near_duplicate_threshold: float | None = None,
        where: str | None = None,
        space: str | None = None,
        seed: int = 0,
    ) -> NearDuplicateCheck:
        """Measure which copies the threshold of near-duplicates finds, on copies of the store's own images.

        A sample of the images is saved again at JPEG quality 50, mirrored and halved in size, and embedded.

        Args:
            label: see :class:`Store`.
            max_images: images of the sample.
            near_duplicate_threshold: see :meth:`probe`.
            where: see :class:`Store`.
            space: see :class:`Store`.
            seed: random seed of the sample.

        Returns:
            The threshold, the copies of each kind that it finds, and the false pairs that are expected.

        Raises:
            BadBackbone: if the space holds precomputed vectors.
            LabelError: if no image can be read, or the threshold is not above 0.
        """
        return operations.near_duplicate_check.check_near_duplicates(
            self._session,
            label,
            max_images=max_images,
            threshold=near_duplicate_threshold,
            where=where,
            space=space,
            seed=seed,
        )

    def confirm_labels(
        self,
        items: ItemIds,
        label: str = "label",
        *,
        separator: str | None = None,
        space: str | None = None,
        wait: float = 10.0,
    ) -> ChangedItems:
        """Record that the labels of items are right, so that :meth:`label_errors` does not list them again.

        An item whose label changes later is listed again.

        Args:
            items: ids of items that have the label.
            label: see :class:`Store`.
            separator: see :meth:`label_errors`.
            space: see :class:`Store`.
            wait: see :class:`Store`.

        Returns:
            How many items were recorded.

        Raises:
            LabelError: if an item has no such label.
            StoreBusy: if another process is writing after ``wait`` seconds.
        """
        return operations.labels.confirm_labels(
            self._session, items, label, separator=separator, space=space, wait=wait
        )

    def suggest_labels(
        self,
        label: str = "label",
        *,
        k: int = 20,
        head: str = "logistic",
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
    ) -> LabelSuggestions:
        """Suggest what to label next, from the first label on.

        While there are fewer than two labels per class, the items are typical of regions without a label (TypiClust,
        Hacohen et al. 2022). From then on they are those that the head is unsure of, spread by k-means (Zhdanov 2019).
        Of very many unlabeled items a random sample is compared.

        Args:
            label: see :class:`Store`; every labeled item is a training row, and it may be empty.
            k: items wanted.
            head: see :meth:`probe`.
            seed: random seed of the head, the sample and the clusters.
            where: see :class:`Store`; it selects the items to choose from.
            space: see :class:`Store`.
            separator: see :meth:`probe`.

        Returns:
            The items, with the class that the head would predict if two classes have a label.

        Raises:
            LabelError: if the column holds numbers.
            UnknownColumn: if there is no such column.
        """
        return operations.labels.suggest_labels(
            self._session, label, k=k, head=head, seed=seed, where=where, space=space, separator=separator
        )

    def forecast_labels(
        self,
        label: str = "label",
        *,
        head: str = "logistic",
        seed: int = 0,
        where: str | None = None,
        space: str | None = None,
        separator: str | None = None,
    ) -> LabelForecast:
        """Forecast what more labels are worth: the accuracy to expect at twice the labels, with an interval.

        Folds of the labeled items are predicted by heads that were fitted on a quarter, on half and on all of the
        others. The figures hold for new items of the same kind as the labeled ones. Labels that were chosen because
        they are hard are harder than the rest, so the accuracy on the rest is higher.

        Args:
            label: see :class:`Store`; one label per item.
            head: see :meth:`probe`.
            seed: random seed of the folds and of the head.
            where: see :class:`Store`; it selects the labeled items.
            space: see :class:`Store`.
            separator: see :meth:`probe`.

        Returns:
            The accuracy today and at twice the labels, the gain, what a point costs in labels, and whether more pay.

        Raises:
            LabelError: if fewer than 20 different pictures or fewer than two classes have a label, if an item has
                several, or if the column holds numbers.
            NoLabels: if no item has a label.
            UnknownColumn: if there is no such column.
        """
        return operations.labels.forecast_labels(
            self._session, label, head=head, seed=seed, where=where, space=space, separator=separator
        )

    # ---- change

    def edit(
        self,
        assignments: Mapping[str, str],
        where: str | None = None,
        *,
        items: ItemIds | None = None,
        create_columns: bool = False,
        wait: float = 0.0,
    ) -> ChangedItems:
        """Set columns to SQL expressions over the items: ``store.edit({"label": "'bee'"}, "label = 'Bee'")``.

        Args:
            assignments: expressions by column: label, split, group_id or one of the user's own.
            where: a filter, ``"true"`` for all items.
            items: item ids; with ``where``, items must match both.
            create_columns: add columns that do not exist.
            wait: see :class:`Store`.

        Returns:
            How many items were changed.

        Raises:
            UnknownColumn: if a column does not exist; nothing is changed.
            BadFilter: if ``where`` is not one condition; nothing is changed.
            QueryError: if an expression cannot be used; nothing is changed.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.edit.edit(self._session, assignments, where, items, create_columns=create_columns, wait=wait)

    def edit_from_table(
        self,
        table: Any,
        *,
        key: str | None = None,
        root: str | Path | None = None,
        encoding: str | None = None,
        wait: float = 0.0,
    ) -> TableEdit:
        """Set columns from a table with a column ``item`` or ``uri``; an empty cell empties the value.

        Args:
            table: a CSV, TSV, Parquet or JSON file, a DataFrame, an Arrow table or a dict of columns.
            key: the column that names the items; by default ``item``, else ``uri``.
            root: see :meth:`embed`.
            encoding: see :meth:`embed`.
            wait: see :class:`Store`.

        Returns:
            How many rows were used, and how many name an item that the store does not have.

        Raises:
            SourceNotFound: if there is no such file.
            BadManifest: if the table cannot be used, or names no item of the store; nothing is changed.
            BadEncoding: if a text file has another encoding; nothing is changed.
            QueryError: if a column cannot be set; nothing is changed.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        options = TableOptions(root=root, encoding=encoding)
        return operations.edit.edit_from_table(self._session, table, key=key, options=options, wait=wait)

    def rename(self, old: str, new: str, *, wait: float = 0.0) -> ChangedItems:
        """Give an item another uri, or with ``/`` at the end all items below a folder; files are not touched.

        Args:
            old: the uri, or the folder.
            new: what replaces it.
            wait: see :class:`Store`.

        Returns:
            How many items were renamed.

        Raises:
            QueryError: if nothing has that uri, or the new one is in use.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.edit.rename(self._session, old, new, wait=wait)

    def delete(self, where: str | None = None, *, items: ItemIds | None = None, wait: float = 0.0) -> ChangedItems:
        """Delete items; a later scan of their files brings them back as new items.

        Args:
            where: a filter, ``"true"`` for all items.
            items: see :meth:`edit`.
            wait: see :class:`Store`.

        Returns:
            How many items were deleted.

        Raises:
            QueryError: if neither is given, or an id does not exist; nothing is changed.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.edit.delete(self._session, where, items, wait=wait)

    def purge(self, where: str | None = None, *, items: ItemIds | None = None, wait: float = 0.0) -> PurgedItems:
        """Remove the contents of items for good, with all items that have them; :meth:`compact` wipes their bytes.

        Predictions and failures of the items go too, and the texts about them in the table ``runs``: uris, digests,
        values that no other item has, and the texts of edits, unless an edit was of other items by their ids. Saved
        heads that hold a copy of a vector (k-nearest neighbors) or a class of these items only are deleted, and so are
        the pictures of training images in checkpoints. Other heads and fine-tuned networks may have learned from the
        items: fit them again. Backups, exports and the folder ``quarantine`` keep theirs.

        Args:
            where: a filter, ``"true"`` for all items.
            items: see :meth:`edit`.
            wait: see :class:`Store`.

        Returns:
            What was removed.

        Raises:
            QueryError: if neither is given, or an id does not exist; nothing is changed.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.edit.purge(self._session, where, items, wait=wait)

    def set_default(self, space: str | FinetuneResult, *, refit_heads: bool = False, wait: float = 0.0) -> DefaultSpace:
        """Make a space the default one; it is changed back in the same way.

        Saved heads stay with the space that they were fitted in, and are refused elsewhere.

        Args:
            space: name, key, or what :meth:`finetune` returned.
            refit_heads: before that, fit the saved heads of its parent, children and siblings again in it, under
                their names; they replace the old ones.
            wait: see :class:`Store`.

        Returns:
            The name of the space, contents without a vector in it, and heads that were refitted or skipped.

        Raises:
            SpaceNotFound: if there is no such space.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        key = space if isinstance(space, str) else space.key
        return operations.spaces.set_default(self._session, key, refit_heads=refit_heads, wait=wait)

    def rename_space(self, old: str, new: str, *, wait: float = 0.0) -> None:
        """Rename a space.

        Args:
            old: its name or key.
            new: its new name.
            wait: see :class:`Store`.

        Raises:
            SpaceNotFound: if there is no such space.
            QueryError: if the new name is in use or does not fit.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        operations.spaces.rename(self._session, old, new, wait=wait)

    def drop_space(self, space: str, *, wait: float = 0.0) -> DroppedSpace:
        """Remove a space with its vectors, indexes and checkpoint.

        Args:
            space: its name or key.
            wait: see :class:`Store`.

        Returns:
            How many vectors and bytes were removed.

        Raises:
            SpaceNotFound: if there is no such space.
            SpaceMismatch: if heads depend on it, or it is the only or the default space.
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.spaces.drop(self._session, space, wait=wait)

    # ---- fine-tune

    def finetune(
        self,
        label: str = "label",
        *,
        space: str | None = None,
        space_name: str | None = None,
        embed: bool = True,
        where: str | None = None,
        wait: float = 60.0,
        progress: Progress = None,
        **settings: Unpack[FinetuneOptions],
    ) -> FinetuneResult:
        """Train the backbone of a space on a label: a checkpoint and a new space next to the old one.

        By default the head of the probe is fitted first, and then everything is trained from there at a low rate
        (LP-FT, Kumar et al. 2022). A run that was killed resumes; one that is finished is recognized. The old space is
        not touched and stays the default; :meth:`set_default` changes that. Under ``accelerate launch`` every process
        trains, and the first one alone writes, embeds and compares.

        Args:
            label: see :class:`Store`.
            space: the space whose backbone is trained.
            space_name: the name of the new space; by default that of the old one and of the label.
            embed: embed all images of the store into the new space, and compare both spaces.
            where: see :class:`Store`.
            wait: see :class:`Store`.
            progress: see :class:`Store`.
            **settings: the fields of :class:`embedstore.finetuning.FinetuneSettings` and
                :class:`embedstore.finetuning.AugmentationSettings`.

        Returns:
            The new space, the history of the training, and the comparison.

        Raises:
            UnknownOption: if there is no such setting.
            FinetuneError: if a setting is out of range or does not fit the network.
            LabelError: if the labels cannot support a training.
            MissingExtra: if accelerate is not installed.
            StoreIOError: if the disk has not enough room; raised before the training.
            StoreBusy: if the same run is going on in another process.
        """
        return operations.finetune.finetune(
            self._session,
            label,
            space=space,
            space_name=space_name,
            embed=embed,
            where=where,
            wait=wait,
            progress=progress,
            options=settings,
        )

    def compare_spaces(
        self,
        label: str = "label",
        space: str | None = None,
        baseline: str | None = None,
        *,
        where: str | None = None,
        seed: int = 0,
    ) -> SpaceComparison:
        """Compare two spaces on the same held-out items: probe, kNN, zero-shot, per class, with significance.

        Args:
            label: see :class:`Store`.
            space: by default the latest fine-tuned space.
            baseline: by default the space that it was fine-tuned from.
            where: see :class:`Store`.
            seed: random seed of the split.

        Returns:
            Pairs of evaluations with the difference in accuracy and its interval.

        Raises:
            SpaceNotFound: if there is no such space.
            LabelError: if the labels cannot support an evaluation, or no space is fine-tuned.
        """
        return operations.compare_spaces.compare(self._session, label, space, baseline, where=where, seed=seed)

    def advise(
        self, label: str = "label", *, space: str | None = None, where: str | None = None, seed: int = 0
    ) -> FinetuningAdvice:
        """Recommend one of four strategies: frozen features, a new head, fine-tuning the last layers, or all layers.

        It measures labels per class, the probe on held-out and on training items, what the last doubling of the
        labels gained, and how far at most 256 images are from the backbone's own statistics. Backbones without
        BatchNorm are compared with themselves at random weights instead.

        Args:
            label: see :class:`Store`.
            space: see :class:`Store`.
            where: see :class:`Store`.
            seed: random seed of the split.

        Returns:
            The strategy, and the figures behind it.

        Raises:
            LabelError: if the labels cannot support a probe.
        """
        return operations.advise.advise(self._session, label, space=space, where=where, seed=seed)

    def compare_strategies(
        self,
        label: str = "label",
        *,
        labels_per_class: Counts = (10, 50),
        last_layers: str = "last-2",
        plot_path: str | Path | None = None,
        where: str | None = None,
        space: str | None = None,
        progress: Progress = None,
        **settings: Unpack[FinetuneOptions],
    ) -> StrategyComparison:
        """Train from scratch, a frozen probe, the last layers and all layers, and compare them on the same items.

        Only the run is recorded; no space is added. Every result is a training of its own: this takes long. After an
        interruption the same call keeps the trainings that are done.

        Args:
            label: see :class:`Store`.
            labels_per_class: numbers of labels per class; a last step uses all labels.
            last_layers: what "last layers" means, such as ``last-2``.
            plot_path: a PNG file for the plot.
            where: see :class:`Store`.
            space: see :class:`Store`.
            progress: a function that is called with the outlook (what is to be trained, and how long it may take), then
                with each result.
            **settings: the settings of every training, as for :meth:`finetune`.

        Returns:
            The table of results.

        Raises:
            UnknownOption: if there is no such setting.
            FinetuneError: if a setting is out of range or does not fit the network.
            LabelError: if the labels cannot support a training.
            MissingExtra: if accelerate is not installed.
        """
        return operations.advise.compare_strategies(
            self._session,
            label,
            labels_per_class=labels_per_class,
            last_layers=last_layers,
            plot_path=plot_path,
            where=where,
            space=space,
            progress=progress if callable(progress) else lambda _: None,
            options=settings,
        )

    # ---- keep safe

    def verify(self, *, check_images: bool = False, progress: Progress = False) -> VerificationReport:
        """Read every file that the store needs and compare it with its stored checksum.

        Args:
            check_images: read every image again too, and compare it with the content that was embedded.
            progress: see :class:`Store`.

        Returns:
            The damage that was found; ``.ok`` is True without damage.
        """
        return operations.maintenance.verify(self._session, check_images=check_images, progress=progress)

    def repair(self, *, reembed: bool = True, wait: float = 0.0) -> RepairReport:
        """Repair what :meth:`verify` finds.

        Args:
            reembed: embed lost vectors again if the backbone can be loaded.
            wait: see :class:`Store`.

        Returns:
            What was repaired, and what is lost.

        Raises:
            StoreBusy: if another process is still writing after ``wait`` seconds.
            StoreDamaged: if the store cannot be repaired; restore it from a backup.
        """
        return operations.maintenance.repair(self.path, lambda: self._session, reembed=reembed, wait=wait)

    def compact(self, *, wait: float = 0.0, progress: Progress = False) -> Compaction:
        """Merge small vector files, remove vectors that no item needs, and rebuild the indexes of the changed spaces.

        Args:
            wait: see :class:`Store`.
            progress: see :class:`Store`.

        Returns:
            Files before and after, rows and bytes that were freed.

        Raises:
            StoreBusy: if another process is still writing after ``wait`` seconds.
        """
        return operations.edit.compact_store(self._session, wait=wait, progress=progress)

    def backup(self, target: str | Path, *, hard_link: bool = False, progress: Progress = False) -> Backup:
        """Copy the store consistently to a new folder, also while another process embeds.

        Args:
            target: a new folder outside of the store.
            hard_link: make hard links to the vector files instead of copies: instant, but on the same disk.
            progress: see :class:`Store`.

        Returns:
            Vector files and bytes.

        Raises:
            StoreExists: if something is at ``target``.
            StoreDamaged: if a vector file is not what was written.
            StoreIOError: if the disk refuses; nothing is left at ``target``.
        """
        return operations.maintenance.backup(self._session, target, hard_link=hard_link, progress=progress)

    def export_store(self, folder: str | Path) -> ArchiveCounts:
        """Write the whole store as Parquet files to a new folder, also while another process writes.

        It has every table, every vector of every space bit for bit, heads and checkpoints;
        :func:`embedstore.import_store` makes a store from it. It has no indexes, which are built again, and no
        quarantine.

        Args:
            folder: a new folder outside of the store.

        Returns:
            Rows by table, vectors, files and bytes.

        Raises:
            StoreExists: if something is at ``folder``.
            StoreDamaged: if a vector or a head is not what was written.
            StoreIOError: if the disk refuses; nothing is left at ``folder``.
        """
        return operations.maintenance.export_store(self._session, Path(folder))

    def backbone(self, space: str | None = None) -> Backbone:
        """Return the loaded backbone of a space.

        Args:
            space: see :class:`Store`.

        Returns:
            The backbone, loaded once per process.

        Raises:
            SpaceMismatch: if what loads now is not what the space was made with.
            BadBackbone: if the space holds precomputed vectors.
            WeightsNotFound: if the weights are not on this machine.
        """
        return self._session.backbone(space)


@check_arguments
def create(
    path: str | Path,
    backbone: str | None = None,
    *,
    weights: str | Path | None = None,
    backbone_args: Mapping[str, JsonScalar] | None = None,
    preprocess: Mapping[str, JsonScalar] | None = None,
    layer: str | None = None,
    pool: str | None = None,
    random_init: bool = False,
    seed: int = 0,
    dtype: str = "float16",
    space_name: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    decoder: str = "auto",
) -> Store:
    """Create a store, and the space of a backbone if one is named.

    Args:
        path: a new folder.
        backbone: ``timm/<name>[.tag]``, ``open_clip/<arch>:<pretrained>``, ``module:factory`` or an alias such as
            ``clip``. None makes a store for precomputed vectors, or for a backbone that is named later.
        weights: a local weights file instead of the library's own loading.
        backbone_args: keyword arguments of the architecture.
        preprocess: overrides of the model's own preprocessing, e.g. ``{"mean": 0.5}``; recorded in the space.
        layer: the layer whose features are taken; by default the last one.
        pool: how features are pooled: ``avg``, ``max`` or ``token``; by default the backbone's own way.
        random_init: use random weights, on purpose; recorded in the space.
        seed: random seed of random weights.
        dtype: ``float16`` or ``float32``, of the vectors on disk.
        space_name: the name of the space; by default a short name of the backbone.
        device: see :func:`embedstore.open`.
        precision: see :func:`embedstore.open`.
        runtime: see :func:`embedstore.open`; not part of the space.
        decoder: see :func:`embedstore.open`.

    Returns:
        The open store.

    Raises:
        StoreExists: if something is at ``path``.
        UnknownBackbone: if there is no such architecture or tag; nothing is created.
        WeightsNotFound: if the weights are not on this machine; nothing is created.
        WeightsMismatch: if the weights do not fit the architecture; nothing is created.
        BadBackbone: if an option does not fit the backbone; nothing is created.
    """
    options = OpenOptions.parse(device=device, precision=precision, runtime=runtime, decoder=decoder, allow_code=[])
    if backbone is None:
        return Store(Session(Storage.create(path), options))
    recipe = operations.spaces.make_recipe(
        backbone,
        weights=weights,
        backbone_args=backbone_args,
        preprocess=preprocess,
        layer=layer,
        pool=pool,
        random_init=random_init,
        seed=seed,
    )
    return Store(operations.spaces.create_store(Path(path), recipe, options, dtype=dtype, space_name=space_name))


@check_arguments
def open(
    path: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    decoder: str = "auto",
    allow_code: Names = (),
) -> Store:
    """Open a store; what a crash left is repaired first.

    Args:
        path: its folder.
        device: ``auto`` or a PyTorch device, for backbones that are loaded later.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        runtime: ``auto`` (onnxruntime on the CPU where it gives the same vectors, else PyTorch), ``eager``, ``onnx`` or
            ``compile``. Vectors are the same in all: a runtime with a cosine below 0.9999 is refused.
        decoder: ``auto``, ``pillow`` (the reference), ``exact`` (the same bytes) or ``quick``; on a GPU ``device`` and
            ``hardware`` too. The same bound applies.
        allow_code: ``module:factory`` names that this store may import.

    Returns:
        The open store.

    Raises:
        StoreNotFound: if there is nothing at ``path``.
        NotAStore: if the folder is not a store.
        StoreTooNew: if a later embedstore wrote it.
        StoreDamaged: if it cannot be opened; `embedstore repair STORE` may help.
    """
    options = OpenOptions.parse(
        device=device, precision=precision, runtime=runtime, decoder=decoder, allow_code=allow_code
    )
    return _open_with(path, options)


def _open_with(path: str | Path, options: OpenOptions) -> Store:
    """Open a store with options that were checked."""
    return Store(Session(Storage.open(path), options))


@check_arguments
def restore(source: str | Path, target: str | Path, *, progress: Progress = False) -> Backup:
    """Make a store from a backup, and verify it on the way.

    Args:
        source: what :meth:`Store.backup` made.
        target: a new folder.
        progress: see :class:`Store`.

    Returns:
        Vector files and bytes.

    Raises:
        StoreExists: if something is at ``target``.
        StoreDamaged: if a file of the backup is not what was written.
    """
    return operations.maintenance.restore(source, target, progress=progress)


@check_arguments
def import_store(path: str | Path, export_folder: str | Path) -> ArchiveCounts:
    """Make a store from what :meth:`Store.export_store` wrote: all of it or nothing.

    Args:
        path: a new folder.
        export_folder: the export.

    Returns:
        Rows by table, and vectors.

    Raises:
        StoreExists: if something is at ``path``.
        StoreNotFound: if there is nothing at ``export_folder``.
        NotAStore: if it is not an export.
        StoreTooNew: if a later embedstore wrote it.
        StoreDamaged: if a file is missing, changed, or contradicts another; nothing is made.
    """
    return operations.maintenance.import_store(Path(path), Path(export_folder))


@check_arguments
def verify_untrusted(path: str | Path) -> UntrustedReport:
    """Say what a store from somebody else would have tried, without opening it for work.

    Links, objects of the catalog that embedstore never creates, files of another form, and code that a space names are
    listed. Nothing of the store is run or changed. :meth:`Store.verify` says whether its vectors are whole.

    Args:
        path: its folder.

    Returns:
        What was found; ``.ok`` is True where the store holds data only.

    Raises:
        StoreNotFound: if nothing is at ``path``.
        NotAStore: if the folder is not a store.
    """
    return operations.untrusted.verify_untrusted(path)


@check_arguments
def repair_store(
    path: str | Path,
    *,
    reembed: bool = True,
    wait: float = 0.0,
    device: str = "auto",
    allow_code: Names = (),
) -> RepairReport:
    """Repair a store, also one that cannot be opened.

    Args:
        path: its folder.
        reembed: see :meth:`Store.repair`.
        wait: see :class:`Store`.
        device: see :func:`embedstore.open`.
        allow_code: see :func:`embedstore.open`.

    Returns:
        What was repaired, and what is lost.

    Raises:
        StoreBusy: if another process is still writing after ``wait`` seconds.
        StoreDamaged: if the store cannot be repaired; restore it from a backup.
    """
    options = OpenOptions.parse(device=device, precision="auto", runtime="auto", decoder="auto", allow_code=allow_code)
    return operations.maintenance.repair(path, lambda: Session(Storage.open(path), options), reembed=reembed, wait=wait)


@check_arguments
def work(
    path: str | Path,
    part: str,
    *,
    space: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    decoder: str = "auto",
    allow_code: Names = (),
    batch_size: int | None = None,
    threads: int | None = None,
    progress: Progress = None,
) -> PartReport:
    """Embed one part of a plan that :meth:`Store.plan_parts` made, on any machine that sees the folder of the store.

    The catalog is not opened: a worker reads the plan, the files of its part and the weights, and writes one file into
    the inbox. A part that has a result is not done again.

    Args:
        path: the folder of the store, or the folder of a bucket that :meth:`Store.plan_parts` returned as ``address``.
        part: the number of the part and how many there are, such as ``"17/400"``.
        space: see :meth:`Store.register`.
        device: see :func:`open`.
        precision: see :func:`open`.
        runtime: see :func:`open`.
        decoder: see :func:`open`.
        allow_code: see :func:`open`.
        batch_size: see :meth:`Store.embed`.
        threads: see :meth:`Store.embed`.
        progress: see :class:`Store`.

    Returns:
        What was embedded, and which stage was the bottleneck.

    Raises:
        BadOption: if ``part`` is not a part.
        PartsError: if there is no plan, or it has no such part.
        StoreDamaged: if the plan is not what was written.
        WeightsNotFound: if the weights are not on this machine.
        SpaceMismatch: if the backbone is not the one of the space any more.
        StoreIOError: if the disk is full or fails; nothing is left of the part.
    """
    options = OpenOptions.parse(
        device=device, precision=precision, runtime=runtime, decoder=decoder, allow_code=allow_code
    )
    return operations.parts.work(
        path, part, options=options, space=space, batch_size=batch_size, threads=threads, progress=progress
    )
