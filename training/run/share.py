# SPDX-License-Identifier: GPL-3.0-or-later
"""A process's share of a step: its samples, read in micro-batches and run backwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor

from .config import Data
from .noise import micro_batches
from .reading import read_batches
from .state import State
from .task import Task

Batches = Iterator[tuple[int, Any]]
"""Micro-batches, each with its number of samples."""


@dataclass(frozen=True)
class Share:
    """What became of a share. unreadable: why its samples could not be read.

    readings: summed, by `names`. gradient: one vector, where several processes add theirs up. oom: memory did not
    suffice. broken: the loss is not a number.
    """

    names: tuple[str, ...] = ()
    readings: Tensor = field(default_factory=lambda: torch.zeros(0))
    gradient: Tensor | None = None
    oom: bool = False
    broken: bool = False
    unreadable: ValueError | None = None


class Shares:
    """This process's share of each step. micro: how many samples it computes at once."""

    MEASURE_EVERY = 50  # steps between two readings of the gradient norms

    def __init__(self, task: Task, data: Data, state: State, accelerator: Accelerator) -> None:
        self.micro = data.batch
        self._task, self._state, self._accelerator = task, state, accelerator
        self._samples_here = data.batch * data.accumulate

    @property
    def samples_a_step(self) -> int:
        """The effective batch: over all devices and accumulated batches."""
        return self._samples_here * self._accelerator.num_processes

    def batches(self, seed: int, steps: int, workers: int) -> AbstractContextManager[Batches]:
        """The micro-batches from where the state is to the last of so many steps."""
        first = self._accelerator.process_index * self._samples_here
        plan = micro_batches(
            seed,
            range(self._state.step, steps),
            items=len(self._task.data),
            size=self.samples_a_step,
            part=slice(first, first + self._samples_here),
            micro=self.micro,
        )
        return read_batches(self._task.data, plan, workers)

    def backwards(self, batches: Batches) -> Share:
        """Run the next share backwards."""
        self._state.optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        broken, device = False, self._accelerator.device
        for samples, batch in islice(batches, math.ceil(self._samples_here / self.micro)):
            if isinstance(batch, ValueError):
                return Share(unreadable=batch)
            if broken:
                continue  # the rest of the step is passed over, not left for the next one
            with self._accelerator.autocast():
                measure = self._state.step % self.MEASURE_EVERY == 0
                terms = self._task.losses(send_to_device(batch, device), measure=measure)
            share = samples / self.samples_a_step
            broken = not bool(torch.isfinite(terms.total))
            if not broken:
                self._accelerator.backward(terms.total * share)
            for name, value in {"loss": terms.total, **terms.parts}.items():
                value = torch.as_tensor(value, dtype=torch.float32, device=device).detach()
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * share
        return Share(broken=True) if broken else self._whole(sums)

    def _whole(self, sums: dict[str, Tensor]) -> Share:
        gradients, several = self._state.gradients(), self._accelerator.num_processes > 1
        flat = torch.cat([gradient.flatten() for gradient in gradients]) if several else None
        if several and self._accelerator.device.type == "cuda":
            torch.cuda.synchronize()  # what went wrong on the device is known before the others wait for its gradients
        return Share(tuple(sums), torch.stack(list(sums.values())), flat)
