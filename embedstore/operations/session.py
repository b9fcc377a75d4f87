"""What the verbs of one open store share: the storage, the loaded backbones, and the runs that are recorded."""

from __future__ import annotations

import importlib
import random
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from embedstore.backbones import load
from embedstore.backbones.loading import computes_on_cpu, require_images, resolve_devices
from embedstore.backbones.runtimes.runtime import Runtime, Tower, parse_runtime
from embedstore.backbones.stored_recipes import recipe_options, require_safe_recipe
from embedstore.errors import BadBackbone, SpaceMismatch, StoreBusy, StoreIOError, WeightsNotFound
from embedstore.modality import Modality
from embedstore.pipeline.decoder import Decoder, parse_decoder
from embedstore.space import Recipe
from embedstore.storage import forks
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now
from embedstore.storage.storage import Storage

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.runtimes.onnx_encoder import OnnxEncoder
    from embedstore.backbones.sequence import SequenceBackbone
    from embedstore.operations.label_sample import LabelSamples
    from embedstore.search.execute import Searcher


def _import_rich() -> None:
    """Import rich before any verb does: its import draws from Python's generator, whose draws are the program's own."""
    state = random.getstate()
    importlib.import_module("rich.style")
    random.setstate(state)


_import_rich()

RECORD_WAIT = 2.0  # seconds: a running `embed` must not delay an answer


