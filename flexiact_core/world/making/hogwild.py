"""Training by several one-thread processes that share one set of weights.

On a CPU this is several times faster than one process with several threads. Every
worker computes on its own copy, in the number format that this machine is faster in, and
writes its AdamW steps straight into the shared float32 weights (Niu et al. 2011, Hogwild).
On a GPU one worker does it all.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch

log = logging.getLogger(__name__)


class Task(Protocol):
    """What is trained; must be picklable, since every worker gets its own."""

    def make_module(self) -> torch.nn.Module:
        """The module to train, fresh."""
        ...

    def prepare(self, device: str) -> None:
        """Loads what `loss` needs. Called once per worker."""
        ...

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> torch.Tensor:
        """A scalar loss of one batch; progress goes from 0 to 1 over the training."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    steps: per worker. minutes: a limit on wall time; the schedule is drawn in to fit it.
    flat: share of the training at the full learning rate, before it falls as a cosine.
    """

    steps: int
    learning_rate: float
    minutes: float | None = None
    warmup_steps: int = 100
    flat: float = 0.25
    ema_decay: float = 0.996
    weight_decay: float = 1e-4
    beta2: float = 0.99
    clip_norm: float = 1.0
    workers: int = 2
    device: str = "cpu"
    save_every_s: float = 90.0
    nice: int = 0


def plan_of(chosen: argparse.Namespace, **schedule: float | None) -> Plan:
    """The Plan of a stage whose settings the command line gives: workers, device and nice are the same for all."""
    return Plan(**schedule, workers=chosen.workers, device=chosen.device, nice=chosen.nice)


@cache
def faster_format(device: str = "cpu") -> torch.dtype:
    """bfloat16 or float32, whichever multiplies and convolves faster on a device; timed once, for about a second.

    Processors without instructions for bfloat16 are over ten times slower in it.
    """
    return min((torch.float32, torch.bfloat16), key=lambda dtype: _seconds_of(dtype, device))


def _seconds_of(dtype: torch.dtype, device: str) -> float:
    left, right = torch.randn(2, 512, 512, device=device, dtype=dtype)
    pixels = torch.randn(1, 32, 5, 32, 32, device=device, dtype=dtype)
    kernel = torch.randn(32, 32, 3, 3, 3, device=device, dtype=dtype)

    def compute() -> float:
        return (left @ right).sum().item() + torch.nn.functional.conv3d(pixels, kernel).sum().item()

    def once() -> float:
        started = time.perf_counter()
        compute()
        return time.perf_counter() - started

    # The best of many, since other programs may be at work, too; the first is slower.
    return min(once() for _ in range(30))


def run(
    task: Task, plan: Plan, checkpoint: Path, start: dict[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The averaged weights (EMA) after training, float32 on the CPU; resumes from `checkpoint`.

    A finished checkpoint is returned at once. start: weights to begin with where there is no checkpoint yet,
    instead of fresh ones.
    """
    state = _load(checkpoint)
    if state is not None and state["progress"] >= 1.0:
        return state["ema"]
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    master = task.make_module().float()
    if state is not None:
        master.load_state_dict(state["weights"])
        log.info("resuming %s at step %d", checkpoint.name, state["step"])
    elif start is not None:
        master.load_state_dict(start)
    workers = plan.workers if plan.device == "cpu" else 1
    if workers == 1:
        _work(0, task, plan, checkpoint, master)
    else:
        # Without this, a worker inherits a thread pool as wide as the machine.
        os.environ["OMP_NUM_THREADS"] = "1"
        master.share_memory()
        torch.multiprocessing.spawn(_work, args=(task, plan, checkpoint, master), nprocs=workers)
    return _load(checkpoint)["ema"]


def _load(checkpoint: Path) -> dict | None:
    if not checkpoint.exists():
        return None
    return torch.load(checkpoint, map_location="cpu", weights_only=True)


