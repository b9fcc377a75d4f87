"""Queries as vectors: the loaded network where there is one, else the exported towers, which need no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedstore import timing
from embedstore.backbones.runtimes.onnx_encoder import (
    MAX_QUERY_THREADS,
    OnnxEncoder,
    Unavailable,
    is_exported,
    open_tower,
    record_refusal,
    tower_folder,
    was_refused,
)
from embedstore.backbones.runtimes.runtime import (
    Agreement,
    Encoder,
    Runtime,
    Tower,
    has_onnx_export,
    require_onnx_export,
)
from embedstore.errors import BadBackbone, EmbedstoreError, ImageError, NoTextTower, RuntimeMismatch, StoreIOError
from embedstore.media.image import decode, preprocess
from embedstore.operations.session import Face
from embedstore.sources.local_files import read_item
from embedstore.storage.spaces import RecipeSpace, SpaceRecord

if TYPE_CHECKING:
    from PIL.Image import Image

LOOKED_AT = 16  # images of the store on which an exported tower is compared with the eager network
MODES = ("auto", "fp32")  # in which an exported tower answers


class Encoding(Face):
    """Which encoder answers a query, and the towers that are kept for the next process."""

    def _encoder(self, row: SpaceRecord, tower: Tower) -> Encoder:
        """What encodes queries of one kind.

        Raises:
            NoTextTower: words, in a space that knows images only.
            MissingExtra, RuntimeMismatch, BadBackbone: with ``runtime="onnx"``, where it cannot be had.
        """
        if tower is Tower.TEXT and not row.space.text:
            raise NoTextTower(
                f"space {row.name} ({row.space.architecture or 'precomputed'}) knows images only; words need a CLIP, "
                "e.g. `--backbone clip`; `embedstore backbones --text` lists them"
            )
        if row.key in self._networks and self._runtime is not Runtime.ONNX:
            return self._networks[row.key]
        if self._runtime in (Runtime.AUTO, Runtime.ONNX) and isinstance(row, RecipeSpace):
            if self._runtime is Runtime.ONNX:
                require_onnx_export()
            found = self._exported(row, tower)
            if found is None and self._runtime is Runtime.ONNX:
                self._export(row, tower)
                found = self._exported(row, tower)
            if found is not None:
                return found
        with timing.time_step(f"torch and the network of {row.name}"):
            network = self.backbone(row.name)
        self._through_torch.add((row.key, tower))
        return network

    def _exported(self, row: SpaceRecord, tower: Tower) -> OnnxEncoder | None:
        """The exported tower of a space, opened once; None where it cannot be used or another device is wanted."""
        if self._device not in ("auto", "cpu") or self._precision not in MODES:
            return None
        if (row.key, tower) not in self._towers:
            with timing.time_step(f"the {tower} tower"):
                folder, threads = (
                    self._storage.layout.towers_folder(row.key),
                    min(timing.available_cores(), MAX_QUERY_THREADS),
                )
                found = open_tower(folder, tower, row.key, threads=threads, fast_start=True)
            if isinstance(found, Unavailable):
                return None
            image, text = (found, None) if tower is Tower.IMAGE else (None, found)
            self._towers[row.key, tower] = OnnxEncoder(row.space, image=image, text=text)
        return self._towers[row.key, tower]

    def export_towers(self, space: str | None = None, towers: Sequence[str] | None = None) -> list[str]:
        """Keep the network of a space beside its vectors in a form that searches start quickly with.

        An exported tower is compared with the eager network on the store's own images, or on sentences, and refused
        where the least cosine (plain or centred) is below 0.9999.

        Args:
            space: name or key; by default the current one.
            towers: ``image``, ``text``; by default those the space has.

        Returns:
            A sentence for every tower.

        Raises:
            MissingExtra: ``pip install 'embedstore[onnx]'``.
            RuntimeMismatch: it gives other vectors. BadBackbone: it cannot be exported.
            StoreIOError: the store cannot be written.
        """
        require_onnx_export()
        row = self._storage.space(space)
        wanted = [Tower(t) for t in towers or ("image", "text")]
        if towers is None and not row.space.text:
            wanted.remove(Tower.TEXT)
        return [self._export(row, tower) for tower in wanted]

    def keep_towers(self) -> list[str]:
        """Export what this process asked of torch, so that the next one need not; for the command line.

        Never raises for a tower that cannot be exported: it is remembered and not tried again.
        """
        if self._runtime is not Runtime.AUTO or not has_onnx_export() or not os.access(self.path / "spaces", os.W_OK):
            return []
        said = []
        for key, tower in sorted(self._through_torch):
            row = self._storage.space(key)
            folder = self._storage.layout.towers_folder(key)
            if was_refused(folder, tower) or is_exported(folder, tower, key):
                continue
            try:
                said.append(self._export(row, tower))
            except (BadBackbone, RuntimeMismatch) as e:
                said.append(f"the {tower} tower of {row.name} is not kept for quicker searches: {e}")
                record_refusal(folder, tower, str(e))
            except EmbedstoreError as e:
                said.append(f"the {tower} tower of {row.name} was not kept: {e}")
        return said

    def _export(self, row: SpaceRecord, tower: Tower) -> str:
        """Export one tower."""
        from embedstore.backbones.runtimes.export import export_tower

        network = self.backbone(row.name)
        folder = self._storage.layout.towers_folder(row.key)
        pixels = self._looked_at(row) if tower is Tower.IMAGE else None
        try:
            found, seconds = export_tower(network, folder, tower, pixels)
        except OSError as e:
            raise StoreIOError(f"cannot keep the {tower} tower in {folder}: {e.strerror or e}") from e
        self._towers.pop((row.key, tower), None)
        return self._told(row, tower, found, seconds)

    def _told(self, row: SpaceRecord, tower: Tower, found: Agreement, seconds: float) -> str:
        """One sentence about an export."""
        size = sum(p.stat().st_size for p in tower_folder(self._storage.layout.towers_folder(row.key), tower).iterdir())
        return (
            f"kept the {tower} tower of {row.name} for searches without torch: {size / 1e6:,.0f} MB, {found}, "
            f"{seconds:.1f} s"
        )

    def _looked_at(self, row: SpaceRecord) -> NDArray[np.uint8] | None:
        """Some of the store's own images, prepared; None where no file is there."""
        if row.space.preprocess is None:
            return None
        rows = self._storage.sql(
            "SELECT i.uri, i.path FROM items i JOIN vectors v ON v.content = i.content "
            f"WHERE v.space = ? AND i.present ORDER BY i.item LIMIT {4 * LOOKED_AT}",
            [row.key],
        )[1]
        found: list[NDArray[np.uint8]] = []
        for image in _openable(rows):
            found.append(preprocess.resize_and_crop(image, row.space.preprocess))
            if len(found) == LOOKED_AT:
                break
        return np.stack(found) if found else None


def _openable(rows: Sequence[tuple[str, bytes | None]]) -> Iterator[Image]:
    """The images that are still where they were."""
    for uri, path in rows:
        try:
            yield decode.open_image(read_item(uri, path))[0]
        except ImageError:
            continue
