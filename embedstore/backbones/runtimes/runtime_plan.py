"""Decide which runtimes a run tries, from what is known after its first batch."""

from __future__ import annotations

from dataclasses import dataclass

from embedstore.backbones.runtimes.runtime import Runtime

# Seconds of eager work ahead from which `auto` tries onnx. Export and comparison cost 2 to 6 s for a ResNet-50 or a
# ViT-B/32 on two cores, and save between a twentieth (ViT) and three quarters (MobileNetV2) of the work.
# A shorter run keeps the network as it is: interrupted and resumed it gives the same vectors to the bit.
MIN_SECONDS_TO_EXPORT = 60.0
MIN_SECONDS_TO_LOAD_EXPORT = 10.0  # if the tower was exported before
MIN_SECONDS_TO_FOLD = 60.0  # of eager work; folding costs little, and changes vectors by about 1e-7
MIN_SECONDS_TO_TUNE_BATCH = 10.0  # of work on a device: the search for its batch size takes about thirty forward passes
MIN_IMAGES_TO_TUNE_BATCH = 500  # of a run with onnx: the search for its batch size takes about ten forward passes


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run after its first batch.

    Attributes:
        requested: the runtime that the user asked for.
        expected_images: how many images the run embeds.
        seconds_ahead: the estimated seconds of eager work that remain.
        on_cpu: the network is on the CPU.
        can_export: onnx is installed and can run this network on this device and in this precision.
        is_exported: a usable export of the image tower exists.
        is_convolutional: most of the network's parameters belong to convolutions.
    """

    requested: Runtime
    expected_images: int
    seconds_ahead: float
    on_cpu: bool
    can_export: bool
    is_exported: bool
    is_convolutional: bool


@dataclass(frozen=True)
class RuntimePlan:
    """What a run tries after its first batch.

    Attributes:
        candidate: the runtime that is compared with eager; EAGER compares nothing.
        tune_onnx_batch: look for the best batch size of onnx, if it is used.
        fold_batchnorms: fold batch normalizations, if the network stays eager.
        tune_device_batch: look for the device's best batch size, if the network stays eager.
    """

    candidate: Runtime
    tune_onnx_batch: bool = False
    fold_batchnorms: bool = False
    tune_device_batch: bool = False


def plan_runtime(run: RunFacts) -> RuntimePlan:
    """Plan what a run tries: the requested runtime, or for ``auto`` whatever repays its cost."""
    tune_onnx_batch = run.expected_images > MIN_IMAGES_TO_TUNE_BATCH
    if run.requested is not Runtime.AUTO:
        return RuntimePlan(run.requested, tune_onnx_batch)
    min_seconds = MIN_SECONDS_TO_LOAD_EXPORT if run.is_exported else MIN_SECONDS_TO_EXPORT
    return RuntimePlan(
        candidate=Runtime.ONNX if run.can_export and run.seconds_ahead >= min_seconds else Runtime.EAGER,
        tune_onnx_batch=tune_onnx_batch,
        fold_batchnorms=run.is_convolutional and run.seconds_ahead > MIN_SECONDS_TO_FOLD,
        tune_device_batch=not run.on_cpu and run.seconds_ahead > MIN_SECONDS_TO_TUNE_BATCH,
    )
