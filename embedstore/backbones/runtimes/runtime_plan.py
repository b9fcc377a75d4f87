"""Decide what a run with PyTorch tries, from what is known before its second batch; no measured time is among it."""

from __future__ import annotations

from dataclasses import dataclass

from embedstore.backbones.runtimes.runtime import Runtime

# A shorter run keeps the network as it is: interrupted and resumed it gives the same vectors to the bit.
MIN_IMAGES_TO_FOLD = 2_000  # folding saves a fifth of about a minute on two cores, and changes vectors by about 1e-7
MIN_IMAGES_TO_TUNE_BATCH = 10_000  # on a device: the search for its batch size takes about thirty forward passes


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run.

    Attributes:
        requested: the runtime that the user asked for.
        expected_images: how many images the run embeds.
        on_cpu: the network is on the CPU.
        is_convolutional: most of the network's parameters belong to convolutions.
    """

    requested: Runtime
    expected_images: int
    on_cpu: bool
    is_convolutional: bool


@dataclass(frozen=True)
class RuntimePlan:
    """What a run tries after its first batch.

    Attributes:
        candidate: eager or compiled.
        fold_batchnorms: fold batch normalizations, if the network stays eager.
        tune_device_batch: look for the device's best batch size, if the network stays eager.
    """

    candidate: Runtime
    fold_batchnorms: bool = False
    tune_device_batch: bool = False


def plan_runtime(run: RunFacts) -> RuntimePlan:
    """Plan what a run tries: the requested runtime, or for ``auto`` whatever repays its cost."""
    if run.requested is not Runtime.AUTO:
        return RuntimePlan(run.requested)
    return RuntimePlan(
        candidate=Runtime.EAGER,
        fold_batchnorms=run.is_convolutional and run.expected_images >= MIN_IMAGES_TO_FOLD,
        tune_device_batch=not run.on_cpu and run.expected_images >= MIN_IMAGES_TO_TUNE_BATCH,
    )
