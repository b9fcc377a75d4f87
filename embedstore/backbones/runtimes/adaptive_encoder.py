"""The runtime of one run: eager at first, and another once it has proved on the run's own images that it may and pays.

The first batch goes through the eager network in any case. Another runtime then embeds the same images: if its
vectors are further off than :data:`runtime.LEAST` it is refused, and ``auto`` keeps whichever
is faster. A short run never pays for an export.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.batch_size import find_batch_size, throughput_function
from embedstore.backbones.runtimes.device_pool import DevicePool
from embedstore.backbones.runtimes.onnx_encoder import OnnxEncoder, open_tower, read_manifest
from embedstore.backbones.runtimes.runtime import (
    Agreement,
    Runtime,
    Tower,
    compare_vectors,
    has_onnx_export,
    require_onnx_export,
)
from embedstore.errors import BadBackbone, EmbedstoreError, RuntimeMismatch
from embedstore.space import Space
from embedstore.timing import available_cores

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.runtimes.fold_batchnorm import BatchNormFold

# Seconds of eager work ahead from which `auto` tries onnx. Export and comparison cost 2 to 6 s for a ResNet-50 or a
# ViT-B/32 on two cores, and save between a twentieth (ViT) and three quarters (MobileNetV2) of the work.
# A run below this stays with the network as it is: interrupted and resumed it gives the same vectors to the bit.
MIN_SECONDS_TO_EXPORT = 60.0
MIN_SECONDS_TO_LOAD_EXPORT = 10.0  # where the tower was exported before
MIN_SECONDS_TO_FOLD = 60.0  # of eager work; folding costs little, and changes vectors by some 1e-7
MIN_IMAGES_TO_TUNE_BATCH = (
    500  # images, before the best batch of onnx is looked for: that takes the forwards of about ten
)
MIN_SECONDS_TO_TUNE_BATCH = 10.0  # of work on a device, before the batch size is looked for: about thirty forwards
MIN_SPEEDUP = 1.03  # by which `auto` must be faster than eager: less is noise
COMPARISON_IMAGES = 16  # images on which onnx is compared where it was asked for: they are embedded twice
MAX_CONCURRENCY = 8  # forwards at a time; beyond it each gets several threads, so that memory stays bounded

Encode = Callable[[Any], NDArray[np.float32]]  # uint8 (B, 3, H, W), an array or a tensor on the device


class AdaptiveEncoder:
    """An image encoder that settles its runtime at the first batch.

    Args:
        networks: loaded; the first decides, further ones are its copies on other devices.
        runtime: what was asked for. folder: of the space's exported towers.
        images: how many are to come, for ``auto``.

    Attributes:
        network: the first. runtime: what runs; EAGER until settled. folded: batch normalisations that were folded.
        parallel: how many batches may be encoded at once.
        agreement: with eager, where another runtime was tried. notices: what a person should know.
        batch_size: images per forward.
    """

    def __init__(
        self, backbones: Sequence[Backbone], runtime: Runtime, towers_folder: Path, *, expected_images: int
    ) -> None:
        network, self._replicas = backbones[0], DevicePool(backbones)
        self.space: Space = network.space
        self.device, self.precision = ",".join(n.device for n in backbones), network.precision
        self.runtime, self.folded = Runtime.EAGER, 0
        self.concurrency = self._replicas.concurrency if runtime is Runtime.EAGER else 1  # one, until it is settled
        self.agreement: Agreement | None = None
        self.notices: list[str] = []
        self.backbone, self._asked, self._folder, self._left = network, runtime, towers_folder, expected_images
        self._folds: list[BatchNormFold] = []
        self._encode: Encode | None = self._replicas.encode_images if runtime is Runtime.EAGER else None
        self._own = COMPARISON_IMAGES if runtime is Runtime.ONNX else None
        if runtime is Runtime.ONNX:
            require_onnx_export()
            self._must_be_cpu()
        if runtime is Runtime.COMPILE and len(backbones) > 1:
            raise BadBackbone("--runtime compile runs on one device; name it with --device, or leave --runtime out")

    @property
    def batch_size(self) -> int:
        """Images per forward."""
        return self._own or self.backbone.batch_size

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Vectors of prepared images; the first call decides how later ones are made.

        Raises:
            RuntimeMismatch: the runtime that was asked for gives other vectors.
            BadBackbone: it cannot run this network.
        """
        if self._encode is not None:
            return self._encode(batch)
        begin = time.perf_counter()
        reference = self.backbone.encode_images(batch)
        seconds = time.perf_counter() - begin
        ahead = seconds / len(batch) * (self._left - len(batch))
        self._encode = self._replicas.encode_images
        if self._asked is Runtime.COMPILE:
            self._compile(batch, reference)
        elif self._asked is Runtime.ONNX:
            self._export(batch, reference)
        else:
            self._maybe(batch, reference, ahead)
            if self.runtime is Runtime.EAGER:
                self._stay(batch, reference, ahead)
        return reference

    def close(self) -> None:
        """The networks as they were before."""
        for fold in self._folds:
            fold.restore()

    def _stay(self, batch: Any, reference: NDArray[np.float32], ahead: float) -> None:
        """``auto`` with torch: batch normalisation folded, the device's best batch size, every device at work."""
        if ahead > MIN_SECONDS_TO_FOLD and self.backbone.is_convolutional:
            self._fold(batch, reference)
        if self.backbone.device != "cpu" and ahead > MIN_SECONDS_TO_TUNE_BATCH:
            self._own = self._sized(batch)
        self.concurrency = self._replicas.concurrency

    def _fold(self, batch: Any, reference: NDArray[np.float32]) -> None:
        """Fold every copy, and undo it where the vectors are not the same."""
        from embedstore.backbones.runtimes.fold_batchnorm import BatchNormFold

        for network in self._replicas.backbones:
            self._folds.append(BatchNormFold(network))
        found = compare_vectors(reference, self.backbone.encode_images(batch))
        if found.is_close:
            self.agreement, self.folded = found, self._folds[0].folded_count
            return
        self.close()
        self.notices.append(f"batch normalisation is not folded: it would give other vectors ({found})")

    def _maybe(self, batch: Any, reference: NDArray[np.float32], ahead: float) -> None:
        """``auto``: onnx where it may, pays and is faster; otherwise all stays as it is."""
        if self.device != "cpu" or self.precision != "fp32" or not has_onnx_export():
            return
        there = not isinstance(read_manifest(self._folder, Tower.IMAGE, self.space.key), str)
        if ahead < (MIN_SECONDS_TO_LOAD_EXPORT if there else MIN_SECONDS_TO_EXPORT):
            return
        begin = time.perf_counter()
        self.backbone.encode_images(batch)
        eager = time.perf_counter() - begin
        try:
            self._export(batch, reference)
        except (EmbedstoreError, OSError) as e:
            self.notices.append(f"runtime eager: {e}")
            self.agreement = None
            return
        if self._timed(batch) * MIN_SPEEDUP > eager and self.runtime is Runtime.ONNX:
            self.runtime, self.concurrency, self._own, self.agreement = Runtime.EAGER, 1, None, None
            self._encode = self._replicas.encode_images

    def _sized(self, batch: Any) -> int:
        """The batch size from which more images at once bring no more speed, between a quarter and four times ours."""
        own = self.backbone.batch_size
        found, _ = find_batch_size(throughput_function(self.backbone, batch), max(1, own // 4), 4 * own)
        for network in self._replicas.backbones:
            network.batch_size = found
        return found

    def _export(self, batch: Any, reference: NDArray[np.float32]) -> None:
        """Use onnx, from an export that is there or a new one."""
        self._must_be_cpu()
        fast = self._towers()
        if isinstance(fast, str):
            from embedstore.backbones.runtimes.export import export_tower

            export_tower(self.backbone, self._folder, Tower.IMAGE, batch)
            fast = self._towers()
        if isinstance(fast, str):
            raise BadBackbone(f"the exported tower of {self.space.architecture} cannot be used: {fast}")
        self._accept(Runtime.ONNX, fast.encode_images, batch, reference)
        if self._left > MIN_IMAGES_TO_TUNE_BATCH:
            fast.batch_size, _ = find_batch_size(throughput_function(fast, batch), 1, fast.batch_size)
        self.concurrency, self._own = _at_once(), fast.batch_size

    def _compile(self, batch: Any, reference: NDArray[np.float32]) -> None:
        """Use torch.compile."""
        from embedstore.backbones.runtimes.compiled import CompiledEncoder

        compiled = CompiledEncoder(self.backbone, len(batch))
        self._accept(Runtime.COMPILE, compiled.encode_images, batch, reference)
        self._own = compiled.batch_size

    def _accept(self, runtime: Runtime, encode: Encode, batch: Any, reference: NDArray[np.float32]) -> None:
        """Take another runtime if its vectors are the eager ones.

        Raises:
            RuntimeMismatch: they are not.
        """
        self.agreement = compare_vectors(reference, encode(batch))
        if not self.agreement.is_close:
            raise RuntimeMismatch(
                f"--runtime {runtime} gives other vectors than eager on your images ({self.agreement}; 0.9999 is the "
                "least); it is not used: --runtime eager"
            )
        self.runtime, self._encode = runtime, encode

    def _towers(self) -> OnnxEncoder | str:
        """The exported image tower, or why there is none."""
        threads = max(1, available_cores() // _at_once())
        found = open_tower(self._folder, Tower.IMAGE, self.space.key, threads=threads, fast_start=False)
        return found if isinstance(found, str) else OnnxEncoder(self.space, image=found)

    def _timed(self, batch: Any) -> float:
        """Seconds of a batch as the run will do it: in parts, on several threads."""
        from concurrent.futures import ThreadPoolExecutor

        encode = self._encode or self.backbone.encode_images
        size = self.batch_size
        with ThreadPoolExecutor(self.concurrency) as pool:
            begin = time.perf_counter()
            list(pool.map(encode, [batch[i : i + size] for i in range(0, len(batch), size)]))
        return time.perf_counter() - begin

    def _must_be_cpu(self) -> None:
        """Refuse onnx elsewhere."""
        if self.device != "cpu" or self.precision != "fp32":
            raise BadBackbone(
                f"--runtime onnx runs on the CPU in fp32, not on {self.device} in {self.precision}; "
                "leave it out, or add --device cpu"
            )


def _at_once() -> int:
    """Forwards at a time: each on one thread, which wastes least, up to a bound."""
    return min(available_cores(), MAX_CONCURRENCY)
