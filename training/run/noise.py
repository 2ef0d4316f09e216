# SPDX-License-Identifier: GPL-3.0-or-later
"""All chance of a run, as a function of (seed, step, sample): a resumed run draws what an unbroken one would have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


def noise_seed(seed: int, step: int, sample: int | str, purpose: str) -> int:
    """A seed for `torch.Generator` that depends on these four values and on nothing else.

    Whatever is drawn at a step (noise, timestep, dropout) gets a generator of its own, so a resumed run needs no
    remembered random state. sample: position in the data set, or its name. The seed is the first 63 bits of
    sha256(JSON [seed, step, sample, purpose]), the same on every machine and version. PyTorch's CPU generator uses
    its lower 32 bits alone: two draws of a long run may coincide, which does no harm.
    """
    text = json.dumps([seed, step, sample, purpose], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Draw:
    """One sample of one step. position: counted through the whole run. item: index into the data."""

    seed: int
    step: int
    position: int
    item: int

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh CPU generator for one purpose of this sample."""
        return torch.Generator().manual_seed(noise_seed(self.seed, self.step, self.position, purpose))

    def uniform(self, purpose: str) -> float:
        """A number in [0, 1)."""
        return float(torch.rand((), generator=self.generator(purpose)))

    def integer(self, below: int, purpose: str) -> int:
        """A number in 0 .. below - 1."""
        return int(torch.randint(below, (), generator=self.generator(purpose)))

    def normal(self, shape: tuple[int, ...], purpose: str) -> Tensor:
        """Standard normal noise."""
        return torch.randn(shape, generator=self.generator(purpose))


def draws_of_step(seed: int, step: int, items: int, size: int) -> list[Draw]:
    """The samples of a step, `size` of them: every item comes once in a pass, and each pass has an order of its own."""
    positions = range(step * size, (step + 1) * size)
    return [Draw(seed, step, at, _order(seed, at // items, items)[at % items]) for at in positions]


def micro_batches(seed: int, steps: range, *, items: int, size: int, part: slice, micro: int) -> Iterator[list[Draw]]:
    """What one process computes at each step: its part of the step's `size` samples, at most `micro` of them at once."""
    for step in steps:
        mine = draws_of_step(seed, step, items, size)[part]
        yield from (mine[first : first + micro] for first in range(0, len(mine), micro))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, items: int) -> list[int]:
    generator = torch.Generator().manual_seed(noise_seed(seed, epoch, 0, "order"))
    return torch.randperm(items, generator=generator).tolist()
