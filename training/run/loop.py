# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop that trains everything here: adapters, and the paper-doll world's autoencoder, base model and classifiers.

A step is a fixed list of samples (`draws_of_step`), computed in micro-batches on one or several devices; its loss is
the mean over all of them, so their number changes nothing but the rounding. Gradients are added up once a step and not
by DDP: then every process sees the same trouble at the same place, and all of them skip, halve or stop together.

No step that was whole is lost to an error: what goes wrong in one process is kept until all of them agree how to go on
(`_agree`), and there the run ends, saved.
"""

from __future__ import annotations

import gc
import math
import signal
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, NoReturn

import torch
from accelerate import Accelerator

from ...anydressing_core.refusals import refusal
from ..progress import StoppedError
from .config import RunConfig
from .display import Display
from .events import RunLog
from .folder import Keep, RunFolder
from .interrupts import Interrupts
from .needs import GIB, read_table, what_fits
from .noise import draws_of_step
from .rescue import (
    TORN,
    Crash,
    EndedError,
    broken_off,
    crash_of,
    gone_bad,
    in_brief,
    is_out_of_memory,
    learned_nothing,
    not_numbers,
    too_large,
    what_is_kept,
    write_trace,
)
from .share import Batches, Share, Shares
from .state import State
from .task import Outcome, Task
from .together import Together


class Trainer:
    """One run: its folder, its device and where it stands."""

    def __init__(
        self, task: Task, config: RunConfig, run: RunFolder, accelerator: Accelerator, display: Display
    ) -> None:
        self.task, self.config, self.run, self.accelerator, self.display = task, config, run, accelerator, display
        self.state = State(task.module, config.optimizer, accelerator)
        self.shares = Shares(task, config.data, self.state, accelerator)
        self.skipped = 0
        self._together = Together(accelerator)
        self._trouble: Crash | ValueError | None = None
        self._due = False
        self._tried_again = -1

    def train(self, interrupts: Interrupts) -> Outcome:
        """Go on from the newest checkpoint to the last step, or until a signal comes.

        The caller holds the lock of the run folder, in the main process. Raises ValueError for a folder of another run,
        when memory does not suffice, when the loss stays broken and after any error in a step, OSError when a
        checkpoint cannot be written.
        """
        folder = self.run.path if self.accelerator.is_main_process else None
        self._interrupts = interrupts
        with closing(RunLog(folder, self.display, curves=self.config.tensorboard)) as self._log:
            self._resume()
            try:
                return self._train_to_the_end()
            except EndedError as ended:
                reason = ended.reason
            raise reason

    def _train_to_the_end(self) -> Outcome:
        try:
            state, steps = self.state, self.config.steps
            self._log.event(
                "start", step=state.step, samples_a_step=self.shares.samples_a_step, items=len(self.task.data)
            )
            self._log.start(state.step, steps)
            if state.step == 0:
                self._preview()
            stopped = self._agree(bool(self._interrupts))[0]
            while state.step < steps and not stopped:
                stopped = self._train_on()
            return self._finish()
        except EndedError:
            raise
        except Exception as error:  # the others hear of it where they agree next
            self._fail(error)
            with suppress(RuntimeError):  # or they are gone
                self._together.agree(True)
            self._give_up()

    def _finish(self) -> Outcome:
        """Keep what was learned and say how the run ended."""
        state, steps = self.state, self.config.steps
        finished = state.step == steps
        if finished and not state.whole:
            raise self._ended(learned_nothing(steps))
        self._save()
        if finished and state.whole < steps:
            self._log.say(f"The last {steps - state.whole} steps were skipped: what is saved is step {state.whole}.")
        by = None if finished else self._interrupts.received or signal.SIGTERM
        self._log.event("stop", step=state.step, signal=by and by.name)
        self._agree()
        return Outcome(steps if finished else state.whole, by)

    # ---- one step ---------------------------------------------------------------------------------------------------

    def _train_on(self) -> bool:
        """Train with micro-batches of one size. Returns whether a signal ended it; False at the end and after OOM."""
        with self.shares.batches(self.config.seed, self.config.steps, self.config.data.workers) as batches:
            while self.state.step < self.config.steps:
                began = time.perf_counter()
                share = self._backwards(batches)
                oom, broken, stop = self._agree(share.oom, share.broken, bool(self._interrupts))
                if oom:
                    self._make_room(halve=True)
                    return stop
                readings = self._take(share, broken)
                if readings is None:
                    self._make_room(halve=False)
                    return stop
                if readings:
                    self._tell(readings, time.perf_counter() - began)
                elif self.state.bad_in_a_row >= self.config.policies.bad_steps:
                    self._stop_skipping()
                if stop:
                    return True
                self._save_if_due()
                if self.config.preview.every and self.state.step % self.config.preview.every == 0:
                    self._preview()
                    if self._agree(bool(self._interrupts))[0]:
                        return True
        return False

    def _backwards(self, batches: Batches) -> Share:
        """Run this process's share of a step backwards."""
        share = Share()
        try:
            share = self.shares.backwards(batches)
        except Exception as error:
            if is_out_of_memory(error):
                return Share(oom=True)
            self._fail(error)
        self._trouble = self._trouble or share.unreadable
        return share

    def _take(self, share: Share, broken: bool) -> dict[str, float] | None:
        """Take the step, unless the loss or its gradient is not a number: that is found before anything changes.

        Returns its readings, none when it was skipped, None when memory did not suffice and nothing has changed.
        """
        if not broken:
            if share.gradient is not None:
                self._together.add_up(share.gradient)  # in one message
            self._together.add_up(share.readings)
        begun, full, readings = self.state.step, None, dict[str, float]()
        try:
            readings = self._change(share, broken)
        except Exception as error:
            if self.state.torn or not is_out_of_memory(error):
                self._fail(error)
            full = crash_of(error)
        oom, moved = self._agree(full is not None, self.state.step != begun)
        if oom and moved:  # some have taken the step, and cannot go back
            self._trouble = full
            self._give_up()
        return None if oom else readings

    def _change(self, share: Share, broken: bool) -> dict[str, float]:
        if share.gradient is not None and not broken:
            self.state.set_gradients(share.gradient)
        norm = math.nan if broken else self.state.clip()
        if not math.isfinite(norm):
            self._skip("loss" if broken else "gradient")
            return {}
        rate = self.state.take(self.config.steps)
        return dict(zip(share.names, share.readings.tolist(), strict=True)) | {"grad": norm, "rate": rate}

    def _skip(self, what: str) -> None:
        step = self.state.step
        lowered = self.state.skip(scaled=what == "gradient")
        draws = draws_of_step(self.config.seed, step, len(self.task.data), self.shares.samples_a_step)
        names = [self.task.data.name(draw.item) for draw in draws]
        reason = f"{what} is not a number"
        self._log.event("skip", step=step, reason=reason, items=names, scale_lowered=lowered)
        if not lowered:
            self.skipped += 1
            self._log.say(f"Step {step} skipped: the {reason}. Its samples stand in events.jsonl.")
            self._log.note("skipped", self.skipped)

    # ---- what goes wrong --------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        """Keep an error until all processes agree; the first one says why a run ends."""
        if self._trouble is None:
            self._trouble = crash_of(error)

    def _agree(self, *flags: bool) -> list[bool]:
        """Whether any process says so, for each flag: the same answer in all. Ends the run when one cannot go on."""
        if self._log.trouble:
            self._fail(self._log.trouble)
        failed, *answers = self._together.agree(self._trouble is not None, *flags)
        if failed:
            self._give_up()
        return answers

    def _ended(self, reason: Exception) -> EndedError:
        self._log.event("stop", step=self.state.step, reason=str(reason))
        return EndedError(reason)

    def _give_up(self) -> NoReturn:
        """End a run in which something went wrong, with all that it has learned so far."""
        kept, trouble, step = self._rescue(), self._trouble, self.state.step
        if isinstance(trouble, ValueError):  # samples that cannot be read
            raise self._ended(trouble)
        trace = write_trace(self.run.path, step, trouble) if trouble else ""
        raise self._ended(broken_off(step, trouble, kept, trace))

    def _rescue(self) -> str:
        """Save the last whole step, if that can be. Returns what is kept, as a sentence."""
        whole, main, unsaved = self.state.whole, self.accelerator.is_main_process, None
        if main and whole:
            try:
                unsaved = TORN if self.state.torn else self._write_checkpoint()
            except Exception as error:
                unsaved = f"The last whole step, {whole}, could not be saved: {in_brief(error)}"
        failed = unsaved is not None
        with suppress(RuntimeError):
            failed = self._together.agree(failed)[0]
        if failed or not (main or self._together.several):
            unsaved = unsaved or "The main process did not save the last whole step."
        return what_is_kept(whole, unsaved, self._newest() if unsaved else None)

    def _newest(self, before: float = math.inf) -> int | None:
        try:
            return self.run.latest(before)
        except (ValueError, OSError):
            return None

    def _make_room(self, *, halve: bool) -> None:
        """After out of memory: free what can be, then halve a batch, once in a run, or try the step again, once.

        halve: whether smaller batches would need less. Ends the run, saved, when that did not help.
        """
        state = self.state
        state.drop_gradients()
        gc.collect()
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        if halve and 1 < self.shares.micro == self.config.data.batch:
            self.shares.micro = math.ceil(self.shares.micro / 2)
            told = f"going on with {self.shares.micro} samples at once. A step still has {self.shares.samples_a_step}."
        elif self._tried_again != state.step:
            self._tried_again = state.step
            told = f"trying step {state.step} once more."
        else:
            halved = self.shares.micro < self.config.data.batch
            what = f"A batch of {self.shares.micro}" if halve else "What the optimizer keeps"
            raise self._ended(too_large(state.step, what, halved, self._rescue(), self._smaller()))
        self._log.event("out of memory", step=state.step, micro_batch=self.shares.micro)
        self._log.say(f"Out of memory: {told}")

    def _smaller(self) -> str:
        """What to do when nothing else helped."""
        device = self.accelerator.device
        if device.type != "cuda":
            return "lower data.resolution, or end what else uses the memory."
        precision = "fp16" if self.accelerator.mixed_precision == "fp16" else "bf16"
        return what_fits(read_table(), precision, torch.cuda.get_device_properties(device).total_memory / GIB)

    def _stop_skipping(self) -> NoReturn:
        """End a run whose weights no step could be taken from. They are not saved: nothing speaks for them."""
        state = self.state
        good, newest = self._newest(state.whole), self._newest()
        raise self._ended(gone_bad(state.step - 1, state.bad_in_a_row, state.whole, good, newest))

    # ---- what is kept -----------------------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        """Keep the last whole step now and then; while steps are skipped that waits, for its weights may be why."""
        self._due |= self.state.step % self.config.checkpoints.every == 0
        if self._due and self.state.step == self.state.whole:
            self._save()

    def _save(self) -> None:
        """Keep the last whole step. Ends the run, in all processes, when it cannot be kept."""
        self._due, failure = False, None
        if self.accelerator.is_main_process:
            try:
                self._write_checkpoint()
            except (OSError, ValueError) as error:
                failure = error
            except Exception as error:
                self._fail(error)
        if self._agree(failure is not None)[0]:
            raise self._ended(failure or OSError("The main process could not write a checkpoint."))

    def _write_checkpoint(self) -> None:
        step = self.state.whole
        if not self.state.finite:
            raise not_numbers(step, self._newest(step))
        state = {
            **self.state.numbers(),
            "micro_batch": self.shares.micro,
            "halved": self.shares.micro < self.config.data.batch,
            "samples_a_step": self.shares.samples_a_step,
            "data": self.task.data.digest,
        }
        kept = self.config.checkpoints
        self.run.save(step, self.state.tensors(), state, Keep(kept.keep_last, kept.keep_every or None))
        self._log.event("checkpoint", step=step)
        self._log.note("checkpoint", step)

    def _resume(self) -> None:
        newest = self.run.latest()
        if newest is None:
            return
        tensors, state = self.run.load(newest)
        self._refuse_other_data(state)
        self.state.load(tensors, state)
        if state["halved"]:
            self.shares.micro = min(self.shares.micro, state["micro_batch"])
        self._log.say(f"Going on from step {self.state.step}.")
        self._log.note("checkpoint", self.state.step)

    def _refuse_other_data(self, state: Mapping[str, Any]) -> None:
        if state["data"] != self.task.data.digest:
            why = "The manifest, a picture, the resolution or the base model is another than the run began with."
            remedy = "put the data back as it was, or begin a new run in another folder."
            raise refusal("This run", "cannot go on with this data", why, remedy)
        if state["samples_a_step"] != self.shares.samples_a_step:
            why = f"A step had {state['samples_a_step']} samples (batch x accumulate x devices), now {self.shares.samples_a_step}."
            remedy = "choose data.accumulate so that the product is the same."
            raise refusal("This run", "cannot go on with this batch", why, remedy)

    # ---- what is told -----------------------------------------------------------------------------------------------

    def _preview(self) -> None:
        if not (self.config.preview.every and self.accelerator.is_main_process):
            return
        step = self.state.step
        try:
            self._watch("preview", 0, 1)
            with self.state.averaged(), torch.no_grad(), self.accelerator.autocast():
                self.task.preview(step, self._watch)
            self._log.event("preview", step=step)
        except StoppedError:
            self._log.event("preview stopped", step=step)
        except Exception as error:  # a picture is never worth a run
            self._log.event("preview failed", step=step, reason=repr(error))
            self._log.say(f"The preview of step {step} failed: {error}. Training goes on.")
            if self.state.torn:
                self._fail(error)

    def _watch(self, what: str, done: int, total: int) -> None:
        if self._interrupts:
            raise StoppedError(what, done, total)
        if done:
            self.display.work(what, done, total)

    def _tell(self, readings: dict[str, float], seconds: float) -> None:
        readings |= {"samples/s": self.shares.samples_a_step / seconds, "s/step": seconds}
        if self.accelerator.device.type == "cuda":
            readings["memory GiB"] = torch.cuda.max_memory_allocated() / 2**30
        self._log.step(self.state.step, readings)
