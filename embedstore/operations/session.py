"""What every part of the face needs: the storage, and the loaded backbones."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from embedstore.backbones import load
from embedstore.backbones.loading import resolve_devices
from embedstore.backbones.runtimes.runtime import Tower, parse_runtime
from embedstore.errors import SpaceMismatch, WeightsNotFound
from embedstore.pipeline.decoder import parse_decoder
from embedstore.search.execute import Searcher
from embedstore.space import Recipe
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.runtimes.onnx_encoder import OnnxEncoder


class FaceOptions(TypedDict, total=False):
    """How backbones are loaded: the arguments of :func:`embedstore.open` beside the path."""

    device: str
    precision: str
    runtime: str
    decoder: str
    allow_code: Collection[str]


class Face:
    """A store's folder, and the backbones of its spaces, each loaded once."""

    def __init__(
        self,
        storage: Storage,
        *,
        device: str = "auto",
        precision: str = "auto",
        allow_code: Collection[str] = (),
        runtime: str = "auto",
        decoder: str = "auto",
    ) -> None:
        self._storage = storage
        self._device, self._precision, self._allow_code = device, precision, set(allow_code)
        self._runtime, self._decoder = parse_runtime(runtime), parse_decoder(decoder)
        self._searcher = Searcher(storage)
        self._networks: dict[str, Backbone] = {}
        self._towers: dict[tuple[str, Tower], OnnxEncoder] = {}
        self._through_torch: set[tuple[str, Tower]] = set()

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The folder."""
        return self._storage.layout.root

    @property
    def spaces(self) -> list[SpaceRecord]:
        """Every space, oldest first."""
        return self._storage.spaces()

    @property
    def notices(self) -> list[str]:
        """What was mended when the store was opened, one sentence each."""
        return self._storage.notices

    def backbone(self, space: str | None = None) -> Backbone:
        """The loaded backbone of a space.

        Raises:
            SpaceMismatch: what loads now is not what the space was made with. BadBackbone: precomputed vectors.
        """
        row = self._storage.space(space)
        if row.key not in self._networks:
            self._networks[row.key] = self._loaded(row)
        return self._networks[row.key]

    def _everywhere(self, row: SpaceRecord) -> list[Backbone]:
        """The backbone of a space on every device that embedding uses."""
        first = self.backbone(row.key)
        return [first, *(self._loaded(row, d) for d in resolve_devices(self._device)[1:])]

    def _loaded(self, row: SpaceRecord, device: str | None = None) -> Backbone:
        """Load a space's backbone again, and check that it is the same."""
        recipe = row.require_recipe().recipe
        try:
            network = self._load(recipe, device)
        except WeightsNotFound as e:
            raise WeightsNotFound(
                f"{e}; where the weights of space {row.name} have moved, say so once: `embedstore embed STORE SOURCE "
                f"--backbone {recipe.backbone} --weights FILE` with the options it was created with"
            ) from e
        if network.space.key != row.key:
            raise SpaceMismatch(
                f"{recipe.weights or recipe.backbone} now gives space {network.space.key}, but {row.name} is "
                f"{row.key}: its weights or preprocessing changed; bring the old weights back, or embed into a "
                "space of its own with --backbone"
            )
        return network

    def _load(self, recipe: Recipe, device: str | None = None) -> Backbone:
        """A backbone on a device, by default this store's; a relative weights file lies in the store."""
        if recipe.weights:
            recipe = replace(recipe, weights=str(self.path / recipe.weights))
        return load(recipe, device=device or self._device, precision=self._precision, allow_code=self._allow_code)
