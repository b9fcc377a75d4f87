"""The Python face: one object a store, composed of every room below. No logic of its own."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from embedstore import decode, evaluate, exporting, importing, progress
from embedstore.backbone import load, resolve
from embedstore.decode import preprocess
from embedstore.embed import run as embedding
from embedstore.errors import BadBackbone, NoTextTower, QueryError, SpaceMismatch, StoreExists
from embedstore.evaluate import Evaluation
from embedstore.features import Features, features
from embedstore.results import Hits, Rows
from embedstore.search import item_vector, search
from embedstore.source import open_source
from embedstore.space import Recipe, Value
from embedstore.store.catalog import utc_now
from embedstore.store.info import info
from embedstore.store.shard import DTYPES
from embedstore.store.storage import SpaceRow, Storage

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedstore.backbone.base import Backbone


class BackboneOptions(TypedDict, total=False):
    """What may be said of a backbone beside its name.

    Attributes:
        weights: a local weights file instead of the library's own loading.
        backbone_args: keyword arguments of the architecture.
        preprocess: overrides of the model's own preprocessing, e.g. ``{"mean": 0.5}``; recorded in the space.
        layer, pool: which features, by default the backbone's pooled ones.
        random_init: random weights, on purpose; recorded in the space. seed: of them.
    """

    weights: str | Path | None
    backbone_args: Mapping[str, Value]
    preprocess: Mapping[str, Value]
    layer: str | None
    pool: str | None
    random_init: bool
    seed: int


def create(
    path: str | Path,
    backbone: str | None = None,
    *,
    dtype: str = "float16",
    name: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    **options: Unpack[BackboneOptions],
) -> Store:
    """Make a store, with the space of a backbone unless none is named.

    Args:
        path: a new folder.
        backbone: ``timm/<name>[.tag]``, ``open_clip/<arch>:<pretrained>``, ``module:factory`` or an alias.
            None makes a store for precomputed vectors, or for a backbone named later.
        dtype: of the vectors on disk, ``float16`` or ``float32``.
        name: of the space. device, precision: ``auto`` or as torch names them.
        options: see :class:`BackboneOptions`.

    Raises:
        StoreExists: something is at ``path``.
        UnknownBackbone, WeightsNotFound, WeightsMismatch, BadBackbone: as their names say; nothing is made then.
    """
    if backbone is None:
        return Store(Storage.create(path), device=device, precision=precision)
    if Path(path).exists() and any(Path(path).iterdir()):
        raise StoreExists(f"{path} exists already; open it, or choose another folder")
    recipe = recipe_of(backbone, **options)
    network = load(recipe, device=device, precision=precision, allow_code={recipe.backbone})
    store = Store(Storage.create(path), device=device, precision=precision, allow_code={recipe.backbone})
    store.register(network, recipe, name=name, dtype=dtype)
    return store


def recipe_of(backbone: str, **options: Unpack[BackboneOptions]) -> Recipe:
    """A person's words as a recipe."""
    weights = options.get("weights")
    return Recipe(
        backbone=resolve(backbone),
        weights=str(Path(weights).absolute()) if weights else None,
        args=dict(options.get("backbone_args", {})),
        preprocess=dict(options.get("preprocess", {})),
        layer=options.get("layer"),
        pool=options.get("pool"),
        random_init=options.get("random_init", False),
        seed=options.get("seed", 0),
    )


def open_store(
    path: str | Path, *, device: str = "auto", precision: str = "auto", allow_code: Collection[str] = ()
) -> Store:
    """Open a store; a crash's traces are mended first.

    Args:
        path: its folder.
        device, precision: for backbones loaded later.
        allow_code: ``module:factory`` names that this store's spaces may import.

    Raises:
        StoreNotFound, NotAStore, StoreTooNew, StoreDamaged: as their names say.
    """
    return Store(Storage.open(path), device=device, precision=precision, allow_code=allow_code)


