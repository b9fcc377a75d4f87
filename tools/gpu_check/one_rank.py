"""One process of a training on several: ``python -m tools.gpu_check.one_rank OUT CAPACITY...``.

It trains a small network for two steps on its share of the batches, with memory for CAPACITY images of its rank at
once, and writes the weights, the losses and the micro-batch to OUT. Each process has a GPU of its own where there are
enough of them; otherwise all are on the CPU.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from embedstore.backbones import load
from embedstore.finetuning import optimization
from embedstore.finetuning.accelerator import create_accelerator
from embedstore.finetuning.model import ClassificationHead, FinetuneModel
from embedstore.finetuning.optimization import OptimizerStep
from embedstore.finetuning.settings import FinetuneSettings
from embedstore.space import Recipe

SIZE, CLASSES, STEPS = 16, 3, 2
BATCHES = (7, 5)  # images of each step: no two processes have equal shares


def device_of(rank: int, count: int) -> str:
    """Return the device of a process."""
    if torch.cuda.device_count() < count:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        return "cpu"
    torch.cuda.set_device(rank)
    return f"cuda:{rank}"


def build_network(device: str) -> FinetuneModel:
    """Return a network that is the same in every process."""
    recipe = Recipe("timm/test_resnet", random_init=True, preprocess={"size": SIZE, "resize": SIZE})
    backbone = load(recipe, device=device)
    weight = np.random.default_rng(1).normal(size=(CLASSES, backbone.space.dim)).astype(np.float32)
    head = ClassificationHead(weight, np.zeros(CLASSES, np.float32), 1.0)
    return FinetuneModel(backbone, head, FinetuneSettings(layers="last-1", batch_size=max(BATCHES), warmup_ratio=0))


def train(rank: int, count: int) -> tuple[list[float], OptimizerStep]:
    """Take the steps on this process's share of each batch."""
    device = device_of(rank, count)
    step = OptimizerStep(build_network(device), create_accelerator(device, "fp32"), np.ones(CLASSES, np.float32), STEPS)
    step.network.set_train_mode()
    rng, losses = np.random.default_rng(0), []
    for number, images in enumerate(BATCHES):
        pixels = torch.from_numpy(rng.integers(0, 256, (images, 3, SIZE, SIZE), dtype=np.uint8))[rank::count]
        labels = torch.from_numpy(rng.integers(0, CLASSES, images))[rank::count]
        losses.append(step.run(pixels, labels, one_hot, (0, number)))
        step.schedule.step_update(number + 1)
    return losses, step


def one_hot(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images as they are, and the labels as probabilities."""
    return images, torch.nn.functional.one_hot(labels, CLASSES).float()


def limit_memory(capacity: int) -> None:
    """Let a forward pass of more images fail as CUDA does."""
    loss = optimization.weighted_loss

    def limited(logits: torch.Tensor, *arguments: object) -> torch.Tensor:
        if len(logits) > capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss(logits, *arguments)

    optimization.weighted_loss = limited


def main() -> None:
    """Train as the process that the environment names."""
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    limit_memory(int(sys.argv[2 + rank]))
    losses, step = train(rank, count)
    result = {"losses": losses, "micro": step.micro_batch_size, "device": str(step.network.device)}
    torch.save(result | {"state": step.network.copy_trainable_state()}, Path(sys.argv[1]) / f"{rank}.pt")
    if count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
