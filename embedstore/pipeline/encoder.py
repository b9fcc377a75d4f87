"""The encoder of one run: an exported tower or the loaded backbone, and how files become its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.onnx_encoder import Unavailable, record_refusal, was_refused
from embedstore.backbones.runtimes.runtime import Runtime, Tower, has_onnx_export, has_onnxruntime, require_onnx_export
from embedstore.backbones.runtimes.tower_encoder import TowerEncoder, TowerPlace
from embedstore.errors import BadBackbone, BadOption, RuntimeMismatch, StoreIOError
from embedstore.media.image.screening import is_safe_in_process
from embedstore.modality import Modality
from embedstore.pipeline.decode import DecodeSettings, ImageSettings, SequenceSettings
from embedstore.pipeline.decode_method import (
    COMPARISON_IMAGES,
    PILLOW_METHOD,
    DecodeMethod,
    choose_decode_method,
    decodable_images,
    stack_pixels,
)
from embedstore.pipeline.decoder import Decoder
from embedstore.pipeline.plan import FilesToRead
from embedstore.pipeline.read import read_sample
from embedstore.sources.source import Source
from embedstore.space import Preprocess, Space

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.sequence import SequenceBackbone

LoadedBackbone: TypeAlias = "Backbone | SequenceBackbone"
LoadBackbone = Callable[[], "LoadedBackbone | Sequence[LoadedBackbone]"]  # one backbone, or one for each device
TOWER_IMAGES = 16  # images of the run on which a new tower is compared with PyTorch


class RunEncoder(Protocol):
    """What turns the files of one run into vectors, whatever their modality.

    Attributes:
        batch_size: items in one batch.
        concurrency: batches at once.
        device: where the backbone computes.
        runtime: what executes it.
        notices: what a person should know about the choices of the run, one sentence each; complete after it.
    """

    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def concurrency(self) -> int: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def runtime(self) -> str: ...  # noqa: D102
    @property
    def notices(self) -> list[str]: ...  # noqa: D102

    def encode(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return the vectors of what the stage "decode" made of some items."""

    def decode_settings(self, threads: int, *, isolate_all: bool) -> DecodeSettings:
        """Return how the files are decoded."""

    def device_seconds(self, items: int) -> float | None:
        """Return the seconds in which the device computes some items by its own clock; None on a CPU."""

    def facts(self) -> dict[str, Any]:
        """Return attributes of the report: what was chosen, and how closely it agrees with the reference."""

    def close(self) -> None:
        """Restore the networks as they were before the run."""