class Store:
    """One store: a folder with items, spaces and their vectors.

    Made by :func:`embedstore.create` and :func:`embedstore.open`.
    """

    def __init__(
        self, storage: Storage, *, device: str = "auto", precision: str = "auto", allow_code: Collection[str] = ()
    ) -> None:
        self._storage = storage
        self._device, self._precision, self._allow_code = device, precision, set(allow_code)
        self._networks: dict[str, Backbone] = {}

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The folder."""
        return self._storage.at.root

    @property
    def spaces(self) -> list[SpaceRow]:
        """Every space, oldest first."""
        return self._storage.spaces()

    @property
    def notices(self) -> list[str]:
        """What was mended when the store was opened, one sentence each."""
        return self._storage.notices

    # ---- putting in

    def embed(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        label: str | None = "folder",
        space: str | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        wait: float = 0.0,
        show_progress: bool | None = None,
    ) -> embedding.EmbedReport:
        """Embed what is new or changed in a source; resumable and incremental.

        Args:
            source: an image folder, paths or globs, or a CSV/Parquet manifest with a column ``uri``.
            label: ``"folder"`` takes the class from the parent folder's name, None takes none.
            space: name or key; by default the current one.
            batch_size: images per forward. threads: of the decoding pool.
            wait: seconds to wait for another writer.
            show_progress: None shows a bar only on a terminal.

        Raises:
            SourceNotFound, NoImages, BadManifest: as their names say.
            StoreBusy: another process is writing.
        """
        row = self._storage.space(space)
        found = open_source(source, label=label, exclude=[str(self.path)])
        options = embedding.Options(batch_size=batch_size, threads=threads, wait=wait)
        network = self.backbone(row.name)
        with progress.bar(show=show_progress) as show:
            return embedding.run(self._storage, found, network, row, options=options, progress=show)

    def add_vectors(
        self,
        vectors: str | Path | NDArray[Any],
        table: Any = None,
        *,
        uri_column: str | None = None,
        space: str = "precomputed",
        unit: bool | None = None,
        dtype: str = "float16",
        wait: float = 0.0,
    ) -> dict[str, Any]:
        """Bring vectors that were computed elsewhere.

        Args:
            vectors: ``(N, D)`` array or ``.npy`` file.
            table: CSV, Parquet or JSON lines, a dict of columns or a DataFrame with N rows, or None.
            uri_column: which column names the images; by default ``uri``, else rows are named by their number.
            space: name of the space they belong to; made if it is new.
            unit: they have length 1; None looks at them.
            dtype: on disk.

        Returns:
            ``{"rows", "new_items", "new_vectors", "space", "dim"}``.

        Raises:
            BadVectors, BadManifest, DimensionMismatch: as their names say; nothing is stored then.
        """
        return importing.add_vectors(
            self._storage, vectors, table, uri_column=uri_column, name=space, unit=unit, dtype=dtype, wait=wait
        )

    def add_space(
        self, backbone: str, *, dtype: str = "float16", name: str | None = None, **options: Unpack[BackboneOptions]
    ) -> SpaceRow:
        """Add the space of another backbone; arguments as in :func:`embedstore.create`."""
        recipe = recipe_of(backbone, **options)
        self._allow_code.add(recipe.backbone)
        network = load(recipe, device=self._device, precision=self._precision, allow_code=self._allow_code)
        return self.register(network, recipe, name=name, dtype=dtype)

    def register(self, network: Backbone, recipe: Recipe, *, name: str | None, dtype: str) -> SpaceRow:
        """Add the space of a backbone that is loaded already."""
        if dtype not in DTYPES:
            raise BadBackbone(f"vectors are stored as {' or '.join(DTYPES)}, not {dtype!r}")
        with self._storage.writing(f"add space {recipe.backbone}") as writer:
            writer.add_space(network.space, name=name or _short(recipe.backbone), dtype=dtype, recipe=recipe)
        self._networks[network.space.key] = network
        return self._storage.space(network.space.key)

    def use(self, space: str) -> None:
        """Make a space the one that is used when none is named."""
        row = self._storage.space(space)
        with self._storage.writing(f"use {space}") as writer:
            writer.use(row.key)

    # ---- asking

    def search(
        self,
        query: str | Path | int | Image | NDArray[Any] | None = None,
        *,
        k: int = 10,
        image: str | Path | bytes | Image | NDArray[np.uint8] | None = None,
        where: str | None = None,
        space: str | None = None,
    ) -> Hits:
        """The k nearest items, exactly; with a filter, the k nearest among those that match.

        Args:
            query: words (str), an image (Path, PIL image or uint8 ``(H, W, 3)`` array), a vector (1-D array) or an
                item's id (int).
            k: hits wanted. image: the query as an image: a path, encoded bytes, a PIL image or an array.
            where: a boolean SQL expression over the items, e.g. ``"split = 'val' and label <> 'cat'"``.
            space: name or key; by default the current one.

        Raises:
            NoTextTower: words, in a space that knows images only.
            QueryError, BadFilter, UnknownColumn, ImageError: as their names say.
        """
        if (query is None) == (image is None):
            raise QueryError("ask with words, an image, a vector or an item: exactly one of them")
        row = self._storage.space(space)
        asked, words = (
            (self._image_vector(row, image), _named(image)) if image is not None else self._vector(row, query)
        )
        begin = time.perf_counter()
        hits = search(self._storage, row, asked, k=k, where=where)
        return Hits(tuple(hits), words, row.name, time.perf_counter() - begin)

    def features(self, label: str = "label", *, where: str | None = None, space: str | None = None) -> Features:
        """X, y, ids and groups of the labelled items; see :class:`embedstore.features.Features`."""
        return features(self._storage, self._storage.space(space), label, where=where)

    def probe(self, label: str = "label", *, where: str | None = None, space: str | None = None) -> Evaluation:
        """Logistic regression on the frozen features, C by cross-validation, judged on held-out items."""
        return self._judge("logistic", label, where, space)

    def knn(
        self, label: str = "label", *, k: int = 5, where: str | None = None, space: str | None = None
    ) -> Evaluation:
        """K nearest neighbours by cosine, judged on held-out items."""
        return self._judge("knn", label, where, space, k=k)

    def zero_shot(
        self,
        classes: Sequence[str] | Mapping[str, str | Sequence[str]],
        *,
        templates: str = "photo",
        space: str | None = None,
    ) -> ZeroShot:
        """A classifier made of words alone.

        Args:
            classes: names, or prompts by class.
            templates: the sentences around a name: ``photo`` ("a photo of a {}."), ``name``, ``simple``, ``imagenet``.
            space: name or key; by default the current one.

        Raises:
            NoTextTower: the space knows images only.
            LabelError: fewer than two classes.
        """
        row = self._storage.space(space)
        network = self._text_backbone(row)
        head = evaluate.zero_shot_head(
            network.encode_texts, classes, logit_scale=network.logit_scale, templates=templates
        )
        return ZeroShot(self._storage, row, head)

    def labels(self, column: str = "label", *, where: str | None = None, space: str | None = None) -> list[str]:
        """The different labels of the items that have a vector."""
        return sorted(set(self.features(column, where=where, space=space).y.tolist()))

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> Rows:
        """A read-only DuckDB query over the catalog's tables: items, contents, spaces, failures, runs …."""
        names, rows = self._storage.sql(query, parameters)
        return Rows(tuple(names), tuple(rows))

    def failures(self) -> Rows:
        """Every image that could not be embedded, with the reason."""
        return self.sql("SELECT uri, reason, detail, size, failed FROM failures ORDER BY uri")

    def info(self) -> dict[str, Any]:
        """Counts and sizes: items, contents, failures, spaces, indexes, heads, bytes."""
        return info(self._storage)

    def export(self, path: str | Path, *, space: str | None = None, where: str | None = None) -> int:
        """Write items and vectors to a Parquet file, or vectors to ``.npy`` with a Parquet of the items beside it.

        Returns:
            The number of rows.
        """
        return exporting.export(self._storage, self._storage.space(space), Path(path), where=where)

    # ---- backbones

    def backbone(self, space: str | None = None) -> Backbone:
        """The loaded backbone of a space.

        Raises:
            SpaceMismatch: what loads now is not what the space was made with. BadBackbone: precomputed vectors.
        """
        row = self._storage.space(space)
        if row.key not in self._networks:
            self._networks[row.key] = self._loaded(row)
        return self._networks[row.key]

    def _loaded(self, row: SpaceRow) -> Backbone:
        """Load a space's backbone again, and check that it is the same."""
        if row.recipe is None:
            raise BadBackbone(
                f"space {row.name} holds precomputed vectors: it has no backbone; ask with a vector or an item's id, "
                "or add the space of a backbone with `embedstore embed STORE SOURCE --backbone NAME`"
            )
        network = load(row.recipe, device=self._device, precision=self._precision, allow_code=self._allow_code)
        if network.space.key != row.key:
            raise SpaceMismatch(
                f"{row.recipe.weights or row.recipe.backbone} now gives space {network.space.key}, but {row.name} is "
                f"{row.key}: its weights or preprocessing changed; bring the old weights back, or embed into a "
                "space of its own with --backbone"
            )
        return network

    def _text_backbone(self, row: SpaceRow) -> Backbone:
        """A backbone that understands words."""
        if not row.space.text:
            raise NoTextTower(
                f"space {row.name} ({row.space.architecture or 'precomputed'}) knows images only; words need a CLIP, "
                "e.g. `--backbone clip`; `embedstore backbones --text` lists them"
            )
        return self.backbone(row.name)

    def _vector(self, row: SpaceRow, query: Any) -> tuple[NDArray[np.float32], str]:
        """A query of any kind as a vector, and how to call it."""
        if isinstance(query, str):
            if not query.strip():
                raise QueryError("the query has no words")
            return self._text_backbone(row).encode_texts([query])[0], query
        if isinstance(query, int | np.integer) and not isinstance(query, bool):
            return item_vector(self._storage, row, int(query)), f"item {query}"
        if isinstance(query, np.ndarray) and query.ndim == 1:
            return query, "vector"
        return self._image_vector(row, query), _named(query)

    def _image_vector(self, row: SpaceRow, image: Any) -> NDArray[np.float32]:
        """One image through the space's own preprocessing and backbone."""
        network = self.backbone(row.name)
        wanted = network.space.preprocess
        if wanted is None:
            raise BadBackbone(f"space {row.name} has no preprocessing for images")
        pixels = preprocess.apply(decode.as_image(image), wanted)
        return network.encode_images(pixels[None])[0]

    def _judge(self, head: str, label: str, where: str | None, space: str | None, **options: Any) -> Evaluation:
        """Fit a head on one side of a split and judge it on the other; kept as a run."""
        row = self._storage.space(space)
        started = utc_now()
        result = evaluate.judge(head, self.features(label, where=where, space=row.key), label, **options)
        _record(self._storage, row, result, {"where": where} | options, started)
        return result


