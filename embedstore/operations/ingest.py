"""Putting in: images, vectors, spaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import parse_runtime
from embedstore.errors import BadBackbone
from embedstore.operations.recipes import BackboneOptions, recipe_of, short_name
from embedstore.operations.session import Face
from embedstore.pipeline import import_vectors
from embedstore.pipeline import run as embedding
from embedstore.pipeline.import_vectors import ImportOptions, ImportReport
from embedstore.pipeline.report import EmbedReport
from embedstore.reports import progress
from embedstore.sources.open import open_source
from embedstore.space import Recipe
from embedstore.storage.shard import DTYPES
from embedstore.storage.spaces import SpaceRecord

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone


class Putting(Face):
    """Verbs that add to a store."""

    def embed(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        label: str | None = "folder",
        space: str | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        runtime: str | None = None,
        wait: float = 0.0,
        show_progress: bool | None = None,
    ) -> EmbedReport:
        """Embed what is new or changed in a source; resumable and incremental.

        Args:
            source: an image folder, paths or globs, or a CSV/Parquet manifest with a column ``uri``.
            label: ``"folder"`` takes the class from the parent folder's name, None takes none.
            space: name or key; by default the current one.
            batch_size: images per forward. threads: of the decoding pool.
            runtime: ``auto``, ``eager``, ``onnx``, ``compile``; by default the store's, see :func:`embedstore.open`.
            wait: seconds to wait for another writer.
            show_progress: None shows a bar only on a terminal.

        Raises:
            SourceNotFound, NoImages, BadManifest: as their names say.
            RuntimeMismatch: the runtime or decoder that was asked for gives other vectors.
            MissingExtra: the runtime is not installed.
            WeightsNotFound, SpaceMismatch: the backbone does not load as it was; only when there is something to embed.
            StoreBusy: another process is writing.
        """
        row = self._storage.space(space)
        found = open_source(source, label_rule=label, exclude=[str(self.path)])
        chosen = parse_runtime(runtime) if runtime else self._runtime
        options = embedding.EmbedOptions(
            batch_size=batch_size, threads=threads, runtime=chosen, decoder=self._decoder, wait=wait
        )
        with progress.embedding_progress(show=show_progress) as show:
            return embedding.embed_source(
                self._storage, found, lambda: self._everywhere(row), row, options=options, progress=show
            )

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
    ) -> ImportReport:
        """Import vectors that were computed elsewhere.

        Args:
            vectors: ``(N, D)`` array or ``.npy`` file.
            table: CSV, Parquet or JSON lines, a dict of columns or a DataFrame with N rows, or None.
            uri_column: which column names the images; by default ``uri``, else rows are named by their number.
            space: name of the space they belong to; made if it is new.
            unit: they have length 1; None looks at them.
            dtype: on disk.

        Returns:
            How many rows, items and vectors were added.

        Raises:
            BadVectors, BadManifest, DimensionMismatch: as their names say; nothing is stored then.
        """
        return import_vectors.add_vectors(
            self._storage,
            vectors,
            table,
            uri_column=uri_column,
            options=ImportOptions(space, unit=unit, dtype=dtype, wait=wait),
        )

    def add_space(
        self, backbone: str, *, dtype: str = "float16", name: str | None = None, **options: Unpack[BackboneOptions]
    ) -> SpaceRecord:
        """Add the space of another backbone; arguments as in :func:`embedstore.create`."""
        recipe = recipe_of(backbone, **options)
        self._allow_code.add(recipe.backbone)
        network = self._load(recipe)
        return self.register(network, recipe, name=name, dtype=dtype)

    def register(self, network: Backbone, recipe: Recipe, *, name: str | None, dtype: str) -> SpaceRecord:
        """Add the space of a backbone that is loaded already."""
        if dtype not in DTYPES:
            raise BadBackbone(f"vectors are stored as {' or '.join(DTYPES)}, not {dtype!r}")
        with self._storage.writer(f"add space {recipe.backbone}") as writer:
            writer.add_space(network.space, name=name or short_name(recipe.backbone), dtype=dtype, recipe=recipe)
        self._networks[network.space.key] = network
        return self._storage.space(network.space.key)
