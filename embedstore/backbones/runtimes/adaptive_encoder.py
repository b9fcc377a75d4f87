"""The runtime of one run: eager for the first batch, then another one if it proves equal and faster on that batch.

The first batch always goes through the eager network. Another runtime then embeds the same images: if its vectors are
further off than :data:`~embedstore.backbones.runtimes.runtime.MIN_COSINE`, it is refused. ``auto`` keeps the faster
one, and a short run never pays for an export.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.device_pool import DevicePool
from embedstore.backbones.runtimes.onnx_encoder import OnnxEncoder, Unavailable, is_exported, open_tower
from embedstore.backbones.runtimes.runtime import (
    MIN_COSINE,
    Agreement,
    ImageEncoder,
    Runtime,
    Tower,
    compare_vectors,
    has_onnx_export,
    require_onnx_export,
)
from embedstore.backbones.runtimes.runtime_plan import RunFacts, RuntimePlan, plan_runtime
from embedstore.errors import BadBackbone, EmbedstoreError, RuntimeMismatch
from embedstore.resources import available_cores, memory_slots

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

MIN_SPEEDUP = 1.03  # by which onnx must be faster than eager for `auto`: less is noise
COMPARISON_IMAGES = 16  # images on which a requested onnx is compared: they are embedded twice
PASS_BYTES = 1 << 30  # that one forward pass may take
MAX_CONCURRENCY = 8  # forward passes at a time; beyond it each gets several threads, so that memory stays bounded


@dataclass(frozen=True)
class FirstBatch:
    """The images on which runtimes are compared.

    Attributes:
        pixels: prepared images ``(B, 3, H, W)``, an array or a tensor on the device.
        vectors: their eager vectors, float32 ``(B, D)``.
    """

    pixels: Any
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision that embeds the batches of a run.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``bf16``.
        agreement: of the half precision with fp32 on the first batch; None for fp32.
        refused: the half precisions that gave other vectors.
    """

    precision: str = "fp32"
    agreement: Agreement | None = None
    refused: tuple[tuple[str, Agreement], ...] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """One sentence for each half precision that was refused."""
        return tuple(f"{_other_vectors(name, agreement)}; it is not used" for name, agreement in self.refused)

    def require_requested(self, backbone: Backbone) -> PrecisionChoice:
        """Return this choice.

        Raises:
            RuntimeMismatch: when the user requested a half precision and its vectors do not agree.
        """
        if backbone.must_be_half and self.refused:
            raise RuntimeMismatch(
                f"{_other_vectors(*self.refused[0])}; at least {MIN_COSINE} is required: "
                "--precision fp32, or leave it out"
            )
        return self


def _other_vectors(precision: str, agreement: Agreement) -> str:
    """Say that a half precision gives other vectors."""
    return f"--precision {precision} gives other vectors than fp32 on your images ({agreement})"


@dataclass(frozen=True)
class RuntimeChoice:
    """What embeds the batches of a run.

    Attributes:
        runtime: the runtime.
        encoder: what runs it.
        concurrency: how many batches may be encoded at once.
        agreement: how closely it agrees with the unchanged eager network, or None if it is that network.
        folded_batchnorms: how many batch normalizations are folded into convolutions.
        precision: of the forward passes, how closely it agrees with fp32, and which were refused.
        notices: what the user should know about the choice, one sentence each.
    """

    runtime: Runtime
    encoder: ImageEncoder
    concurrency: int = 1
    agreement: Agreement | None = None
    folded_batchnorms: int = 0
    precision: PrecisionChoice = PrecisionChoice()
    notices: tuple[str, ...] = ()


