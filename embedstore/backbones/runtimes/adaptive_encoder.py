"""A network that stays with PyTorch for one run: its precision, its folds and its batch size, or ``torch.compile``.

The first batch goes through the unchanged network in fp32. Whatever is tried then embeds the same images, and is
refused if its vectors are further off than :data:`~embedstore.backbones.runtimes.runtime.MIN_COSINE`. What is tried
follows from the request, the device and the number of images, and on the CPU never from a measured time: a command that
is repeated gives the same vectors. Onnxruntime runs in :mod:`~embedstore.backbones.runtimes.tower_encoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.device_pool import DevicePool
from embedstore.backbones.runtimes.runtime import MIN_COSINE, Agreement, ImageEncoder, Runtime, compare_vectors
from embedstore.backbones.runtimes.runtime_choice import FirstBatch, PrecisionChoice, RuntimeChoice
from embedstore.backbones.runtimes.runtime_plan import RunFacts, RuntimePlan, plan_runtime
from embedstore.errors import BadBackbone, RuntimeMismatch

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone


class AdaptiveEncoder:
    """An image encoder that chooses how PyTorch runs the network after the first batch.

    Args:
        backbones: loaded copies of one network on one or several devices; the first one decides.
        runtime: the requested runtime.
        expected_images: how many images the run embeds.
        batch_size: images of a batch, if the user named a number.

    Attributes:
        backbone: the first of the backbones.
        device: the devices, separated by commas.
        choice: what embeds the batches; eager until the first batch has been embedded.

    Raises:
        BadBackbone: when the requested runtime does not support the devices or the precision.
    """

    def __init__(
        self,
        backbones: Sequence[Backbone],
        runtime: Runtime,
        *,
        expected_images: int,
        batch_size: int | None = None,
    ) -> None:
        self.backbone = backbones[0]
        self.device = ",".join(b.device for b in backbones)
        self._pool = DevicePool(backbones)
        self._requested, self._expected_images, self._batch_size = runtime, expected_images, batch_size
        self._pool.reset_clocks()
        self._is_settled = runtime is Runtime.EAGER and not self.backbone.half_precisions
        self.choice = RuntimeChoice(Runtime.EAGER, self._pool, self._pool.concurrency if self._is_settled else 1)
        if runtime is Runtime.ONNX:
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
        return self.choice.encoder.batch_size

    @property
    def concurrency(self) -> int:
        """How many batches may be encoded at once."""
        return self.choice.concurrency

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Embed prepared images; the first call chooses the runtime of the later ones.

        Raises:
            RuntimeMismatch: when the requested runtime gives other vectors.
            BadBackbone: when the requested runtime cannot run this network.
        """
        if self._is_settled:
            return self.choice.encoder.encode_images(batch)
        vectors = self.backbone.encode_images(batch)
        self._is_settled = True  # also if the choice fails: then the run ends
        self.choice = self._choose(FirstBatch(batch, vectors))
        self._pool.reset_clocks()  # of what was compared and tuned
        return vectors

    def device_seconds(self, images: int) -> float | None:
        """Return the seconds in which the devices compute some images by their own clocks; None on a CPU."""
        rate = self._pool.images_per_second
        return images / rate if rate else None

    def close(self) -> None:
        """Restore the networks to what they were before the run."""
        self._pool.restore()

    def _choose(self, first: FirstBatch) -> RuntimeChoice:
        """Carry out the plan of this run."""
        on_cpu, is_convolutional = self.backbone.device == "cpu", self.backbone.is_convolutional
        plan = plan_runtime(RunFacts(self._requested, self._expected_images, on_cpu, is_convolutional))
        if plan.candidate is Runtime.COMPILE:
            precision = choose_precision(self._pool, first).require_requested(self.backbone)
            return replace(choose_compiled(self.backbone, first, self._static_batch()), precision=precision)
        return prepare_eager(self._pool, first, plan)

    def _static_batch(self) -> int:
        """Return the size of every batch of a compiled network, whatever the first one happened to have."""
        sizes = (self._batch_size or self.backbone.batch_size, self.backbone.batch_size, self._expected_images)
        return max(1, min(sizes))


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


def choose_compiled(backbone: Backbone, first: FirstBatch, batch_size: int) -> RuntimeChoice:
    """Choose torch.compile, with batches of one size.

    Raises:
        RuntimeMismatch: when it gives other vectors.
        BadBackbone: when the network cannot be compiled on this machine.
    """
    from embedstore.backbones.runtimes.compiled import CompiledEncoder

    encoder = CompiledEncoder(backbone, batch_size)
    return RuntimeChoice(Runtime.COMPILE, encoder, agreement=_require_agreement(Runtime.COMPILE, encoder, first))


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
