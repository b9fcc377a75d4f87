"""The encoder of one run, and the one that a worker keeps from part to part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from embedstore.modality import Modality
from embedstore.pipeline.encoder import EncoderRequest, LoadBackbone, RunEncoder, prepare_encoder
from embedstore.pipeline.plan import FilesToRead
from embedstore.sources.source import Source
from embedstore.space import Space


class OpenEncoder(Protocol):
    """Opens the encoder of a run for the length of a block; the arguments are those of ``prepare_encoder``."""

    def __call__(
        self, source: Source, plan: FilesToRead, request: EncoderRequest, *, space: Space, towers_folder: Path
    ) -> AbstractContextManager[RunEncoder]:
        """Return a context with the encoder."""


def open_once(load_backbone: LoadBackbone) -> OpenEncoder:
    """Return what opens a new encoder for every run, and closes it after the run."""
    return partial(_open_and_close, load_backbone)


@contextmanager
def _open_and_close(load_backbone: LoadBackbone, *arguments: Any, **paths: Any) -> Iterator[RunEncoder]:
    """Yield a new encoder and close it."""
    encoder = prepare_encoder(load_backbone, *arguments, **paths)
    try:
        yield encoder
    finally:
        encoder.close()


class KeptEncoder:
    """Opens the encoder of a worker once: its precision, folds, decoder and batch size hold for all its parts.

    Without it every part would compare again, which takes some forward passes in fp32.

    Args:
        load_backbone: loads the backbone; called at the first part.
        expected_images: how many images the whole plan has; None is one part.

    Attributes:
        settled: what was chosen for images, under the names of a report; empty for texts and sounds. None before a part
            whose decoder was chosen: a part that may kill its process is decoded in another one.
    """

    def __init__(self, load_backbone: LoadBackbone, expected_images: Callable[[], int] | None = None) -> None:
        self._load, self._expected_images = load_backbone, expected_images
        self._request: EncoderRequest | None = None
        self._encoder: RunEncoder | None = None
        self.settled: dict[str, Any] | None = None

    @contextmanager
    def __call__(
        self, source: Source, plan: FilesToRead, request: EncoderRequest, *, space: Space, towers_folder: Path
    ) -> Iterator[RunEncoder]:
        """Yield the kept encoder, or a new one if another is requested; after an error it is not kept."""
        if self._expected_images is not None:
            request = replace(request, expected_images=self._expected_images())
        if self._request != request:
            self.close()
        encoder = self._encoder or prepare_encoder(
            self._load, source, plan, request, space=space, towers_folder=towers_folder
        )
        self._request, self._encoder = request, encoder
        try:
            yield encoder
        except BaseException:
            self.close()
            raise
        if space.modality is not Modality.IMAGE:  # it counts the notices of one run
            self.close()
            self.settled = {}
        elif request.decoder is not None:
            self.settled = _choices(encoder, request)

    def close(self) -> None:
        """Restore the network."""
        encoder, self._encoder, self._request = self._encoder, None, None
        if encoder is not None:
            encoder.close()


def _choices(encoder: RunEncoder, request: EncoderRequest) -> dict[str, Any]:
    """Return what an encoder chose, and the batch size that a user named, under the names of a report."""
    batch_size = request.batch_size or encoder.batch_size
    return encoder.facts() | {"runtime": encoder.runtime, "batch_size": batch_size, "notices": encoder.notices}
