"""The encoder of one run: the loaded backbone, and how files become its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.runtime import Runtime
from embedstore.errors import BadBackbone, BadOption
from embedstore.media.image.screening import is_safe_in_process
from embedstore.modality import Modality
from embedstore.pipeline.decode import DecodeSettings, ImageSettings, SequenceSettings
from embedstore.pipeline.decode_method import (
    COMPARISON_IMAGES,
    PILLOW_METHOD,
    DecodeMethod,
    choose_decode_method,
    stack_pixels,
)
from embedstore.pipeline.decoder import Decoder
from embedstore.pipeline.plan import FilesToRead
from embedstore.pipeline.read import read_sample
from embedstore.sources.source import Source
from embedstore.space import Preprocess

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.sequence import SequenceBackbone

LoadedBackbone: TypeAlias = "Backbone | SequenceBackbone"
LoadBackbone = Callable[[], "LoadedBackbone | Sequence[LoadedBackbone]"]  # one backbone, or one for each device


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
    """

    encoder: AdaptiveEncoder
    method: DecodeMethod
    preprocess: Preprocess

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
        return [*choice.notices, *choice.precision.notices, *self.method.notices]

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
        return SequenceSettings(self.backbone.prepare, threads)

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
    """

    runtime: Runtime
    decoder: Decoder | None
    threads: int
    batch_size: int | None = None


def prepare_encoder(
    load_backbone: LoadBackbone, source: Source, plan: FilesToRead, request: EncoderRequest, *, towers_folder: Path
) -> RunEncoder:
    """Load the backbone and choose how files become its input.

    Args:
        load_backbone: loads the space's backbone.
        source: reads some of the run's files, on which the decoders are compared.
        plan: the files of the run.
        request: what the user requested.
        towers_folder: the folder of the space's exported networks.

    Raises:
        RuntimeMismatch: if the requested decoder gives other vectors.
        BadBackbone: if the runtime or decoder is not available for this backbone.
        BadOption: if a decoder of images is requested for another modality.
    """
    loaded = load_backbone()
    backbones = loaded if isinstance(loaded, Sequence) else [loaded]
    if backbones[0].space.modality is not Modality.IMAGE:
        return _sequence_encoder(cast("SequenceBackbone", backbones[0]), request)
    return _image_encoder(cast("Sequence[Backbone]", backbones), source, plan, request, towers_folder=towers_folder)


def _image_encoder(
    backbones: Sequence[Backbone], source: Source, plan: FilesToRead, request: EncoderRequest, *, towers_folder: Path
) -> ImageRunEncoder:
    """Return the encoder of images."""
    preprocess = backbones[0].space.preprocess
    if preprocess is None:
        raise BadBackbone(f"{backbones[0].space.architecture} has no preprocessing for images")
    count = plan.counts.todo
    encoder = AdaptiveEncoder(backbones, request.runtime, towers_folder, expected_images=count)
    method = PILLOW_METHOD
    if request.decoder is not None:
        sample = [data for data in read_sample(source, plan, 2 * COMPARISON_IMAGES) if is_safe_in_process(data)]
        method = choose_decode_method(
            encoder.backbone, sample, requested=request.decoder, expected_images=count, threads=request.threads
        ).on_devices([b.device for b in backbones], lambda: request.batch_size or encoder.batch_size)
    return ImageRunEncoder(encoder, method, preprocess)


def _sequence_encoder(backbone: SequenceBackbone, request: EncoderRequest) -> SequenceRunEncoder:
    """Return the encoder of texts or sounds, which PyTorch runs as it is."""
    plural = backbone.space.modality.plural
    if request.runtime not in (Runtime.AUTO, Runtime.EAGER):
        raise BadBackbone(f"--runtime {request.runtime} is for backbones of images; leave it out for {plural}")
    if request.decoder not in (None, Decoder.AUTO):
        raise BadOption(f"--decoder {request.decoder} is for images; leave it out for {plural}")
    backbone.start_run()
    return SequenceRunEncoder(backbone)
