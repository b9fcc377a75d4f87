"""The encoder of one run: the loaded backbone, and how files become its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.runtime import Runtime
from embedstore.media.image.screening import is_safe_in_process
from embedstore.pipeline.decode_method import COMPARISON_IMAGES, PILLOW_METHOD, DecodeMethod, choose_decode_method
from embedstore.pipeline.decoder import Decoder
from embedstore.pipeline.plan import FilesToRead
from embedstore.pipeline.read import read_sample
from embedstore.sources.source import Source

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

LoadBackbone = Callable[[], "Backbone | Sequence[Backbone]"]  # one backbone, or one for each device


@dataclass(frozen=True)
class RunEncoder:
    """What turns the files of one run into vectors.

    Attributes:
        encoder: from pixels to vectors.
        method: from ordinary files to pixels.
    """

    encoder: AdaptiveEncoder
    method: DecodeMethod

    @property
    def notices(self) -> list[str]:
        """What a person should know about the choices of a runtime, a precision and a decoder."""
        choice = self.encoder.choice
        return [*choice.notices, *choice.precision.notices, *self.method.notices]

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
    """

    runtime: Runtime
    decoder: Decoder | None
    threads: int
    batch_size: int | None = None


def prepare_encoder(
    load_backbone: LoadBackbone, source: Source, plan: FilesToRead, request: EncoderRequest, *, towers_folder: Path
) -> RunEncoder:
    """Load the backbone and choose how files become pixels.

    Args:
        load_backbone: loads the space's backbone.
        source: reads some of the run's files, on which the decoders are compared.
        plan: the files of the run.
        request: what the user requested.
        towers_folder: the folder of the space's exported networks.

    Raises:
        RuntimeMismatch: if the requested decoder gives other vectors.
        BadBackbone: if the runtime or decoder is not available for this backbone.
    """
    loaded = load_backbone()
    backbones = loaded if isinstance(loaded, Sequence) else [loaded]
    count = plan.counts.todo
    encoder = AdaptiveEncoder(backbones, request.runtime, towers_folder, expected_images=count)
    method = PILLOW_METHOD
    if request.decoder is not None:
        sample = [data for data in read_sample(source, plan, 2 * COMPARISON_IMAGES) if is_safe_in_process(data)]
        method = choose_decode_method(
            encoder.backbone, sample, requested=request.decoder, expected_images=count, threads=request.threads
        ).on_devices([b.device for b in backbones], lambda: request.batch_size or encoder.batch_size)
    return RunEncoder(encoder, method)
