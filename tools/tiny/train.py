"""Training with CLIP's symmetric loss (Radford et al. 2021, figure 3) on captioned scenes; it can be resumed."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from tools.tiny import merges, network
from tools.tiny import scenes as scenes_on_disk

BATCHNORM_BATCHES = 64  # batches over which the BatchNorm statistics are computed at the end


@dataclass(frozen=True)
class Plan:
    """Settings of the training.

    Attributes:
        scenes: number of scenes.
        part: scenes per file.
        seed: random seed of the scenes, the initial weights and the order.
        steps: steps of the main schedule.
        batch_size: scenes per step.
        learning_rate: highest rate, reached after the warm-up; it then falls to zero as a cosine.
        warmup_steps: steps in which the rate rises.
        restart_steps: further steps after a warm restart (Loshchilov and Hutter 2017).
        restart_rate: learning rate at the restart; it falls to zero as a cosine.
        weight_decay: of matrices only.
        save_every: steps between two checkpoints.
        hard_from: from this step on, every other batch holds scenes of one kind and color, so that other properties
            must distinguish them; otherwise colors alone lower the loss and shapes are learned late.
    """

    scenes: int = 160_000
    part: int = scenes_on_disk.PART
    seed: int = 1
    steps: int = 3_400
    batch_size: int = 256
    learning_rate: float = 2e-3
    warmup_steps: int = 150
    restart_steps: int = 450
    restart_rate: float = 7e-4
    weight_decay: float = 0.05
    save_every: int = 100
    hard_from: int = 800

    @property
    def total(self) -> int:
        """Number of all steps."""
        return self.steps + self.restart_steps


@dataclass(frozen=True)
class Data:
    """The training data.

    Attributes:
        images: uint8 ``(N, 64, 64, 3)``.
        tokens: int16 ``(N, captions, 32)``.
        scene_groups: int ``(N,)``; scenes with the same value have the same kind and color.
    """

    images: Any
    tokens: Any
    scene_groups: Any


def prepare(folder: Path, plan: Plan) -> None:
    """Write vocabulary, configuration and tokens of the scenes that :func:`tools.tiny.scenes.write` wrote."""
    if (folder / "tokens.npy").exists():
        return
    _, captions = scenes_on_disk.read(folder / "scenes", plan.scenes, part=plan.part)
    merges.write(folder / network.MERGES, merges.learn(c for texts in captions[:40_000] for c in texts))
    tokenizer = network.tokenizer(folder)
    config = network.configuration(tokenizer.vocab_size)
    (folder / network.CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tokens = np.stack([tokenizer(texts).numpy() for texts in captions]).astype(np.int16)
    np.save(folder / "alike.npy", scenes_on_disk.scene_groups(plan.scenes, plan.seed))
    np.save(folder / "tokens.npy", tokens)


def train(folder: Path, plan: Plan, device: str) -> None:
    """Train to the last step and write the weights in float16."""
    data = Data(
        scenes_on_disk.read(folder / "scenes", plan.scenes, part=plan.part)[0],
        np.load(folder / "tokens.npy"),
        np.load(folder / "alike.npy"),
    )
    model = network.build(folder, plan.seed).to(device, memory_format=torch.channels_last)
    optimizer = _optimizer(model, plan)
    step, seconds = _resume(folder, model, optimizer)
    begin = time.perf_counter() - seconds
    losses: list[float] = []
    model.train()
    while step < plan.total:
        images, words = _batch(data, plan, step)
        for group in optimizer.param_groups:
            group["lr"] = _rate(plan, step)
        loss = _loss(model, images.to(device), words.to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(0, math.log(100))
        losses.append(loss.item())
        step += 1
        if step % plan.save_every == 0 or step == plan.total:
            _save(folder, model, optimizer, step, time.perf_counter() - begin)
            print(f"step {step} loss {np.mean(losses):.4f} {time.perf_counter() - begin:.0f} s", flush=True)
            losses.clear()
    _compute_batchnorm_statistics(model, data, plan, device)
    weights = {k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in model.state_dict().items()}
    save_file(weights, folder / network.WEIGHTS, {"made_by": "tools/tiny", "seed": str(plan.seed)})


def select_batch(plan: Plan, scene_groups: Any, step: int) -> tuple[Any, np.random.Generator]:
    """Return the scenes of a step's batch, ascending, and its random generator; they depend on the step alone."""
    epoch, place = divmod(step, len(scene_groups) // plan.batch_size)
    order = np.random.default_rng((plan.seed, epoch)).permutation(len(scene_groups))
    rng = np.random.default_rng((plan.seed, epoch, place))
    if step >= plan.hard_from and step % 2:
        order = order[np.argsort(scene_groups[order], kind="stable")]
        place = int(rng.integers(len(order) // plan.batch_size))
    return np.sort(order[place * plan.batch_size : (place + 1) * plan.batch_size]), rng


def _batch(data: Data, plan: Plan, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images, -1 to 1, ``(B, 3, 64, 64)``, and one caption each, ``(B, 32)``."""
    rows, rng = select_batch(plan, data.scene_groups, step)
    caption = rng.integers(data.tokens.shape[1], size=len(rows))
    images = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    words = torch.from_numpy(data.tokens[rows, caption]).long()
    return images.contiguous(memory_format=torch.channels_last), words


def _loss(model: Any, images: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Return the mean of the cross-entropies of images over captions and of captions over images."""
    image_vectors, text_vectors = model.encode_image(images, normalize=True), model.encode_text(words, normalize=True)
    scores = model.logit_scale.exp() * image_vectors @ text_vectors.T
    targets = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, targets) + functional.cross_entropy(scores.T, targets)) / 2


@torch.no_grad()
def _compute_batchnorm_statistics(model: Any, data: Data, plan: Plan, device: str) -> None:
    """Compute BatchNorm statistics over random batches, instead of a running mean over the last, special ones.

    Wu and Johnson 2021 ("Rethinking 'batch' in BatchNorm"), section 3: precise BatchNorm.
    """
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
    model.train()
    for step in range(BATCHNORM_BATCHES):
        model.encode_image(_batch(data, replace(plan, hard_from=BATCHNORM_BATCHES), step)[0].to(device))


def _optimizer(model: Any, plan: Plan) -> torch.optim.AdamW:
    """Return AdamW; gains, biases and the temperature do not decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98))


def _rate(plan: Plan, step: int) -> float:
    """Return the learning rate of a step."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    if step < plan.steps:
        return plan.learning_rate * _cosine((step - plan.warmup_steps) / (plan.steps - plan.warmup_steps))
    return plan.restart_rate * _cosine((step - plan.steps) / plan.restart_steps)


def _cosine(fraction: float) -> float:
    """Return a cosine from 1 to 0."""
    return (1 + math.cos(math.pi * fraction)) / 2


def _save(folder: Path, model: Any, optimizer: torch.optim.AdamW, step: int, seconds: float) -> None:
    """Write the state of the training to one file, atomically."""
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    for n, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimiser.{n}.{k}": v.contiguous() for k, v in state.items()}
    temporary = folder / "training.partial"
    save_file(tensors, temporary, {"step": str(step), "seconds": str(seconds)})
    temporary.rename(folder / "training.safetensors")


def _resume(folder: Path, model: Any, optimizer: torch.optim.AdamW) -> tuple[int, float]:
    """Restore the state; return the steps and seconds so far, 0 at the first time."""
    file = folder / "training.safetensors"
    if not file.exists():
        return 0, 0.0
    tensors = load_file(file)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, n, key = name.split(".")
            state.setdefault(int(n), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    with safe_open(str(file), "pt") as opened:
        metadata = opened.metadata()
    return int(metadata["step"]), float(metadata["seconds"])
