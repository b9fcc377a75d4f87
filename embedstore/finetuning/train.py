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

from embedstore.backbones.base import out_of_memory
from embedstore.classify import metrics
from embedstore.errors import BadTuning
from embedstore.finetuning import resume_state
from embedstore.finetuning.accelerate_engine import seeded
from embedstore.finetuning.augment import mixer
from embedstore.finetuning.dataset import Order, Pictures, loader
from embedstore.finetuning.history import Epoch, History, Score, Step
from embedstore.finetuning.model import Tuning
from embedstore.finetuning.settings import Average

if TYPE_CHECKING:
    from accelerate import Accelerator

CLIP = 1.0  # largest norm of a gradient (as timm's recipes for fine-tuning)
EMA = 0.99  # of the averaged weights, less in the first steps: min(EMA, (1 + t) / (10 + t))
DIVERGED = 3.0  # times the loss of guessing: from there nothing comes back at a falling rate
RECENT = 5  # steps that must agree on it
UNJUDGED = Score(0.0, 0.0, 0.0)
HELD_BYTES = 1 << 29  # of validation pixels kept in memory


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
        tuning: Tuning,
        pictures: Pictures,
        rows: tuple[NDArray[np.int64], NDArray[np.int64]],
        engine: Accelerator,
        folder: Path | None = None,
        tell: Callable[[Step | Epoch], None] = lambda _: None,
        *,
        until: int | None = None,
    ) -> None:
        from timm.scheduler.cosine_lr import CosineLRScheduler

        self.tuning, self.settings, self.pictures = tuning, tuning.settings, pictures
        self.rows, self.val = rows
        self.engine, self.folder, self.tell, self.until = engine, folder, tell, until
        self.device = torch.device(tuning.backbone.device)
        self.head = tuning.model.head.to(self.device)
        self.names = [n for g in tuning.groups() for n in g["names"]]
        self.raw = torch.optim.AdamW(tuning.groups())
        self.order = Order(
            self.rows, self.settings.batch, self.settings.seed, rank=engine.process_index, world=engine.num_processes
        )
        total = max(1, len(self.order) * self.settings.epochs)
        warm = min(total - 1, round(self.settings.warmup * total))
        self.schedule = CosineLRScheduler(
            self.raw, max(2, total - warm), warmup_t=warm, warmup_prefix=True, t_in_epochs=False
        )
        self.model, self.optimizer = engine.prepare(tuning.model, self.raw, device_placement=[False, False])
        self.classes = len(self.head.bias)
        self.history = History(micro=self.settings.micro or self.settings.batch)
        self.best = tuning.learned()
        ema = self.settings.average is Average.EMA
        self.averaged = {n: t.clone() for n, t in tuning.values().items()} if ema else {}
        self._pixels: list[torch.Tensor] | None = None

    def run(self) -> History:
        """Train to the end, from where a killed run stopped.

        Raises:
            StoreFailed: the state cannot be written. BadTuning: not even one image fits into memory.
        """
        resumed = self._resumed()
        self.engine.wait_for_everyone()  # the first process writes over what the others have just read
        if not resumed:
            self._close(Epoch(0, None, 0.0, self.judge(), 0.0))
        batches = loader(self.pictures, self.order, self.settings.workers)
        while not self.history.done:
            begin = time.perf_counter()
            self.order.epoch = number = self.history.epochs[-1].number + 1
            with seeded(self.settings.seed, number):
                loss = self._epoch(batches, number)
            if self.history.stopped:
                self._finish()
                break
            val = self._judge_candidate()
            self._close(Epoch(number, loss, self.raw.param_groups[0]["lr"], val, time.perf_counter() - begin))
        return self.history

    def judge(self) -> Score:
        """The weights as they are, on the validation rows, through the embedding's own pixels."""
        if self.until is not None:
            return UNJUDGED
        return self._agreed(self._judged())

    def _judged(self) -> Score:
        """By this process alone."""
        logits = self.logits(self.val)
        y = np.array([self.pictures.samples[r].y for r in self.val])
        proba = torch.softmax(torch.from_numpy(logits), 1).numpy()
        if not np.isfinite(proba).all():
            return Score(0.0, 0.0, math.inf)
        return Score(*(metrics.value(m, y, proba) for m in ("accuracy", "mean_per_class_recall", "log_loss")))

    def logits(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the network says of some rows: float32 ``(n, K)``."""
        self.tuning.model.eval()
        out = []
        with torch.inference_mode(), self.engine.autocast():
            for pixels in self._prepared(rows):
                out.append(self.tuning.model(self.tuning.backbone.normalised(pixels.to(self.device))).float().cpu())
        return torch.cat(out).numpy() if out else np.empty((0, self.classes), np.float32)

    def _prepared(self, rows: NDArray[np.int64]) -> Iterator[torch.Tensor]:
        """Evaluation pixels, batch by batch; those of validation are kept where they fit."""
        if rows is self.val and self._pixels is not None:
            yield from self._pixels
            return
        size = min(self.settings.batch, self.tuning.backbone.batch_size)
        kept: list[torch.Tensor] | None = [] if rows is self.val else None
        total = 0
        for begin in range(0, len(rows), size):
            pixels = torch.from_numpy(self.pictures.plain(rows[begin : begin + size].tolist()))
            total += pixels.numel()
            if kept is not None:
                kept = [*kept, pixels] if total <= HELD_BYTES else None
            yield pixels
        if kept is not None:
            self._pixels = kept

    def _epoch(self, batches: Any, number: int) -> float:
        """One pass; the mean loss. Sets ``stopped`` when the loss has diverged."""
        self.tuning.train()
        mix = mixer(self.settings.augment, self.classes)
        losses, steps = [], len(self.order)
        for i, (pixels, y) in enumerate(batches):
            loss = self._everywhere(self._step(pixels, y, mix, (number, i)))
            losses.append(loss)
            if self._diverged(losses):
                self.history.stopped = f"diverged in epoch {number}: the training loss reached {loss:.3g}"
                return math.nan
            self.schedule.step_update((number - 1) * steps + i + 1)
            self._average((number - 1) * steps + i)
            self.tell(Step(number, i + 1, steps, loss))
        return float(np.mean(losses))

    def _everywhere(self, loss: float) -> float:
        """The mean over the processes that train together, so that all of them decide alike."""
        if self.engine.num_processes == 1:
            return loss
        return float(self.engine.reduce(torch.tensor(loss, device=self.device), "mean"))

    def _agreed(self, score: Score) -> Score:
        """That of the first process, so that all of them choose alike."""
        if self.engine.num_processes == 1:
            return score
        from accelerate.utils import broadcast_object_list

        agreed: Score = broadcast_object_list([score])[0]
        return agreed

    def _diverged(self, losses: list[float]) -> bool:
        """No number, or the last steps are far worse than guessing and than the first step, whose rate was 0."""
        if self.history.begun is None:
            self.history.begun = losses[0]
        recent = losses[-RECENT:]
        worst = DIVERGED * max(math.log(self.classes), self.history.begun)
        return not math.isfinite(losses[-1]) or (len(recent) == RECENT and float(np.mean(recent)) > worst)

    def _step(self, pixels: torch.Tensor, y: torch.Tensor, mix: Any, place: tuple[int, int]) -> float:
        """One step of the optimiser, in as many parts as memory asks for."""
        while True:
            try:
                with seeded(self.settings.seed, *place):
                    return self._parts(pixels.to(self.device), y.to(self.device), mix)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.history.micro == 1:
                    raise BadTuning(
                        f"not even one image fits into the memory of {self.device}; tune fewer layers or use lora"
                    ) from error
            self.history.micro = max(1, min(self.history.micro, len(pixels)) // 2)

    def _parts(self, pixels: torch.Tensor, y: torch.Tensor, mix: Any) -> float:
        """Gradients summed over the parts of a batch, then one update; the loss."""
        self.optimizer.zero_grad()
        images, shares = mix(self.tuning.backbone.normalised(pixels), y)
        total, size = 0.0, self.history.micro
        for begin in range(0, len(images), size):
            part = slice(begin, begin + size)
            loss = self._loss(self.model(images[part]), shares[part]) * (len(shares[part]) / len(images))
            self.engine.backward(loss)
            total += float(loss.detach())
        if math.isfinite(total):
            self.engine.clip_grad_norm_(list(self.tuning.trained().values()), CLIP)
            self.optimizer.step()
        return total

    def _loss(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Cross-entropy; with class weights, an item counts by its class."""
        losses = nn.functional.cross_entropy(logits, shares, label_smoothing=self.settings.smoothing, reduction="none")
        return (losses * (shares @ self.weights)).mean()

    @property
    def weights(self) -> torch.Tensor:
        """How much an item of each class counts: 1, or in inverse proportion to the number of the class."""
        if not self.settings.class_weights:
            return torch.ones(self.classes, device=self.device)
        counts = np.bincount([self.pictures.samples[r].y for r in self.rows], minlength=self.classes)
        weights = len(self.rows) / (self.classes * np.maximum(counts, 1))
        return torch.tensor(weights, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the averaged weights towards those of this step."""
        if self.averaged:
            keep = min(EMA, (1 + step) / (10 + step))
            for name, value in self.tuning.values().items():
                self.averaged[name].lerp_(value, 1 - keep)

    def _judge_candidate(self) -> Score:
        """The candidate of this epoch: the weights, or their average."""
        if not self.averaged:
            return self.judge()
        current = self.tuning.learned()
        self.tuning.put(self.averaged)
        score = self.judge()
        self.tuning.put(current)
        return score

    def _close(self, epoch: Epoch) -> None:
        """Enter an epoch: best or not, last or not; then the state goes to the disk.

        The old network is no candidate once an epoch is done: a backbone may have met the validation images in its
        own training, and would be chosen for that. The comparison on held-out items judges it.
        """
        h, metric = self.history, self.settings.metric
        h.epochs.append(epoch)
        finite = math.isfinite(epoch.val.loss)
        if finite and (self.until or epoch.number <= 1 or epoch.val.key(metric) > h.epochs[h.best].val.key(metric)):
            h.best = epoch.number
            self.best = {n: t.to("cpu", copy=True) for n, t in (self.averaged or self.tuning.values()).items()}
        if not finite:
            h.stopped = f"diverged in epoch {epoch.number}: the validation loss is no number"
        elif epoch.number - h.best >= self.settings.patience and epoch.number < self.settings.epochs:
            h.stopped = f"no better figure in {self.settings.patience} epochs"
        h.done = bool(h.stopped) or epoch.number >= (self.until or self.settings.epochs)
        self._save()
        self.tell(epoch)

    def _finish(self) -> None:
        """A run that ended inside an epoch."""
        self.history.done = True
        self.tuning.put(self.best)
        self._save()

    def _save(self) -> None:
        """Everything that the next epoch begins with."""
        if self.folder is None or not self.engine.is_main_process:
            return
        tensors = {f"weights/{n}": t for n, t in self.tuning.learned().items()}
        tensors |= {f"average/{n}": t.cpu() for n, t in self.averaged.items()}
        for i, values in self.raw.state_dict()["state"].items():
            tensors |= {f"optimizer/{self.names[i]}/{k}": v.detach().cpu() for k, v in values.items()}
        facts = {"epoch": self.history.epochs[-1].number, "best": self.history.best, "history": self.history.to_json()}
        resume_state.save(self.folder, facts, tensors, self.best)

    def _resumed(self) -> bool:
        """Take up the state of a run that was stopped; False where there is none."""
        saved = resume_state.load(self.folder) if self.folder else None
        if saved is None:
            return False
        parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
        for name, tensor in saved.tensors.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = tensor
        self.tuning.put(parts["weights"])
        self.averaged = {n: t.to(self.device) for n, t in parts["average"].items()}
        self.best = saved.best
        self.history = History.from_json(saved.facts["history"])
        own = self.raw.state_dict()
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            parameter, _, key = name.rpartition("/")
            states.setdefault(self.names.index(parameter), {})[key] = tensor
        self.raw.load_state_dict({**own, "state": states})
        if self.history.epochs[-1].number:
            self.schedule.step_update(self.history.epochs[-1].number * len(self.order))
        return True