class Result(Protocol):
    """A result that a run can record."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""


AnyResult = TypeVar("AnyResult", bound=Result)


@dataclass(frozen=True)
class OpenOptions:
    """How the backbones of a store are loaded and run.

    Attributes:
        device: ``auto`` or a PyTorch device.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        runtime: what executes the backbone.
        decoder: what turns image files into pixels.
        allow_code: ``module:factory`` names that the store may import.
    """

    device: str = "auto"
    precision: str = "auto"
    runtime: Runtime = Runtime.AUTO
    decoder: Decoder = Decoder.AUTO
    allow_code: frozenset[str] = frozenset()

    @classmethod
    def parse(
        cls, *, device: str, precision: str, runtime: str, decoder: str, allow_code: Collection[str]
    ) -> OpenOptions:
        """Return the options that a user gave as text.

        Raises:
            BadOption: if there is no such runtime or decoder.
        """
        return cls(device, precision, parse_runtime(runtime), parse_decoder(decoder), frozenset(allow_code))


@dataclass
class Session:
    """An open store.

    Attributes:
        storage: the folder and its catalog.
        options: how backbones are loaded.
        towers: the exported towers that this process has opened, by space key and tower.
        eager_towers: the towers that this process ran with PyTorch for a query, by space key and tower.
    """

    storage: Storage
    options: OpenOptions = field(default_factory=OpenOptions)
    towers: dict[tuple[str, Tower], OnnxEncoder] = field(default_factory=dict)
    eager_towers: set[tuple[str, Tower]] = field(default_factory=set)
    _backbones: dict[str, Backbone | SequenceBackbone] = field(default_factory=dict)
    _replicas: dict[tuple[str, int, str], Backbone] = field(default_factory=dict)  # by key, place and device

    def __post_init__(self) -> None:
        forks.reset_in_child(self, Session._leave_parent)

    @property
    def path(self) -> Path:
        """The folder of the store."""
        return self.storage.layout.root

    def space(self, name: str | None = None) -> SpaceRecord:
        """Return the space of a name or key, by default the store's default space.

        Raises:
            SpaceNotFound: if there is no such space.
        """
        return self.storage.space(name)

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher of the store, with its caches."""
        from embedstore.search.execute import Searcher

        return Searcher(self.storage)

    @cached_property
    def label_samples(self) -> LabelSamples:
        """The sample of vectors that suggestions keep."""
        from embedstore.operations.label_sample import LabelSamples

        return LabelSamples(self.storage)

    def allow_code(self, name: str) -> None:
        """Allow one more ``module:factory`` name."""
        self.options = replace(self.options, allow_code=self.options.allow_code | {name})

    def backbone(self, space: str | None = None) -> Backbone:
        """Return the loaded backbone of a space of images; it is loaded once.

        Raises:
            BadBackbone: if the space is of another modality, or holds precomputed vectors.
            SpaceMismatch: if what loads now is not what the space was made with.
            WeightsNotFound: if the weights are not on this machine.
        """
        record = self.space(space)
        if record.space.modality is not Modality.IMAGE:
            raise BadBackbone(
                f"space {record.name} is of {record.space.modality.plural}, and this needs a backbone of images; name "
                "a space of images with --space"
            )
        return cast("Backbone", self.any_backbone(record.key))

    def any_backbone(self, space: str | None = None) -> Backbone | SequenceBackbone:
        """Return the loaded backbone of a space of any modality; it is loaded once.

        Raises:
            SpaceMismatch: if what loads now is not what the space was made with.
            BadBackbone: if the space holds precomputed vectors.
            WeightsNotFound: if the weights are not on this machine.
        """
        record = self.space(space)
        if record.key not in self._backbones:
            self._backbones[record.key] = self.load_space(record)
        return self._backbones[record.key]

    def loaded_backbone(self, key: str) -> Backbone | SequenceBackbone | None:
        """Return the backbone of a space if it is loaded already."""
        return self._backbones.get(key)

    def keep_backbone(self, backbone: Backbone | SequenceBackbone) -> None:
        """Keep a loaded backbone for the space that it belongs to."""
        self._backbones[backbone.space.key] = backbone

    def forget_backbone(self, key: str) -> None:
        """Drop the loaded backbone of a space."""
        self._backbones.pop(key, None)
        for replica in [r for r in self._replicas if r[0] == key]:
            del self._replicas[replica]

    @property
    def computes_on_cpu(self) -> bool:
        """A network would compute on the CPU in fp32; torch is imported only if there may be a GPU."""
        return computes_on_cpu(self.options.device, self.options.precision)

    def backbones_on_devices(self, record: SpaceRecord) -> Sequence[Backbone | SequenceBackbone]:
        """Return the backbone of a space, once per device that embedding uses; each is loaded once."""
        first = self.any_backbone(record.key)
        if record.space.modality is not Modality.IMAGE:
            return [first]
        further = enumerate(resolve_devices(self.options.device)[1:], 1)
        return [first, *(self._replica(record, place, device) for place, device in further)]

    def _replica(self, record: SpaceRecord, place: int, device: str) -> Backbone:
        """Return the copy of a backbone on a further device, the one at a place among the devices."""
        key = (record.key, place, device)
        if key not in self._replicas:
            self._replicas[key] = cast("Backbone", self.load_space(record, device))
        return self._replicas[key]

    def load(self, recipe: Recipe, device: str | None = None) -> Backbone:
        """Load a backbone of images; see :meth:`load_any`.

        Raises:
            BadBackbone: if it is of another modality.
        """
        return require_images(self.load_any(recipe, device), recipe.backbone)

    def load_any(self, recipe: Recipe, device: str | None = None) -> Backbone | SequenceBackbone:
        """Load a backbone; a relative weights file is the checkpoint of a space in the store.

        Args:
            recipe: how to load it.
            device: by default the store's.

        Raises:
            UnsafeStore: if the recipe names another file or folder within the store.
        """
        require_safe_recipe(recipe, self.path)
        if recipe.weights:
            recipe = replace(recipe, weights=str(self.path / recipe.weights))
        o = self.options
        return load(recipe, device=device or o.device, precision=o.precision, allow_code=o.allow_code)

    def load_space(self, record: SpaceRecord, device: str | None = None) -> Backbone | SequenceBackbone:
        """Load the backbone of a space, without asking the catalog, and check that the space was made with it."""
        recipe = record.require_recipe().recipe
        try:
            backbone = self.load_any(recipe, device)
        except WeightsNotFound as e:
            raise WeightsNotFound(
                f"{e}; if the weights of space {record.name} have moved, name them once: `embedstore embed STORE "
                f"SOURCE --backbone {shlex.quote(recipe.backbone)} --weights FILE{recipe_options(recipe)}`"
            ) from e
        if backbone.space.key != record.key:
            raise SpaceMismatch(
                f"{recipe.weights or recipe.backbone} now gives space {backbone.space.key}, but {record.name} is "
                f"{record.key}: its weights or preprocessing changed; bring the old weights back, or embed into "
                "another space with --backbone"
            )
        return backbone

    def recorded(
        self,
        operation: str,
        record: SpaceRecord | Callable[[AnyResult], SpaceRecord] | None,
        settings: dict[str, Any],
        compute: Callable[[], AnyResult],
    ) -> AnyResult:
        """Return the result of a computation and record it in the table ``runs``.

        While another process writes, or where the store cannot be written to, the result is returned all the same, and
        a notice says that it was not recorded.

        Args:
            operation: the name of the run.
            record: the space that it used, None for several, or a function of the result that returns it.
            settings: plain values.
            compute: does the work.
        """
        started = utc_now()
        result = compute()
        space = record(result) if callable(record) else record
        try:
            with self.storage.writer(f"record {operation}", wait=RECORD_WAIT) as writer:
                writer.record_run(operation, space.key if space else None, settings, result.to_json(), started)
        except (StoreBusy, StoreIOError) as e:
            self.storage.add_notices([f"this {operation} is not among the runs: {e}"])
        return result

    def _leave_parent(self) -> None:
        """Drop what a forked child must not use: onnxruntime's threads, and caches whose locks may be held."""
        forks.never_free((self.towers, self.__dict__.pop("searcher", None)))
        self.towers = {}