class AdaptiveEncoder:
    """An image encoder that chooses its runtime after the first batch.

    Args:
        backbones: loaded copies of one network on one or several devices; the first one decides.
        runtime: the requested runtime.
        towers_folder: the folder of the space's exported towers.
        expected_images: how many images the run embeds.

    Attributes:
        backbone: the first of the backbones.
        device: the devices, separated by commas.
        choice: what embeds the batches; eager until the first batch has been embedded.

    Raises:
        MissingExtra: when ``onnx`` is requested and its packages are not installed.
        BadBackbone: when the requested runtime does not support the devices or the precision.
    """

    def __init__(
        self, backbones: Sequence[Backbone], runtime: Runtime, towers_folder: Path, *, expected_images: int
    ) -> None:
        self.backbone = backbones[0]
        self.device = ",".join(b.device for b in backbones)
        self._pool = DevicePool(backbones)
        self._requested, self._towers_folder, self._expected_images = runtime, towers_folder, expected_images
        self._pool.reset_clocks()
        self._is_settled = runtime is Runtime.EAGER and not self.backbone.half_precisions
        self.choice = RuntimeChoice(Runtime.EAGER, self._pool, self._pool.concurrency if self._is_settled else 1)
        if runtime is Runtime.ONNX:
            require_onnx_export()
            if not self._supports_onnx:
                raise BadBackbone(
                    f"--runtime onnx runs on the CPU in fp32, not on {self.device}"
                    f"{' in ' + self.backbone.half_precisions[0] if self.backbone.must_be_half else ''}; "
                    "leave it out, or add --device cpu --precision fp32"
                )
        if runtime is Runtime.COMPILE and len(backbones) > 1:
            raise BadBackbone("--runtime compile runs on one device; name it with --device, or leave --runtime out")

    @property
    def precision(self) -> str:
        """The precision of a forward pass, also after the run."""
        return self.choice.precision.precision

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        if self._requested is Runtime.ONNX and not self._is_settled:
            return COMPARISON_IMAGES
        return self.choice.encoder.batch_size

    @property
    def concurrency(self) -> int:
        """How many batches may be encoded at once."""
        return self.choice.concurrency

    @property
    def _supports_onnx(self) -> bool:
        """Onnxruntime can run this network on its device and in its precision."""
        return self.device == "cpu" and not self.backbone.half_precisions

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Embed prepared images; the first call chooses the runtime of the later ones.

        Raises:
            RuntimeMismatch: when the requested runtime gives other vectors.
            BadBackbone: when the requested runtime cannot run this network.
        """
        if self._is_settled:
            return self.choice.encoder.encode_images(batch)
        begin = time.perf_counter()
        vectors = self.backbone.encode_images(batch)
        seconds_per_image = (time.perf_counter() - begin) / len(batch)
        self._is_settled = True  # also if the choice fails: then the run ends
        self.choice = self._choose(FirstBatch(batch, vectors), seconds_per_image * (self._expected_images - len(batch)))
        self._pool.reset_clocks()  # of what was compared and tuned
        return vectors

    def device_seconds(self, images: int) -> float | None:
        """Return the seconds in which the devices compute some images by their own clocks; None on a CPU."""
        rate = self._pool.images_per_second
        return images / rate if rate else None

    def close(self) -> None:
        """Restore the networks to what they were before the run."""
        self._pool.restore()

    def _choose(self, first: FirstBatch, seconds_ahead: float) -> RuntimeChoice:
        """Carry out the plan of this run."""
        plan = plan_runtime(
            RunFacts(
                requested=self._requested,
                expected_images=self._expected_images,
                seconds_ahead=seconds_ahead,
                on_cpu=self.backbone.device == "cpu",
                can_export=self._supports_onnx and has_onnx_export(),
                is_exported=is_exported(self._towers_folder, Tower.IMAGE, self.backbone.space.key),
                is_convolutional=self.backbone.is_convolutional,
            )
        )
        if plan.candidate is Runtime.COMPILE:
            precision = choose_precision(self._pool, first).require_requested(self.backbone)
            return replace(choose_compiled(self.backbone, first), precision=precision)
        if plan.candidate is Runtime.EAGER:
            return prepare_eager(self._pool, first, plan)
        if self._requested is Runtime.ONNX:
            return choose_onnx(self.backbone, first, self._towers_folder, plan)
        return self._choose_faster(first, plan)

    def _choose_faster(self, first: FirstBatch, plan: RuntimePlan) -> RuntimeChoice:
        """Choose onnx if it can be used and is faster than eager."""
        begin = time.perf_counter()
        self.backbone.encode_images(first.pixels)
        eager_seconds = time.perf_counter() - begin
        notices: tuple[str, ...] = ()
        try:
            onnx = choose_onnx(self.backbone, first, self._towers_folder, plan)
            if _seconds_in_parts(onnx, first.pixels) * MIN_SPEEDUP <= eager_seconds:
                return onnx
        except (EmbedstoreError, OSError) as e:
            notices = (f"runtime eager: {e}",)
        eager = prepare_eager(self._pool, first, plan)
        return replace(eager, notices=(*notices, *eager.notices))


def prepare_eager(pool: DevicePool, first: FirstBatch, plan: RuntimePlan) -> RuntimeChoice:
    """Prepare eager PyTorch on every device: fold the batch norms, in fp32, then choose precision and batch size.

    Folded weights have a wider range and lose more in half precision, which saves more time: where both together move
    the vectors, half precision alone is tried.
    """
    unfolded = RuntimeChoice(Runtime.EAGER, pool, pool.concurrency)
    choice = _fold_batchnorms(unfolded, pool, first) if plan.fold_batchnorms else unfolded
    precision = choose_precision(pool, first)
    if choice.folded_batchnorms and precision.refused and not precision.agreement:
        pool.unfold()
        precision = choose_precision(pool, first)
        choice = unfolded if precision.agreement else _fold_batchnorms(unfolded, pool, first)
    choice = replace(choice, precision=precision.require_requested(pool.backbones[0]))
    if plan.tune_device_batch:
        pool.tune_batch_size(first.pixels)
    return choice


def choose_precision(pool: DevicePool, first: FirstBatch) -> PrecisionChoice:
    """Choose the first of the half precisions whose vectors agree with fp32 on the first batch, otherwise fp32."""
    refused: list[tuple[str, Agreement]] = []
    for precision in pool.backbones[0].half_precisions:
        pool.set_precision(precision)
        agreement = compare_vectors(first.vectors, pool.backbones[0].encode_images(first.pixels))
        if agreement.is_close:
            return PrecisionChoice(precision, agreement, tuple(refused))
        pool.set_precision("fp32")
        refused.append((precision, agreement))
    return PrecisionChoice(refused=tuple(refused))


def choose_compiled(backbone: Backbone, first: FirstBatch) -> RuntimeChoice:
    """Choose torch.compile.

    Raises:
        RuntimeMismatch: when it gives other vectors.
        BadBackbone: when the network cannot be compiled on this machine.
    """
    from embedstore.backbones.runtimes.compiled import CompiledEncoder

    encoder = CompiledEncoder(backbone, len(first.pixels))
    return RuntimeChoice(Runtime.COMPILE, encoder, agreement=_require_agreement(Runtime.COMPILE, encoder, first))


def choose_onnx(backbone: Backbone, first: FirstBatch, towers_folder: Path, plan: RuntimePlan) -> RuntimeChoice:
    """Choose onnxruntime, with the tower that was exported before or a new export.

    Raises:
        RuntimeMismatch: when it gives other vectors.
        BadBackbone: when the network cannot be exported or its export cannot be used.
        OSError: when the export cannot be written.
    """
    key, concurrency = backbone.space.key, memory_slots(min(available_cores(), MAX_CONCURRENCY), PASS_BYTES)
    threads = max(1, available_cores() // concurrency)
    tower = open_tower(towers_folder, Tower.IMAGE, key, threads=threads, fast_start=False)
    if isinstance(tower, Unavailable):
        from embedstore.backbones.runtimes.export import export_tower

        export_tower(backbone, towers_folder, Tower.IMAGE, first.pixels)
        tower = open_tower(towers_folder, Tower.IMAGE, key, threads=threads, fast_start=False)
    if isinstance(tower, Unavailable):
        raise BadBackbone(f"the exported tower of {backbone.space.architecture} cannot be used: {tower.reason}")
    encoder = OnnxEncoder(backbone.space, image=tower)
    agreement = _require_agreement(Runtime.ONNX, encoder, first)
    if plan.tune_onnx_batch:
        encoder.runner.tune(encoder.encode_images, first.pixels, smallest=1, largest=encoder.batch_size)
    return RuntimeChoice(Runtime.ONNX, encoder, concurrency, agreement)


def _fold_batchnorms(choice: RuntimeChoice, pool: DevicePool, first: FirstBatch) -> RuntimeChoice:
    """Fold the batch normalizations of every copy; restore them if the vectors change."""
    count = pool.fold_batchnorms()
    agreement = compare_vectors(first.vectors, pool.backbones[0].encode_images(first.pixels))
    if agreement.is_close:
        return replace(choice, agreement=agreement, folded_batchnorms=count)
    pool.unfold()
    return replace(choice, notices=(f"batch normalizations are not folded: vectors would change ({agreement})",))


def _require_agreement(runtime: Runtime, encoder: ImageEncoder, first: FirstBatch) -> Agreement:
    """Compare a runtime with the eager network.

    Raises:
        RuntimeMismatch: when they do not agree.
    """
    agreement = compare_vectors(first.vectors, encoder.encode_images(first.pixels))
    if not agreement.is_close:
        raise RuntimeMismatch(
            f"--runtime {runtime} gives other vectors than eager on your images ({agreement}; at least {MIN_COSINE} "
            "is required); it is not used: --runtime eager"
        )
    return agreement


def _seconds_in_parts(choice: RuntimeChoice, pixels: Any) -> float:
    """Return the seconds of a batch as the run will embed it: in parts, on several threads."""
    encoder, size = choice.encoder, choice.encoder.batch_size
    parts = [pixels[i : i + size] for i in range(0, len(pixels), size)]
    with ThreadPoolExecutor(choice.concurrency) as threads:
        begin = time.perf_counter()
        list(threads.map(encoder.encode_images, parts))
        return time.perf_counter() - begin
