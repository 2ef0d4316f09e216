# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop that trains everything here: adapters, and the paper-doll world's autoencoder, base model and classifiers.

A step is a fixed list of samples (`draws_of_step`), computed in micro-batches on one or several devices; its loss is
the mean over all of them, so their number changes nothing but the rounding. Gradients are added up once a step and not
by DDP: then every process sees the same trouble at the same place, and all of them skip, halve or stop together.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor

from ...anydressing_core.refusals import refusal
from ..progress import StoppedError
from .config import RunConfig
from .display import Display
from .events import RunLog
from .folder import Keep, RunFolder
from .interrupts import Interrupts
from .needs import GIB, read_table, what_fits
from .noise import draws_of_step, micro_batches
from .optimizer_state import optimizer_tensors, set_optimizer_tensors
from .reading import read_batches
from .task import Outcome, Task


@dataclass(frozen=True)
class _Share:
    """What became of a process's share of a step. sums: of its readings. failure: why its samples could not be read."""

    sums: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    oom: bool = False
    broken: bool = False
    failure: ValueError | None = None


class Trainer:
    """One run: its folder, its device and where it stands."""

    MEASURE_EVERY = 50  # steps between two readings of the gradient norms

    def __init__(
        self, task: Task, config: RunConfig, run: RunFolder, accelerator: Accelerator, display: Display
    ) -> None:
        self.task, self.config, self.run, self.accelerator, self.display = task, config, run, accelerator, display
        self.step = 0
        self.micro = config.data.batch
        self.bad_in_a_row = 0
        self.skipped = 0
        self.parameters = {
            name: parameter for name, parameter in task.module.named_parameters() if parameter.requires_grad
        }
        settings = config.optimizer
        plain = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.optimizer: Any = accelerator.prepare(plain)
        keeps = settings.average > 0
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()} if keeps else {}

    @property
    def samples_a_step(self) -> int:
        """The effective batch: over all devices and accumulated batches."""
        return self.config.data.batch * self.config.data.accumulate * self.accelerator.num_processes

    def train(self, interrupts: Interrupts) -> Outcome:
        """Go on from the newest checkpoint to the last step, or until a signal comes.

        The caller holds the lock of the run folder, in the main process. Raises ValueError for a folder of another run,
        when memory does not suffice or when the loss stays broken, OSError when a checkpoint cannot be written.
        """
        folder = self.run.path if self.accelerator.is_main_process else None
        self._interrupts = interrupts
        with closing(RunLog(folder, self.display, curves=self.config.tensorboard)) as self._log:
            self._resume()
            self._log.event("start", step=self.step, samples_a_step=self.samples_a_step, items=len(self.task.data))
            self.display.start(self.step, self.config.steps)
            if self.step == 0:
                self._preview()
            stopped = self._agree(bool(interrupts))[0]
            while self.step < self.config.steps and not stopped:
                stopped = self._train_on()
            self._save()
            by = (interrupts.received or signal.SIGTERM) if self.step < self.config.steps else None
            self._log.event("stop", step=self.step, signal=by and by.name)
            return Outcome(self.step, by)

    # ---- one step ---------------------------------------------------------------------------------------------------

    def _train_on(self) -> bool:
        """Train with micro-batches of one size. Returns whether a signal ended it; False at the end and after OOM."""
        with self._batches() as batches:
            while self.step < self.config.steps:
                began = time.perf_counter()
                part = self._accumulate(islice(batches, self._batches_a_step))
                failed, oom, broken, stop = self._agree(
                    bool(part.failure), part.oom, part.broken, bool(self._interrupts)
                )
                if failed:
                    self._give_up(part.failure)
                if oom:
                    self._halve()
                    return stop
                readings = self._apply(broken, part.sums)
                self.step += 1
                if readings is not None:
                    self._tell(readings, time.perf_counter() - began)
                if stop:
                    return True
                if self.step % self.config.checkpoints.every == 0:
                    self._save()
                if self.config.preview.every and self.step % self.config.preview.every == 0:
                    self._preview()
                    if self._agree(bool(self._interrupts))[0]:
                        return True
        return False

    def _accumulate(self, batches: Iterator[tuple[int, Any]]) -> _Share:
        """Run this process's part of a step backwards."""
        self.optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        broken, measure = False, self.step % self.MEASURE_EVERY == 0
        for samples, batch in batches:
            if isinstance(batch, ValueError):
                return _Share(failure=batch)
            if broken:
                continue  # the rest of the step is passed over, not left for the next one
            try:
                with self.accelerator.autocast():
                    terms = self.task.losses(send_to_device(batch, self.accelerator.device), measure=measure)
                share = samples / self.samples_a_step
                broken = not bool(torch.isfinite(terms.total))
                if not broken:
                    self.accelerator.backward(terms.total * share)
                for name, value in {"loss": terms.total, **terms.parts}.items():
                    value = torch.as_tensor(value, dtype=torch.float32, device=self.accelerator.device).detach()
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value * share
            except torch.OutOfMemoryError:
                return _Share(oom=True)
        return _Share(sums, broken=broken)

    def _give_up(self, failure: ValueError | None) -> NoReturn:
        """End a run whose samples cannot be read any more, with all that it has learned so far."""
        if self.step:
            self._save()
        self._log.event("stop", step=self.step, reason=str(failure))
        why, remedy = "It says which and why.", "mend the data, then go on with --resume."
        raise failure or refusal("Another process", "could not read its samples", why, remedy)

    def _apply(self, broken: bool, sums: dict[str, Tensor]) -> dict[str, float] | None:
        """Take the step, unless the loss or its gradient is not a number: that is found before anything changes."""
        norm = math.nan if broken else self._clip_gradients()
        if not math.isfinite(norm):
            self._skip("loss" if broken else "gradient")
            return None
        self.bad_in_a_row = 0
        rate = self.config.optimizer.rate(self.step, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._follow()
        means = self._sum(torch.stack(list(sums.values()))).tolist()
        return dict(zip(sums, means, strict=True)) | {"grad": norm, "rate": rate}

    def _clip_gradients(self) -> float:
        """Add up the gradients of all processes and clip them. Returns their norm before that."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.accelerator.num_processes > 1:
            gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
            flat = self._sum(torch.cat([gradient.flatten() for gradient in gradients]))  # in one message
            for gradient, total in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
                gradient.copy_(total.view_as(gradient))
        self.accelerator.unscale_gradients()
        most = self.config.optimizer.clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), most))

    def _skip(self, what: str) -> None:
        lowered = what == "gradient" and self._lower_scale()
        draws = draws_of_step(self.config.seed, self.step, len(self.task.data), self.samples_a_step)
        names = [self.task.data.name(draw.item) for draw in draws]
        reason = f"{what} is not a number"
        self._log.event("skip", step=self.step, reason=reason, items=names, scale_lowered=lowered)
        if lowered:
            return
        self.skipped += 1
        self.bad_in_a_row += 1
        self.display.say(f"Step {self.step} skipped: the {reason}. Its samples stand in events.jsonl.")
        self.display.note("skipped", self.skipped)
        if self.bad_in_a_row >= self.config.policies.bad_steps:
            why = f"{self.bad_in_a_row} steps in a row had no finite {what}; no weight was changed by them."
            good = self.run.latest()
            remedy = (
                "look at the samples that events.jsonl names. Then begin a new run with a lower "
                'optimizer.learning_rate or memory.precision = "fp32", or resume this one'
                + (
                    f" from its last good checkpoint, step {good}."
                    if good is not None
                    else "; it has no checkpoint yet."
                )
            )
            raise refusal("Training", f"stopped at step {self.step}", why, remedy)

    def _lower_scale(self) -> bool:
        """Let fp16 scale its loss by less. Returns whether that was to be expected: a scale of 1 is none."""
        scaler = self.accelerator.scaler
        if scaler is None:
            return False
        before = scaler.get_scale()
        scaler.update()
        return 1 < before > scaler.get_scale()

    def _follow(self) -> None:
        """Move the running averages; early ones forget faster, or the start would weigh for ever."""
        keep = min(self.config.optimizer.average, (1 + self.step) / (10 + self.step))
        for name, average in self.average.items():
            average.lerp_(self.parameters[name].detach(), 1 - keep)

    def _halve(self) -> None:
        self.optimizer.zero_grad()
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.micro == 1 or self.micro < self.config.data.batch:
            halved = "" if self.micro == self.config.data.batch else ", and it was halved before"
            why = f"A batch of {self.micro} does not fit{halved}."
            raise refusal("Training", f"ran out of memory at step {self.step}", why, self._smaller())
        self.micro = math.ceil(self.micro / 2)
        self._log.event("out of memory", step=self.step, micro_batch=self.micro)
        self.display.say(
            f"Out of memory: going on with {self.micro} samples at once. A step still has {self.samples_a_step}."
        )

    def _smaller(self) -> str:
        """What to do when halving did not help."""
        device = self.accelerator.device
        if device.type != "cuda":
            return "lower data.resolution, or end what else uses the memory."
        precision = "fp16" if self.accelerator.mixed_precision == "fp16" else "bf16"
        return what_fits(read_table(), precision, torch.cuda.get_device_properties(device).total_memory / GIB)

    # ---- samples ----------------------------------------------------------------------------------------------------

    @property
    def _samples_here(self) -> int:
        """This process's part of a step."""
        return self.config.data.batch * self.config.data.accumulate

    @property
    def _batches_a_step(self) -> int:
        return math.ceil(self._samples_here / self.micro)

    def _batches(self) -> AbstractContextManager[Iterator[tuple[int, Any]]]:
        """This process's micro-batches from now on, each with its number of samples."""
        first = self.accelerator.process_index * self._samples_here
        plan = micro_batches(
            self.config.seed,
            range(self.step, self.config.steps),
            items=len(self.task.data),
            size=self.samples_a_step,
            part=slice(first, first + self._samples_here),
            micro=self.micro,
        )
        return read_batches(self.task.data, plan, self.config.data.workers)

    # ---- several processes ------------------------------------------------------------------------------------------

    def _agree(self, *flags: bool) -> list[bool]:
        """Whether any process says so, for each flag: the same answer in all of them."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        mine = torch.tensor([float(flag) for flag in flags], device=self.accelerator.device)
        return [value > 0 for value in self._sum(mine).tolist()]

    def _sum(self, mine: Tensor) -> Tensor:
        total = self.accelerator.reduce(mine, "sum")
        assert isinstance(total, Tensor)
        return total

    # ---- what is kept -----------------------------------------------------------------------------------------------

    def _save(self) -> None:
        failure: OSError | None = None
        if self.accelerator.is_main_process:
            try:
                self._write_checkpoint()
            except OSError as error:
                failure = error
        if self._agree(failure is not None)[0]:
            raise failure or OSError("The main process could not write a checkpoint.")

    def _write_checkpoint(self) -> None:
        tensors = {"model": self.parameters, "optimizer": optimizer_tensors(self.optimizer, self.parameters)}
        if self.average:
            tensors["average"] = self.average
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "micro_batch": self.micro,
            "halved": self.micro < self.config.data.batch,
            "bad_in_a_row": self.bad_in_a_row,
            "samples_a_step": self.samples_a_step,
            "data": self.task.data.digest,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        kept = self.config.checkpoints
        self.run.save(self.step, tensors, state, Keep(kept.keep_last, kept.keep_every or None))
        self._log.event("checkpoint", step=self.step)
        self.display.note("checkpoint", self.step)

    def _resume(self) -> None:
        newest = self.run.latest()
        if newest is None:
            return
        tensors, state = self.run.load(newest)
        self._refuse_other_data(state)
        self._put({name: tensors["model"][name] for name in self.parameters})
        for name, average in self.average.items():
            average.copy_(tensors["average"][name])
        set_optimizer_tensors(self.optimizer, self.parameters, tensors["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.bad_in_a_row = state["step"], state["bad_in_a_row"]
        if state["halved"]:
            self.micro = min(self.micro, state["micro_batch"])
        self.display.say(f"Going on from step {self.step}.")
        self.display.note("checkpoint", self.step)

    def _refuse_other_data(self, state: Mapping[str, Any]) -> None:
        if state["data"] != self.task.data.digest:
            why = "The manifest, a picture, the resolution or the base model is another than the run began with."
            remedy = "put the data back as it was, or begin a new run in another folder."
            raise refusal("This run", "cannot go on with this data", why, remedy)
        if state["samples_a_step"] != self.samples_a_step:
            why = f"A step had {state['samples_a_step']} samples (batch x accumulate x devices), now {self.samples_a_step}."
            remedy = "choose data.accumulate so that the product is the same."
            raise refusal("This run", "cannot go on with this batch", why, remedy)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The module with its averaged weights, if it keeps them, for the time of the block."""
        plain = {name: self.parameters[name].detach().clone() for name in self.average}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(plain)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)

    # ---- what is told -----------------------------------------------------------------------------------------------

    def _preview(self) -> None:
        if self.config.preview.every and self.accelerator.is_main_process:
            try:
                self._watch("preview", 0, 1)
                with self.averaged(), torch.no_grad(), self.accelerator.autocast():
                    self.task.preview(self.step, self._watch)
                self._log.event("preview", step=self.step)
            except StoppedError:
                self._log.event("preview stopped", step=self.step)
            except Exception as error:  # a picture is never worth a run
                self._log.event("preview failed", step=self.step, reason=repr(error))
                self.display.say(f"The preview of step {self.step} failed: {error}. Training goes on.")
        self.accelerator.wait_for_everyone()

    def _watch(self, what: str, done: int, total: int) -> None:
        if self._interrupts:
            raise StoppedError(what, done, total)
        if done:
            self.display.work(what, done, total)

    def _tell(self, readings: dict[str, float], seconds: float) -> None:
        readings |= {"samples/s": self.samples_a_step / seconds, "s/step": seconds}
        if self.accelerator.device.type == "cuda":
            readings["memory GiB"] = torch.cuda.max_memory_allocated() / 2**30
        self._log.step(self.step, readings)
