# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run that met an error ends: what it was, what is saved, what to do, and the traceback in a file."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size

from ...anydressing_core.atomic_write import write_synced
from ...anydressing_core.refusals import reason_of, refusal

TORN = "The error came while the weights were being changed, so half of a step is in memory and was not saved."

ANEW = 'begin a new run with a lower optimizer.learning_rate or memory.precision = "fp32"'


@dataclass(frozen=True)
class Crash:
    """An error that nobody foresaw. what: its class and first line. trace: where it came from."""

    what: str
    trace: str


class EndedError(Exception):
    """A run has ended, in all its processes, and what could be saved is. reason: what the caller is told."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def crash_of(error: Exception) -> Crash:
    """What is kept of an error; the tensors that its frames hold are let go, since saving may need their memory."""
    trace = "".join(traceback.format_exception(error))
    traceback.clear_frames(error.__traceback__)
    return Crash(f"{type(error).__name__}: {_first_line(error)}", trace)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice, on the device or beside it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)


def in_brief(error: Exception) -> str:
    """An error in one line, without what to do."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("What to do: ")]
    return _shortened(" ".join(lines), 300) or type(error).__name__


def what_is_kept(whole: int, unsaved: str | None, newest: int | None) -> str:
    """What a person needs to know of her checkpoints. unsaved: why step `whole` is not among them, None when it is."""
    if unsaved is None:
        return f"All steps before it are saved, to step {whole}." if whole else "No step had been learned yet."
    good = "there is none" if newest is None else f"it is step {newest}"
    return f"{unsaved} The last good checkpoint: {good}."


def write_trace(folder: Path, step: int, crash: Crash) -> str:
    """Write a traceback into the run's folder, beside older ones. Returns where it stands, as a sentence."""
    for count in range(1, 1000):
        path = folder / (f"crash-{step}.txt" if count == 1 else f"crash-{step}-{count}.txt")
        try:
            write_synced(path, crash.trace.encode(errors="replace"))
        except FileExistsError:
            continue
        except OSError as error:
            return f"The traceback could not be written: {reason_of(error)}."
        return f"The traceback stands in {str(path)!r}."
    return "There are a thousand tracebacks of this step already."


def broken_off(step: int, crash: Crash | None, kept: str, trace: str) -> ValueError:
    """How a run ends after an error; crash: None in a process that was well itself."""
    if crash is None:
        why = f"It says what went wrong. {kept}"
        return refusal("Another process", f"failed in step {step}", why, "go on with --resume.")
    return refusal("Training", f"broke off in step {step}", f"{crash.what}. {kept}", f"go on with --resume. {trace}")


def too_large(step: int, what: str, halved: bool, kept: str, remedy: str) -> ValueError:
    """How a run ends whose step was out of memory twice. kept: as `what_is_kept` says."""
    before = ", and it was halved before" if halved else ""
    return refusal("Training", f"ran out of memory at step {step}", f"{what} does not fit{before}. {kept}", remedy)


def gone_bad(step: int, bad: int, whole: int, good: int | None, newest: int | None) -> ValueError:
    """How a run ends whose steps have long been skipped.

    whole: the last step that was taken. good: the newest checkpoint from which one was taken. newest: of all.
    """
    of_them = f"{bad} steps in a row had no finite loss or gradient"
    why = f"{of_them}; no weight was changed by them." if whole else f"Not one step succeeded: {of_them}."
    remedy = f"look at the samples that events.jsonl names. Then {ANEW}"
    if good is not None:
        first = f", after removing step {newest}, from which no step succeeded" if newest != good else ""
        remedy += f", or resume this one from its last good checkpoint, step {good}{first}"
    elif newest:
        remedy += f"; from this one's only checkpoint, step {newest}, no step succeeded"
    elif whole:
        remedy += "; this one has no checkpoint yet"
    return refusal("Training", f"stopped at step {step}", why, f"{remedy}.")


def learned_nothing(steps: int) -> ValueError:
    """How a run ends whose every step was skipped."""
    why = f"Not one step succeeded: the loss or the gradient of all {steps} was not a number."
    remedy = f"look at the samples that events.jsonl names. Then {ANEW}."
    return refusal("Training", "has learned nothing", why, remedy)


def not_numbers(step: int, good: int | None) -> ValueError:
    """How a run ends whose weights are not numbers any more. good: the newest checkpoint before."""
    why = (
        "They became infinite or no number at all, though loss and gradient were finite: the learning rate is too high."
    )
    resume = "" if good is None else f", or resume this one from its last good checkpoint, step {good}"
    return refusal(f"The weights of step {step}", "were not saved", why, f"{ANEW}{resume}.")


def _first_line(error: Exception) -> str:
    return _shortened(str(error).strip().partition("\n")[0].removesuffix("."))


def _shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
