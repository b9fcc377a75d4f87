"""The encoder of one run: an exported tower or the loaded backbone, and how files become its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.onnx_encoder import Unavailable, record_refusal, was_refused
from embedstore.backbones.runtimes.runtime import Runtime, Tower, has_onnx_export, has_onnxruntime, require_onnx_export
from embedstore.backbones.runtimes.tower_encoder import TowerEncoder, TowerPlace
from embedstore.errors import BadBackbone, RuntimeMismatch, StoreIOError
from embedstore.media.image.screening import is_safe_in_process
from embedstore.pipeline.decode_method import (
    COMPARISON_IMAGES,
    PILLOW_METHOD,
    DecodeMethod,
    choose_decode_method,
    decodable_images,
)
from embedstore.pipeline.decoder import Decoder
from embedstore.pipeline.plan import FilesToRead
from embedstore.pipeline.read import read_sample
from embedstore.sources.source import Source
from embedstore.space import Space

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

LoadBackbone = Callable[[], "Backbone | Sequence[Backbone]"]  # one backbone, or one for each device
TOWER_IMAGES = 16  # images of the run on which a new tower is compared with PyTorch


@dataclass(frozen=True)
class RunEncoder:
    """What turns the files of one run into vectors.

    Attributes:
        encoder: from pixels to vectors.
        method: from ordinary files to pixels.
        tower_notices: why there is no exported tower, if one was tried.
    """

    encoder: AdaptiveEncoder | TowerEncoder
    method: DecodeMethod
    tower_notices: tuple[str, ...] = ()

    @property
    def notices(self) -> list[str]:
        """What a person should know about the choices of a runtime, a precision and a decoder."""
        choice = self.encoder.choice
        return [*self.tower_notices, *choice.notices, *choice.precision.notices, *self.method.notices]

    def close(self) -> None:
        """Restore the networks as they were before the run."""
        self.encoder.close()


@dataclass(frozen=True)
class EncoderRequest:
    """What the user requested of a run's encoder.

    Attributes:
        runtime: the runtime.
        decoder: the decoder; None if every file is decoded in a separate process.
        threads: the size of the decoding pool.
        batch_size: images per forward pass; None is the encoder's own choice.
        on_cpu: the network would compute on the CPU in fp32, where an exported tower can take its place.
    """

    runtime: Runtime
    decoder: Decoder | None
    threads: int
    batch_size: int | None = None
    on_cpu: bool = False

    @property
    def allows_tower(self) -> bool:
        """An exported tower may embed the images."""
        return self.on_cpu and self.runtime in (Runtime.AUTO, Runtime.ONNX) and has_onnxruntime()


@dataclass(frozen=True)
class _RunFiles:
    """The files of a run, some of which are read before the others."""

    source: Source
    plan: FilesToRead
    space: Space

    def sample(self, count: int) -> list[bytes]:
        """Return the bytes of some ordinary files at the beginning of the plan."""
        return [data for data in read_sample(self.source, self.plan, count) if is_safe_in_process(data)]

    def pixels(self, count: int) -> NDArray[np.uint8] | None:
        """Return the pixels of some ordinary files, None if none can be decoded."""
        if self.space.preprocess is None:
            return None
        pixels: NDArray[np.uint8] = decodable_images(self.sample(2 * count), self.space.preprocess, count)[1]
        return pixels if len(pixels) else None


def prepare_encoder(
    load_backbone: LoadBackbone,
    source: Source,
    plan: FilesToRead,
    request: EncoderRequest,
    *,
    space: Space,
    towers_folder: Path,
) -> RunEncoder:
    """Open the space's exported tower, or load the backbone, and choose how files become pixels.

    On the CPU the tower embeds every run of a space: it is exported when the space is first used, and a later process
    does not import PyTorch. Where the network cannot be exported, that is recorded, and PyTorch embeds every run.

    Args:
        load_backbone: loads the space's backbone.
        source: reads some of the run's files, on which a new tower and a decoder are compared.
        plan: the files of the run.
        request: what the user requested.
        space: the space that is filled.
        towers_folder: the folder of the space's exported networks.

    Raises:
        RuntimeMismatch: if the requested runtime or decoder gives other vectors.
        BadBackbone: if the runtime or decoder is not available for this backbone.
        MissingExtra: if the runtime ``onnx`` was requested and its packages are not installed.
    """
    if request.runtime is Runtime.ONNX:
        require_onnx_export()
    files = _RunFiles(source, plan, space)
    opened = _find_tower(load_backbone, files, request, TowerPlace(space, towers_folder))
    if isinstance(opened, TowerEncoder):
        return RunEncoder(opened, _decode_method(opened, [opened.device], files, request))
    loaded = load_backbone()
    backbones = loaded if isinstance(loaded, Sequence) else [loaded]
    encoder = AdaptiveEncoder(backbones, request.runtime, expected_images=plan.counts.todo)
    method = _decode_method(encoder, [b.device for b in backbones], files, request)
    return RunEncoder(encoder, method, (opened.reason,) if opened.reason else ())


def _find_tower(
    load_backbone: LoadBackbone, files: _RunFiles, request: EncoderRequest, place: TowerPlace
) -> TowerEncoder | Unavailable:
    """Return the kept tower or a new one; or that there is none, with a reason if somebody should know it.

    Raises:
        RuntimeMismatch: if the runtime ``onnx`` was requested and gives other vectors.
        BadBackbone: if the runtime ``onnx`` was requested and the network cannot be exported.
    """
    is_requested = request.runtime is Runtime.ONNX
    if not request.allows_tower:
        return Unavailable("")
    opened = place.open()
    if isinstance(opened, TowerEncoder):
        return opened
    if not has_onnx_export() or (not is_requested and was_refused(place.folder, Tower.IMAGE)):
        return Unavailable("")
    loaded = load_backbone()
    backbone = loaded[0] if isinstance(loaded, Sequence) else loaded
    try:
        return place.export(backbone, files.pixels(TOWER_IMAGES))
    except (BadBackbone, RuntimeMismatch) as e:
        if is_requested:
            raise
        record_refusal(place.folder, Tower.IMAGE, str(e))
        return Unavailable(f"runtime eager: {e}")
    except OSError as e:
        if is_requested:
            raise StoreIOError(f"cannot write the image tower to {place.folder}: {e.strerror or e}") from e
        return Unavailable(f"runtime eager: the image tower cannot be written to {place.folder}: {e.strerror or e}")


def _decode_method(
    encoder: AdaptiveEncoder | TowerEncoder, devices: Sequence[str], files: _RunFiles, request: EncoderRequest
) -> DecodeMethod:
    """Choose how files become pixels; a run whose files may be the cause of a crash decodes them elsewhere."""
    if request.decoder is None:
        return PILLOW_METHOD
    network = encoder.encoder if isinstance(encoder, TowerEncoder) else encoder.backbone
    method = choose_decode_method(network, lambda: files.sample(2 * COMPARISON_IMAGES), requested=request.decoder)
    return method.on_devices(devices, lambda: request.batch_size or encoder.batch_size)