@dataclass(frozen=True)
class ImageRunEncoder:
    """What turns the images of one run into vectors.

    Attributes:
        encoder: from pixels to vectors.
        method: from ordinary files to pixels.
        preprocess: the preprocessing of the space.
        tower_notices: why there is no exported tower, if one was tried.
    """

    encoder: AdaptiveEncoder | TowerEncoder
    method: DecodeMethod
    preprocess: Preprocess
    tower_notices: tuple[str, ...] = ()

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self.encoder.batch_size

    @property
    def concurrency(self) -> int:
        """Forward passes at once."""
        return self.encoder.concurrency

    @property
    def device(self) -> str:
        """The devices, separated by commas."""
        return self.encoder.device

    @property
    def runtime(self) -> str:
        """What executes the backbone."""
        return self.encoder.choice.runtime.value

    @property
    def notices(self) -> list[str]:
        """What a person should know about the choices of a runtime, a precision and a decoder."""
        choice = self.encoder.choice
        return [*self.tower_notices, *choice.notices, *choice.precision.notices, *self.method.notices]

    def encode(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return the vectors of prepared images."""
        return self.encoder.encode_images(stack_pixels(inputs))

    def decode_settings(self, threads: int, *, isolate_all: bool) -> DecodeSettings:
        """Return how the files are decoded."""
        return ImageSettings(self.preprocess, threads, self.method, isolate_all)

    def device_seconds(self, items: int) -> float | None:
        """Return the seconds in which the devices compute some images by their own clocks; None on a CPU."""
        return self.encoder.device_seconds(items)

    def facts(self) -> dict[str, Any]:
        """Return attributes of the report."""
        choice, method = self.encoder.choice, self.method
        return {
            "precision": self.encoder.precision,
            "precision_agreement": choice.precision.agreement.to_json() if choice.precision.agreement else None,
            "folded_batchnorms": choice.folded_batchnorms,
            "runtime_agreement": choice.agreement.to_json() if choice.agreement else None,
            "decoder": method.decoder.value,
            "decoder_agreement": method.agreement.to_json() if method.agreement else None,
        }

    def close(self) -> None:
        """Restore the networks as they were before the run."""
        self.encoder.close()


@dataclass(frozen=True)
class SequenceRunEncoder:
    """What turns the texts or sounds of one run into vectors.

    Attributes:
        backbone: the loaded backbone.
        concurrency: batches at once.
        runtime: what executes it.
    """

    backbone: SequenceBackbone
    concurrency: int = 1
    runtime: str = Runtime.EAGER.value

    @property
    def batch_size(self) -> int:
        """Items in one batch: they are sorted by length, and go through the network in several passes."""
        return self.backbone.group_size

    @property
    def device(self) -> str:
        """Where the backbone computes."""
        return self.backbone.device

    @property
    def notices(self) -> list[str]:
        """What a person should know about items that were not read to their end."""
        return self.backbone.notices

    def encode(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return the vectors of prepared items."""
        return self.backbone.encode(inputs)

    def decode_settings(self, threads: int, *, isolate_all: bool) -> DecodeSettings:
        """Return how the items are decoded."""
        return SequenceSettings(self.backbone.prepare, self.backbone.release, threads)

    def device_seconds(self, items: int) -> float | None:
        """Return None: the wall time counts."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return attributes of the report."""
        return {"precision": "fp32", "decoder": self.backbone.space.modality.value}

    def close(self) -> None:
        """Nothing was changed."""


@dataclass(frozen=True)
class EncoderRequest:
    """What the user requested of a run's encoder.

    Attributes:
        runtime: the runtime.
        decoder: the decoder of images; None if every file is decoded in a separate process.
        threads: the size of the decoding pool.
        batch_size: items per batch; None is the encoder's own choice.
        on_cpu: the network would compute on the CPU in fp32, where an exported tower can take its place.
        expected_images: how many images the encoder will embed; None is those of the plan.
    """

    runtime: Runtime
    decoder: Decoder | None
    threads: int
    batch_size: int | None = None
    on_cpu: bool = False
    expected_images: int | None = None

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
    """Open the space's exported tower, or load the backbone, and choose how files become its input.

    On the CPU the tower embeds every run of a space of images: it is exported when the space is first used, and a later
    process does not import PyTorch. Where the network cannot be exported, that is recorded, and PyTorch embeds every
    run.

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
        BadOption: if a decoder of images is requested for another modality.
        MissingExtra: if the runtime ``onnx`` was requested and its packages are not installed.
    """
    if space.modality is not Modality.IMAGE:
        loaded = load_backbone()
        first = loaded[0] if isinstance(loaded, Sequence) else loaded
        return _sequence_encoder(cast("SequenceBackbone", first), request)

    def load_images() -> Sequence[Backbone]:
        loaded = load_backbone()
        return cast("Sequence[Backbone]", loaded if isinstance(loaded, Sequence) else [loaded])

    return _image_encoder(load_images, _RunFiles(source, plan, space), request, TowerPlace(space, towers_folder))


def _image_encoder(
    load_backbones: Callable[[], Sequence[Backbone]], files: _RunFiles, request: EncoderRequest, place: TowerPlace
) -> ImageRunEncoder:
    """Return the encoder of images."""
    if request.runtime is Runtime.ONNX:
        require_onnx_export()
    preprocess = files.space.preprocess
    if preprocess is None:
        raise BadBackbone(f"{files.space.architecture} has no preprocessing for images")
    opened = _find_tower(load_backbones, files, request, place)
    if isinstance(opened, TowerEncoder):
        return ImageRunEncoder(opened, _decode_method(opened, [opened.device], files, request), preprocess)
    backbones = load_backbones()
    expected = files.plan.counts.todo if request.expected_images is None else request.expected_images
    encoder = AdaptiveEncoder(backbones, request.runtime, expected_images=expected, batch_size=request.batch_size)
    method = _decode_method(encoder, [b.device for b in backbones], files, request)
    return ImageRunEncoder(encoder, method, preprocess, (opened.reason,) if opened.reason else ())


def _find_tower(
    load_backbones: Callable[[], Sequence[Backbone]], files: _RunFiles, request: EncoderRequest, place: TowerPlace
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
    try:
        return place.export(load_backbones()[0], files.pixels(TOWER_IMAGES))
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


def _sequence_encoder(backbone: SequenceBackbone, request: EncoderRequest) -> SequenceRunEncoder:
    """Return the encoder of texts or sounds, which PyTorch runs as it is."""
    plural = backbone.space.modality.plural
    if request.runtime not in (Runtime.AUTO, Runtime.EAGER):
        raise BadBackbone(f"--runtime {request.runtime} is for backbones of images; leave it out for {plural}")
    if request.decoder not in (None, Decoder.AUTO):
        raise BadOption(f"--decoder {request.decoder} is for images; leave it out for {plural}")
    backbone.start_run()
    return SequenceRunEncoder(backbone)