class ZeroShot:
    """A classifier made of words; nothing is fitted.

    Args:
        storage, space: what it classifies. head: :class:`embedstore.heads.ZeroShot`.
    """

    def __init__(self, storage: Storage, space: SpaceRow, head: Any) -> None:
        self.head = head
        self._storage, self._space = storage, space

    def evaluate(self, label: str = "label", *, where: str | None = None) -> Evaluation:
        """Judge it on the items that have a label: the held-out ones where the items have a split, else all."""
        started = utc_now()
        data = features(self._storage, self._space, label, where=where)
        result = evaluate.judge_zero_shot(self.head, data, label)
        _record(self._storage, self._space, result, {"where": where}, started)
        return result


def _record(storage: Storage, space: SpaceRow, e: Evaluation, settings: dict[str, Any], started: datetime) -> None:
    """Keep an evaluation as a run."""
    with storage.writing(f"record {e.head} {e.label}", wait=10.0) as writer:
        writer.record_run(e.head, space.key, {"label": e.label} | settings, e.to_json(), started)


def _short(backbone: str) -> str:
    """A space's name from its backbone's: ``timm/resnet50.a1_in1k`` is ``resnet50``, ``mine:tiny`` is ``tiny``."""
    if "/" not in backbone:
        return backbone.rsplit(":", 1)[-1]
    return backbone.rsplit("/", 1)[-1].split(":", 1)[0].split(".", 1)[0]


def _named(image: Any) -> str:
    """How to call an image query."""
    return str(image) if isinstance(image, str | Path) else "image"