def _rate(plan: Plan, step: int, progress: float) -> float:
    warm = min(1.0, (step + 1) / plan.warmup_steps)
    fall = max(0.0, progress - plan.flat) / (1.0 - plan.flat)
    return plan.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fall))))


def _work(rank: int, task: Task, plan: Plan, checkpoint: Path, master: torch.nn.Module) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1 if plan.device == "cpu" else 4)
    if plan.nice:
        os.nice(plan.nice)
    task.prepare(plan.device)
    _Worker(rank, task, plan, checkpoint, master).train()


class _Worker:
    """One process: its copy of the weights, its optimizer, and, in the first one, the average and the checkpoint."""

    def __init__(self, rank: int, task: Task, plan: Plan, checkpoint: Path, master: torch.nn.Module):
        self.rank, self.task, self.plan, self.checkpoint, self.master = rank, task, plan, checkpoint, master
        if plan.device != "cpu":
            master.to(plan.device)
        self.replica = task.make_module().to(plan.device, faster_format(plan.device))
        self.weights, self.copies = list(master.parameters()), list(self.replica.parameters())
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=plan.learning_rate, betas=(0.9, plan.beta2), weight_decay=plan.weight_decay, fused=True
        )
        self.step, self.elapsed_before = 0, 0.0
        self.ema = [w.detach().clone() for w in self.weights] if rank == 0 else []
        state = _load(checkpoint)
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.elapsed_before = state["step"], state["elapsed_s"]
            if rank == 0:
                self.ema = [state["ema"][name].to(plan.device) for name, _ in master.named_parameters()]
        self.generator = torch.Generator().manual_seed(1000 * self.step + rank)
        self.mean_loss: float | None = None

    def train(self) -> None:
        """Takes steps until the plan is done. Raises FloatingPointError if the loss is no longer a number."""
        started = saved = told = time.monotonic()
        while True:
            now = time.monotonic()
            elapsed = self.elapsed_before + now - started
            progress = self.step / self.plan.steps
            if self.plan.minutes is not None:
                progress = max(progress, elapsed / (60.0 * self.plan.minutes))
            done = progress >= 1.0
            if self.rank == 0 and (done or now - saved > self.plan.save_every_s):
                self._save(elapsed, progress)
                saved = now
            if done:
                return
            self._take_step(progress)
            if now - told > 20.0:
                log.info(
                    "%s worker %d step %d (%.0f%%) loss %.4f %.2f s/step",
                    self.checkpoint.stem, self.rank, self.step, 100 * progress, self.mean_loss,
                    elapsed / self.step,
                )  # fmt: skip
                told = now

    def _take_step(self, progress: float) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.copies, self.weights)
        loss = self.task.loss(self.replica, self.generator, progress)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{self.checkpoint.stem}: loss {loss.item()} at step {self.step}; lower the learning rate."
            )
        loss.backward()
        for weight, copy in zip(self.weights, self.copies, strict=True):
            weight.grad = None if copy.grad is None else copy.grad.float()
            copy.grad = None
        torch.nn.utils.clip_grad_norm_(self.weights, self.plan.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = _rate(self.plan, self.step, progress)
        self.optimizer.step()
        if self.rank == 0:
            decay = min(self.plan.ema_decay, (self.step + 1) / (self.step + 20))
            torch._foreach_lerp_(self.ema, [w.detach() for w in self.weights], 1.0 - decay)
        self.step += 1
        self.mean_loss = loss.item() if self.mean_loss is None else 0.98 * self.mean_loss + 0.02 * loss.item()

    def _save(self, elapsed: float, progress: float) -> None:
        weights = {name: value.detach().cpu() for name, value in self.master.state_dict().items()}
        averaged = dict(weights)
        averaged |= {name: value.cpu() for (name, _), value in zip(self.master.named_parameters(), self.ema)}
        state = {
            "weights": weights,
            "ema": averaged,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": elapsed,
            "progress": min(1.0, progress),
        }
        # A kill in the middle of writing must not cost the training.
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)
