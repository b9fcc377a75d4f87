"""The loop: epochs over varied images, validation by the embedding's own pixels, the best kept, a state after each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.batch_runner import is_out_of_memory
from embedstore.classify import metrics
from embedstore.errors import FinetuneError
from embedstore.finetuning import resume_state
from embedstore.finetuning.accelerator import fixed_seed
from embedstore.finetuning.augment import build_batch_mixer
from embedstore.finetuning.dataset import EpochBatchSampler, LabeledImageDataset, create_loader
from embedstore.finetuning.history import Epoch, FinetuneScore, TrainingHistory, TrainingStep
from embedstore.finetuning.model import FinetuneModel
from embedstore.finetuning.settings import WeightAverage

if TYPE_CHECKING:
    from accelerate import Accelerator

MAX_GRAD_NORM = 1.0  # largest norm of a gradient (as timm's recipes for fine-tuning)
EMA_DECAY = 0.99  # of the averaged weights, less in the first steps: min(EMA, (1 + t) / (10 + t))
DIVERGENCE_FACTOR = 3.0  # times the loss of guessing: from there nothing comes back at a falling rate
DIVERGENCE_STEPS = 5  # steps that must agree on it
NO_SCORE = FinetuneScore(0.0, 0.0, 0.0)
VAL_CACHE_BYTES = 1 << 29  # of validation pixels kept in memory


class Trainer:
    """One run.

    Args:
        tuning: what learns. pictures: every row. train, val: rows. engine: accelerate's.
        folder: where the state is kept, None for nowhere.
        until: the epoch to end with, chosen before; nothing is judged then. None lets validation choose.
        tell: called with every :class:`Step` and :class:`Epoch`.
    """

    def __init__(
        self,
        finetune_model: FinetuneModel,
        dataset: LabeledImageDataset,
        rows: tuple[NDArray[np.int64], NDArray[np.int64]],
        accelerator: Accelerator,
        folder: Path | None = None,
        progress: Callable[[TrainingStep | Epoch], None] = lambda _: None,
        *,
        final_epoch: int | None = None,
    ) -> None:
        from timm.scheduler.cosine_lr import CosineLRScheduler

        self.finetune_model, self.settings, self.dataset = finetune_model, finetune_model.settings, dataset
        self.train_rows, self.val_rows = rows
        self.accelerator, self.folder, self.progress, self.final_epoch = accelerator, folder, progress, final_epoch
        self.device = torch.device(finetune_model.backbone.device)
        self.head = finetune_model.model.head.to(self.device)
        self.parameter_names = [n for g in finetune_model.groups() for n in g["names"]]
        self.base_optimizer = torch.optim.AdamW(finetune_model.groups())
        self.sampler = EpochBatchSampler(
            self.train_rows,
            self.settings.batch,
            self.settings.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        total = max(1, len(self.sampler) * self.settings.epochs)
        warm = min(total - 1, round(self.settings.warmup * total))
        self.schedule = CosineLRScheduler(
            self.base_optimizer, max(2, total - warm), warmup_t=warm, warmup_prefix=True, t_in_epochs=False
        )
        self.model, self.optimizer = accelerator.prepare(
            finetune_model.model, self.base_optimizer, device_placement=[False, False]
        )
        self.class_count = len(self.head.bias)
        self.history = TrainingHistory(micro=self.settings.micro or self.settings.batch)
        self.best_state = finetune_model.copy_trainable_state()
        ema = self.settings.average is WeightAverage.EMA
        self.ema_state = {n: t.clone() for n, t in finetune_model.trainable_state().items()} if ema else {}
        self._pixels: list[torch.Tensor] | None = None

    def run(self) -> TrainingHistory:
        """Train to the end, from where a killed run stopped.

        Raises:
            StoreIOError: the state cannot be written. FinetuneError: not even one image fits into memory.
        """
        resumed = self._resumed()
        self.accelerator.wait_for_everyone()  # the first process writes over what the others have just read
        if not resumed:
            self._close(Epoch(0, None, 0.0, self.validate(), 0.0))
        batches = create_loader(self.dataset, self.sampler, self.settings.workers)
        while not self.history.done:
            begin = time.perf_counter()
            self.sampler.epoch = number = self.history.epochs[-1].number + 1
            with fixed_seed(self.settings.seed, number):
                loss = self._epoch(batches, number)
            if self.history.stopped:
                self._finish()
                break
            val = self._judge_candidate()
            self._close(
                Epoch(number, loss, self.base_optimizer.param_groups[0]["lr"], val, time.perf_counter() - begin)
            )
        return self.history

    def validate(self) -> FinetuneScore:
        """The weights as they are, on the validation rows, through the embedding's own pixels."""
        if self.final_epoch is not None:
            return NO_SCORE
        return self._agreed(self._judged())

    def _judged(self) -> FinetuneScore:
        """By this process alone."""
        logits = self.predict_logits(self.val_rows)
        y = np.array([self.dataset.samples[r].class_index for r in self.val_rows])
        proba = torch.softmax(torch.from_numpy(logits), 1).numpy()
        if not np.isfinite(proba).all():
            return FinetuneScore(0.0, 0.0, math.inf)
        return FinetuneScore(
            *(metrics.compute_metric(m, y, proba) for m in ("accuracy", "mean_per_class_recall", "log_loss"))
        )

    def predict_logits(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the network says of some rows: float32 ``(n, K)``."""
        self.finetune_model.model.eval()
        out = []
        with torch.inference_mode(), self.accelerator.autocast():
            for pixels in self._prepared(rows):
                out.append(
                    self.finetune_model.model(self.finetune_model.backbone.normalize(pixels.to(self.device)))
                    .float()
                    .cpu()
                )
        return torch.cat(out).numpy() if out else np.empty((0, self.class_count), np.float32)

    def _prepared(self, rows: NDArray[np.int64]) -> Iterator[torch.Tensor]:
        """Evaluation pixels, batch by batch; those of validation are kept where they fit."""
        if rows is self.val_rows and self._pixels is not None:
            yield from self._pixels
            return
        size = min(self.settings.batch, self.finetune_model.backbone.batch_size)
        kept: list[torch.Tensor] | None = [] if rows is self.val_rows else None
        total = 0
        for begin in range(0, len(rows), size):
            pixels = torch.from_numpy(self.dataset.evaluation_pixels(rows[begin : begin + size].tolist()))
            total += pixels.numel()
            if kept is not None:
                kept = [*kept, pixels] if total <= VAL_CACHE_BYTES else None
            yield pixels
        if kept is not None:
            self._pixels = kept

    def _epoch(self, batches: Any, number: int) -> float:
        """One pass; the mean loss. Sets ``stopped`` when the loss has diverged."""
        self.finetune_model.set_train_mode()
        mix = build_batch_mixer(self.settings.augment, self.class_count)
        losses, steps = [], len(self.sampler)
        for i, (pixels, y) in enumerate(batches):
            loss = self._everywhere(self._step(pixels, y, mix, (number, i)))
            losses.append(loss)
            if self._diverged(losses):
                self.history.stopped = f"diverged in epoch {number}: the training loss reached {loss:.3g}"
                return math.nan
            self.schedule.step_update((number - 1) * steps + i + 1)
            self._average((number - 1) * steps + i)
            self.progress(TrainingStep(number, i + 1, steps, loss))
        return float(np.mean(losses))

    def _everywhere(self, loss: float) -> float:
        """The mean over the processes that train together, so that all of them decide alike."""
        if self.accelerator.num_processes == 1:
            return loss
        return float(self.accelerator.reduce(torch.tensor(loss, device=self.device), "mean"))

    def _agreed(self, score: FinetuneScore) -> FinetuneScore:
        """That of the first process, so that all of them choose alike."""
        if self.accelerator.num_processes == 1:
            return score
        from accelerate.utils import broadcast_object_list

        agreed: FinetuneScore = broadcast_object_list([score])[0]
        return agreed

    def _diverged(self, losses: list[float]) -> bool:
        """No number, or the last steps are far worse than guessing and than the first step, whose rate was 0."""
        if self.history.begun is None:
            self.history.begun = losses[0]
        recent = losses[-DIVERGENCE_STEPS:]
        worst = DIVERGENCE_FACTOR * max(math.log(self.class_count), self.history.begun)
        return not math.isfinite(losses[-1]) or (len(recent) == DIVERGENCE_STEPS and float(np.mean(recent)) > worst)

    def _step(self, pixels: torch.Tensor, y: torch.Tensor, mix: Any, place: tuple[int, int]) -> float:
        """One step of the optimiser, in as many parts as memory asks for."""
        while True:
            try:
                with fixed_seed(self.settings.seed, *place):
                    return self._parts(pixels.to(self.device), y.to(self.device), mix)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.history.micro == 1:
                    raise FinetuneError(
                        f"not even one image fits into the memory of {self.device}; tune fewer layers or use lora"
                    ) from error
            self.history.micro = max(1, min(self.history.micro, len(pixels)) // 2)

    def _parts(self, pixels: torch.Tensor, y: torch.Tensor, mix: Any) -> float:
        """Gradients summed over the parts of a batch, then one update; the loss."""
        self.optimizer.zero_grad()
        images, shares = mix(self.finetune_model.backbone.normalize(pixels), y)
        total, size = 0.0, self.history.micro
        for begin in range(0, len(images), size):
            part = slice(begin, begin + size)
            loss = self._loss(self.model(images[part]), shares[part]) * (len(shares[part]) / len(images))
            self.accelerator.backward(loss)
            total += float(loss.detach())
        if math.isfinite(total):
            self.accelerator.clip_grad_norm_(list(self.finetune_model.trainable_parameters().values()), MAX_GRAD_NORM)
            self.optimizer.step()
        return total

    def _loss(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Cross-entropy; with class weights, an item counts by its class."""
        losses = nn.functional.cross_entropy(logits, shares, label_smoothing=self.settings.smoothing, reduction="none")
        return (losses * (shares @ self.class_weights)).mean()

    @property
    def class_weights(self) -> torch.Tensor:
        """How much an item of each class counts: 1, or in inverse proportion to the number of the class."""
        if not self.settings.class_weights:
            return torch.ones(self.class_count, device=self.device)
        counts = np.bincount([self.dataset.samples[r].class_index for r in self.train_rows], minlength=self.class_count)
        weights = len(self.train_rows) / (self.class_count * np.maximum(counts, 1))
        return torch.tensor(weights, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the averaged weights towards those of this step."""
        if self.ema_state:
            keep = min(EMA_DECAY, (1 + step) / (10 + step))
            for name, value in self.finetune_model.trainable_state().items():
                self.ema_state[name].lerp_(value, 1 - keep)

    def _judge_candidate(self) -> FinetuneScore:
        """The candidate of this epoch: the weights, or their average."""
        if not self.ema_state:
            return self.validate()
        current = self.finetune_model.copy_trainable_state()
        self.finetune_model.load_trainable_state(self.ema_state)
        score = self.validate()
        self.finetune_model.load_trainable_state(current)
        return score

    def _close(self, epoch: Epoch) -> None:
        """Enter an epoch: best or not, last or not; then the state goes to the disk.

        The old network is no candidate once an epoch is done: a backbone may have met the validation images in its
        own training, and would be chosen for that. The comparison on held-out items judges it.
        """
        h, metric = self.history, self.settings.metric
        h.epochs.append(epoch)
        finite = math.isfinite(epoch.val.loss)
        if finite and (
            self.final_epoch or epoch.number <= 1 or epoch.val.sort_key(metric) > h.epochs[h.best].val.sort_key(metric)
        ):
            h.best = epoch.number
            self.best_state = {
                n: t.to("cpu", copy=True) for n, t in (self.ema_state or self.finetune_model.trainable_state()).items()
            }
        if not finite:
            h.stopped = f"diverged in epoch {epoch.number}: the validation loss is no number"
        elif epoch.number - h.best >= self.settings.patience and epoch.number < self.settings.epochs:
            h.stopped = f"no better figure in {self.settings.patience} epochs"
        h.done = bool(h.stopped) or epoch.number >= (self.final_epoch or self.settings.epochs)
        self._save()
        self.progress(epoch)

    def _finish(self) -> None:
        """A run that ended inside an epoch."""
        self.history.done = True
        self.finetune_model.load_trainable_state(self.best_state)
        self._save()

    def _save(self) -> None:
        """Everything that the next epoch begins with."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        tensors = {f"weights/{n}": t for n, t in self.finetune_model.copy_trainable_state().items()}
        tensors |= {f"average/{n}": t.cpu() for n, t in self.ema_state.items()}
        for i, values in self.base_optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{self.parameter_names[i]}/{k}": v.detach().cpu() for k, v in values.items()}
        facts = {"epoch": self.history.epochs[-1].number, "best": self.history.best, "history": self.history.to_json()}
        resume_state.save(self.folder, facts, tensors, self.best_state)

    def _resumed(self) -> bool:
        """Take up the state of a run that was stopped; False where there is none."""
        saved = resume_state.load(self.folder) if self.folder else None
        if saved is None:
            return False
        parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
        for name, tensor in saved.tensors.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = tensor
        self.finetune_model.load_trainable_state(parts["weights"])
        self.ema_state = {n: t.to(self.device) for n, t in parts["average"].items()}
        self.best_state = saved.best
        self.history = TrainingHistory.from_json(saved.facts["history"])
        own = self.base_optimizer.state_dict()
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            parameter, _, key = name.rpartition("/")
            states.setdefault(self.parameter_names.index(parameter), {})[key] = tensor
        self.base_optimizer.load_state_dict({**own, "state": states})
        if self.history.epochs[-1].number:
            self.schedule.step_update(self.history.epochs[-1].number * len(self.sampler))
        return True
