# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training step changes: weights, their running average, the optimizer's moments, the scale of fp16's loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .config import Optimizer
from .optimizer_state import optimizer_tensors, set_optimizer_tensors


class State:
    """Where a run stands.

    step: how many steps are over, skipped ones included. whole: after which of them the weights became what they are; a
    skipped step changes none. bad_in_a_row: how many were skipped since. torn: whether the weights in memory are no
    step's, because an error came while they were being changed.
    """

    def __init__(self, module: nn.Module, settings: Optimizer, accelerator: Accelerator) -> None:
        self.step = self.whole = self.bad_in_a_row = 0
        self.torn = False
        self.parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
        self._settings, self._accelerator, self._unscaled = settings, accelerator, False
        plain = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.optimizer: Any = accelerator.prepare(plain)
        keeps = settings.average > 0
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()} if keeps else {}
        self._scaler_when_whole: dict[str, Any] | None = None

    # ---- gradients --------------------------------------------------------------------------------------------------

    def gradients(self) -> list[Tensor]:
        """The gradient of every parameter, zeros where the loss did not reach one."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]

    def set_gradients(self, flat: Tensor) -> None:
        """Replace all gradients by the values of one long vector."""
        gradients = self.gradients()
        for gradient, values in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(values.view_as(gradient))

    def clip(self) -> float:
        """Shorten the gradients as the settings say. Returns their norm before that."""
        self._accelerator.unscale_gradients()
        self._unscaled = True
        return float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._settings.clip or math.inf))

    def drop_gradients(self) -> None:
        """Let the step be computed once more as if it had not been begun."""
        self.optimizer.zero_grad()
        scaler = self._accelerator.scaler
        if scaler is not None and self._unscaled:
            before = scaler.state_dict()
            scaler.update()  # else it refuses to see the gradients of a step twice
            scaler.load_state_dict(before)
        self._unscaled = False

    # ---- steps ------------------------------------------------------------------------------------------------------

    def take(self, steps: int) -> float:
        """Change weights, moments and average by the gradients. steps: of the whole run. Returns the learning rate.

        An error on the way leaves the state `torn`, unless it came before anything was changed.
        """
        rate = self._settings.rate(self.step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        before, self.torn = self._updates(), True
        try:
            self.optimizer.step()
        except Exception:
            self.torn = self._updates() != before
            if not any(before):
                self.optimizer.state.clear()  # moments that were made for a part of the weights
            raise
        self._follow()
        self.step += 1
        self.whole, self.bad_in_a_row = self.step, 0
        self.torn = self._unscaled = False
        return rate

    def skip(self, *, scaled: bool) -> bool:
        """Pass over a step. scaled: its gradient was not finite, which fp16 may mend by a lower scale.

        Returns whether the scale was lowered: that is to be expected now and then, and not counted as bad.
        """
        scaler = self._accelerator.scaler
        if scaler is not None and self.step == self.whole:
            self._scaler_when_whole = scaler.state_dict()
        lowered = scaled and self._lower_scale()
        self._unscaled = False
        self.step += 1
        self.bad_in_a_row += not lowered
        return lowered

    def _updates(self) -> list[float]:
        """How often the optimizer has changed each weight: it counts before it changes anything."""
        return [float(self.optimizer.state.get(each, {}).get("step", 0)) for each in self.parameters.values()]

    def _lower_scale(self) -> bool:
        """Let fp16 scale its loss by less. Returns whether that was to be expected: a scale of 1 is none."""
        scaler = self._accelerator.scaler
        if scaler is None:
            return False
        before = scaler.get_scale()
        scaler.update()
        return 1 < before > scaler.get_scale()

    def _follow(self) -> None:
        """Move the running averages; early ones forget faster, or the start would weigh for ever."""
        keep = min(self._settings.average, (1 + self.step) / (10 + self.step))
        for name, average in self.average.items():
            average.lerp_(self.parameters[name].detach(), 1 - keep)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(math.isfinite(float(each.detach().sum())) for each in self.parameters.values())

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All of the last whole step, by group and name."""
        moments = optimizer_tensors(self.optimizer, self.parameters)
        average = {"average": self.average} if self.average else {}
        return {"model": self.parameters, "optimizer": moments, **average}

    def numbers(self) -> dict[str, Any]:
        """What else a checkpoint of the last whole step keeps."""
        scaler, skipping = self._accelerator.scaler, self.step > self.whole
        scale = self._scaler_when_whole if skipping else scaler and scaler.state_dict()
        return {"step": self.whole, "bad_in_a_row": 0 if skipping else self.bad_in_a_row, "scaler": scale}

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> None:
        """Go back to what `tensors` and `numbers` returned."""
        self._put({name: tensors["model"][name] for name in self.parameters})
        for name, average in self.average.items():
            average.copy_(tensors["average"][name])
        set_optimizer_tensors(self.optimizer, self.parameters, tensors["optimizer"])
        if self._accelerator.scaler is not None and numbers["scaler"] is not None:
            self._accelerator.scaler.load_state_dict(numbers["scaler"])
        self.step = self.whole = numbers["step"]
        self.bad_in_a_row = numbers["bad_in_a_row"]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The module with its averaged weights, if it keeps them, for the time of the block."""
        plain = {name: self.parameters[name].detach().clone() for name in self.average}
        self.torn = True
        self._put(self.average)
        try:
            yield
        finally:
            self._put(plain)
            self.torn = False

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)
