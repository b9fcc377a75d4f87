"""CLIP's symmetric loss (Radford et al. 2021, figure 3) on captioned scenes; goes on where it was stopped."""

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

SETTLED = 64  # batches over which the statistics of batch normalisation are taken at the end


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        scenes: how many, in files of ``part``. seed: of the scenes, the first weights and the order.
        steps, batch: how long.
        rate: the highest learning rate, reached after ``warm_up`` steps, then falling as a cosine to nothing.
        more, restart: further steps, whose rate begins at ``restart`` and falls likewise (a warm restart, Loshchilov
            and Hutter 2017).
        decay: weight decay (of matrices only). save_every: steps between two checkpoints.
        hard_from: from this step on, every other batch holds scenes of one kind and colour, so that what else they
            show must tell them apart; before, colours alone lower the loss and shapes would be learned late.
    """

    scenes: int = 160_000
    part: int = scenes_on_disk.PART
    seed: int = 1
    steps: int = 3_400
    batch: int = 256
    rate: float = 2e-3
    warm_up: int = 150
    more: int = 450
    restart: float = 7e-4
    decay: float = 0.05
    save_every: int = 100
    hard_from: int = 800

    @property
    def total(self) -> int:
        """All steps."""
        return self.steps + self.more


@dataclass(frozen=True)
class Data:
    """What is learned from.

    Attributes:
        pictures: uint8 ``(N, 64, 64, 3)``. tokens: int16 ``(N, wordings, 32)``.
        alike: int ``(N,)``: scenes with one value are of one kind and colour.
    """

    pictures: Any
    tokens: Any
    alike: Any


def prepare(folder: Path, plan: Plan) -> None:
    """Vocabulary, configuration and the captions as tokens, from scenes that :func:`tools.tiny.scenes.write` wrote."""
    if (folder / "tokens.npy").exists():
        return
    _, captions = scenes_on_disk.read(folder / "scenes", plan.scenes, part=plan.part)
    merges.write(folder / network.MERGES, merges.learn(c for told in captions[:40_000] for c in told))
    tokenizer = network.tokenizer(folder)
    config = network.configuration(tokenizer.vocab_size)
    (folder / network.CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tokens = np.stack([tokenizer(told).numpy() for told in captions]).astype(np.int16)
    np.save(folder / "alike.npy", scenes_on_disk.alike(plan.scenes, plan.seed))
    np.save(folder / "tokens.npy", tokens)


def train(folder: Path, plan: Plan, device: str) -> None:
    """Trains to the last step and writes the weights in float16."""
    data = Data(
        scenes_on_disk.read(folder / "scenes", plan.scenes, part=plan.part)[0],
        np.load(folder / "tokens.npy"),
        np.load(folder / "alike.npy"),
    )
    model = network.build(folder, plan.seed).to(device, memory_format=torch.channels_last)
    optimiser = _optimiser(model, plan)
    step, seconds = _resume(folder, model, optimiser)
    begin = time.perf_counter() - seconds
    losses: list[float] = []
    model.train()
    while step < plan.total:
        images, words = _batch(data, plan, step)
        for group in optimiser.param_groups:
            group["lr"] = _rate(plan, step)
        loss = _loss(model, images.to(device), words.to(device))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.logit_scale.data.clamp_(0, math.log(100))
        losses.append(loss.item())
        step += 1
        if step % plan.save_every == 0 or step == plan.total:
            _save(folder, model, optimiser, step, time.perf_counter() - begin)
            print(f"step {step} loss {np.mean(losses):.4f} {time.perf_counter() - begin:.0f} s", flush=True)
            losses.clear()
    _settle(model, data, plan, device)
    weights = {k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in model.state_dict().items()}
    save_file(weights, folder / network.WEIGHTS, {"made_by": "tools/tiny", "seed": str(plan.seed)})


def chosen(plan: Plan, alike: Any, step: int) -> tuple[Any, np.random.Generator]:
    """The scenes of a step's batch, ascending, and the generator that goes on from there; the step alone decides."""
    epoch, place = divmod(step, len(alike) // plan.batch)
    order = np.random.default_rng((plan.seed, epoch)).permutation(len(alike))
    rng = np.random.default_rng((plan.seed, epoch, place))
    if step >= plan.hard_from and step % 2:
        order = order[np.argsort(alike[order], kind="stable")]
        place = int(rng.integers(len(order) // plan.batch))
    return np.sort(order[place * plan.batch : (place + 1) * plan.batch]), rng


def _batch(data: Data, plan: Plan, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The images, -1 to 1, ``(B, 3, 64, 64)``, and one wording each, ``(B, 32)``."""
    rows, rng = chosen(plan, data.alike, step)
    wording = rng.integers(data.tokens.shape[1], size=len(rows))
    images = torch.from_numpy(data.pictures[rows]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    words = torch.from_numpy(data.tokens[rows, wording]).long()
    return images.contiguous(memory_format=torch.channels_last), words


def _loss(model: Any, images: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each image over all captions and of each caption over all images, halved."""
    seen, told = model.encode_image(images, normalize=True), model.encode_text(words, normalize=True)
    scores = model.logit_scale.exp() * seen @ told.T
    right = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


@torch.no_grad()
def _settle(model: Any, data: Data, plan: Plan, device: str) -> None:
    """Statistics of batch normalisation over random batches, in place of a running mean over the last, odd ones.

    Wu and Johnson 2021 ("Rethinking 'batch' in BatchNorm"), section 3: precise BatchNorm.
    """
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
    model.train()
    for step in range(SETTLED):
        model.encode_image(_batch(data, replace(plan, hard_from=SETTLED), step)[0].to(device))


def _optimiser(model: Any, plan: Plan) -> torch.optim.AdamW:
    """AdamW; gains, biases and the temperature do not decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))


def _rate(plan: Plan, step: int) -> float:
    """The learning rate of a step."""
    if step < plan.warm_up:
        return plan.rate * (step + 1) / plan.warm_up
    if step < plan.steps:
        return plan.rate * _cosine((step - plan.warm_up) / (plan.steps - plan.warm_up))
    return plan.restart * _cosine((step - plan.steps) / plan.more)


def _cosine(share: float) -> float:
    """From 1 to 0."""
    return (1 + math.cos(math.pi * share)) / 2


def _save(folder: Path, model: Any, optimiser: torch.optim.AdamW, step: int, seconds: float) -> None:
    """Everything that goes on, in one file, by rename."""
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    for n, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{n}.{k}": v.contiguous() for k, v in state.items()}
    partial = folder / "training.partial"
    save_file(tensors, partial, {"step": str(step), "seconds": str(seconds)})
    partial.rename(folder / "training.safetensors")


def _resume(folder: Path, model: Any, optimiser: torch.optim.AdamW) -> tuple[int, float]:
    """The step and the seconds reached before; 0 at the first time."""
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
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    with safe_open(str(file), "pt") as opened:
        facts = opened.metadata()
    return int(facts["step"]), float(facts["seconds"])
