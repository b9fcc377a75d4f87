"""What ``embedstore bench`` measures, and its result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from embedstore.backbones.runtimes.runtime import Runtime
from embedstore.pipeline.decode import default_decode_threads


@dataclass(frozen=True)
class BenchSettings:
    """The settings of a benchmark.

    Attributes:
        backbone: its architecture counts, not its weights: random ones are drawn, and nothing is downloaded.
        backbone_args: as of :func:`embedstore.create`.
        preprocess: as of :func:`embedstore.create`.
        max_images: how many images of the folder.
        seconds_per_stage: how long each stage is measured.
        threads: threads that decode; None is one per core.
        device: as of :func:`embedstore.create`.
        precision: as of :func:`embedstore.create`.
        runtime: ``auto`` measures eager and onnx; any other is measured next to eager.
    """

    backbone: str = "timm/resnet50"
    backbone_args: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    max_images: int = 256
    seconds_per_stage: float = 5.0
    threads: int | None = None
    device: str = "auto"
    precision: str = "auto"
    runtime: Runtime = Runtime.AUTO

    @property
    def thread_count(self) -> int:
        """Threads that read and decode."""
        return self.threads or default_decode_threads()


@dataclass(frozen=True)
class RuntimeBenchmark:
    """One runtime.

    Attributes:
        runtime: its name.
        images_per_second: its speed; 0 if it could not be measured.
        min_cosine: the smallest cosine of a vector to the eager one, or None for eager.
        error: why it could not be measured, or "".
        precision: the precision of its forward passes.
    """

    runtime: str
    images_per_second: float
    min_cosine: float | None = None
    error: str = ""
    precision: str = "fp32"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        values["cosine"], values["why"] = values.pop("min_cosine"), values.pop("error")
        return values


@dataclass(frozen=True)
class BenchResult:
    """The speed of every stage, in images per second unless stated otherwise.

    Attributes:
        backbone: what was measured.
        device: where the network ran.
        precision: the precision of a forward pass of the fastest runtime.
        threads: threads that read and decoded.
        cores: cores that this process may use.
        images: how many images were measured.
        mean_pixels: their mean number of pixels.
        failed: how many files could not be decoded.
        read_rate: reading, on all threads.
        decode_rate: decoding, on all threads, with the decoder of the whole run.
        decoder: the decoder of the whole run.
        decode_rates: decoding by decoder.
        runtimes: every runtime.
        rate_by_batch_size: the eager network by batch size.
        batch_size: the smallest batch size from which larger ones bring no more speed.
        write_rate: vectors written per second.
        runtime: the runtime of the whole run, the fastest one.
        end_to_end_rate: the whole run.
        expected_rate: what decoding and the network allow together: one after the other on the same cores, or the
            slower of the two on a device.
        bottleneck: what limits the whole run, as one sentence.
    """

    backbone: str
    device: str
    precision: str
    threads: int
    cores: int
    images: int
    mean_pixels: int
    failed: int
    read_rate: float
    decode_rate: float
    decoder: str
    decode_rates: dict[str, float]
    runtimes: list[RuntimeBenchmark]
    rate_by_batch_size: dict[int, float]
    batch_size: int
    write_rate: float
    runtime: str
    end_to_end_rate: float
    expected_rate: float
    bottleneck: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}
        return values | {"networks": [r.to_json() for r in self.runtimes]}


_JSON_KEYS = {
    "mean_pixels": "pixels",
    "read_rate": "read",
    "decode_rate": "decode",
    "decode_rates": "decoders",
    "runtimes": "networks",
    "rate_by_batch_size": "batches",
    "batch_size": "knee",
    "write_rate": "write",
    "end_to_end_rate": "end_to_end",
    "expected_rate": "limit",
}
