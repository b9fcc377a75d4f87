"""What embeds the batches of a run, and the images on which that was decided; torch is not imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import MIN_COSINE, Agreement, ImageEncoder, Runtime
from embedstore.errors import RuntimeMismatch

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone


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
        agreement: the agreement of the half precision with fp32 on the first batch; None for fp32.
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
        precision: the precision of the forward passes, how closely it agrees with fp32, and which precisions were
            refused.
        notices: what the user should know about the choice, one sentence each.
    """

    runtime: Runtime
    encoder: ImageEncoder
    concurrency: int = 1
    agreement: Agreement | None = None
    folded_batchnorms: int = 0
    precision: PrecisionChoice = PrecisionChoice()
    notices: tuple[str, ...] = ()
