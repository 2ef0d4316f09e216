# SPDX-License-Identifier: GPL-3.0-or-later
"""What mishaps cost a training run: never a step that was whole, unless the disk or the device refuses to keep it.

`campaign` trains a small network by the real loop, with data workers, and lets something go wrong at random moments: it
is killed, told to stop, loses its terminal or a worker, meets an error in a step or in the middle of changing weights,
runs out of memory, or the disk is full. The next process resumes. After every end the newest checkpoint is compared with the
last step that was whole; a run that comes to its end, with an undisturbed one, to the bit.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import torch
from comfyui_anydressing.training.run import events, folder
from comfyui_anydressing.training.run.config import RunConfig, parse_config
from comfyui_anydressing.training.run.folder import RunFolder
from comfyui_anydressing.training.run.noise import Draw
from comfyui_anydressing.training.run.start import Workplace, train
from comfyui_anydressing.training.run.task import Terms
from rich.console import Console
from torch import nn

STEPS, SAVE_EVERY = 160, 7
PACE = 0.003  # seconds that a micro-batch takes at least


@dataclass(frozen=True)
class Mishap:
    """Something that goes wrong. status: with which the process then ends.

    kept: what is the newest checkpoint then: of the last "whole" step; the one "named" by the last words; at least the
    one that was "published" last; or of the "end", since the run goes on.
    """

    name: str
    status: int
    kept: Literal["whole", "named", "published", "end"]
    sent: Callable[[int, random.Random], None] | None = None


def _worker(pid: int, chance: random.Random) -> None:
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if workers:
        os.kill(int(chance.choice(workers)), signal.SIGKILL)


MISHAPS = (
    Mishap("SIGKILL", -signal.SIGKILL, "published", lambda pid, _: os.kill(pid, signal.SIGKILL)),
    Mishap("SIGTERM to all processes", 128 + signal.SIGTERM, "whole", lambda pid, _: os.killpg(pid, signal.SIGTERM)),
    Mishap("SIGHUP to all processes", 128 + signal.SIGHUP, "whole", lambda pid, _: os.killpg(pid, signal.SIGHUP)),
    Mishap("a data worker is killed", 1, "whole", _worker),
    Mishap("an error in a step", 1, "whole"),
    Mishap("an error halfway through the optimizer", 1, "named"),
    Mishap("a device that cannot be read any more", 1, "named"),
    Mishap("out of memory once, at batch 1", 0, "end"),
    Mishap("out of memory twice, at batch 1", 1, "whole"),
    Mishap("the disk is full for the log", 0, "end"),
    Mishap("the disk is full for a checkpoint", 3, "named"),
)


@dataclass
class Count:
    """What became of one kind of mishap."""

    times: int = 0
    other_end: int = 0
    lost: int = 0


@dataclass
class Tally:
    """What happened so far. finished: runs that came to their end; different: by at least a bit. spoiled: with a log that is not JSON."""

    of: dict[str, Count] = field(default_factory=lambda: {mishap.name: Count() for mishap in MISHAPS})
    finished: int = 0
    different: int = 0
    spoiled: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing was lost."""
        return self.different == self.spoiled == 0 and all(
            count.other_end == count.lost == 0 for count in self.of.values()
        )


class Seen:
    """What a training process did, in memory that its parent shares: zeros at first."""

    NAMES = ("begun", "whole", "published", "struck")

    def __init__(self) -> None:
        self._numbers = torch.zeros(len(self.NAMES), dtype=torch.int64).share_memory_()

    def note(self, what: str, number: int = 1) -> None:
        self._numbers[self.NAMES.index(what)] = number

    def __getitem__(self, what: str) -> int:
        return int(self._numbers[self.NAMES.index(what)])


class Points:
    """Samples that are all chance."""

    digest = "points"

    def __len__(self) -> int:
        return 24

    def name(self, item: int) -> str:
        return f"point {item}"

    def sample(self, draw: Draw) -> torch.Tensor:
        return draw.normal((64,), "point") + draw.item

    def collate(self, samples: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(samples)


class Fragile:
    """A task that fails as its mishap says, at the step that it was given."""

    def __init__(self, place: Workplace, seen: Seen, name: str, at: int) -> None:
        torch.manual_seed(7)
        self.module = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
        self.data = Points()
        self._place, self._seen, self._name, self._at, self._left = place, seen, name, at, 1
        self._watch()

    def losses(self, batch: torch.Tensor, *, measure: bool) -> Terms:
        self._seen.note("begun")
        time.sleep(PACE)
        if self._now("an error in a step"):
            raise RuntimeError("CUDA error: it stands in for one")
        if self._now("a device that cannot be read any more"):
            vars(self._place.run)["save"] = _dead
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if self._now("out of memory once, at batch 1") or self._now("out of memory twice, at batch 1"):
            self._left -= 1
            raise (torch.OutOfMemoryError if self._at % 2 else MemoryError)("no more memory")
        return Terms((self.module(batch) - batch).square().mean())

    def preview(self, step: int, progress: Any) -> None:
        raise AssertionError("no previews here")

    def _now(self, name: str) -> bool:
        again = "twice" in name
        now = self._name == name and self._seen["whole"] >= self._at and self._left >= 1 - again
        if now:
            self._seen.note("struck")
        return now

    def _watch(self) -> None:
        """See what the loop does, and break the optimizer and the disk if they shall break."""
        place, seen = self._place, self._seen
        show, note, prepare = place.display.step, place.display.note, place.accelerator.prepare

        def shown(step: int, readings: Any) -> None:
            seen.note("whole", step)
            show(step, readings)

        def noted(name: str, value: int) -> None:
            seen.note("published", value)
            note(name, value)

        def prepared(optimizer: Any) -> Any:
            ours = prepare(optimizer)
            take = ours.step

            def step() -> None:
                take()
                if self._now("an error halfway through the optimizer"):
                    raise RuntimeError("CUDA error: it stands in for one")

            ours.step = step
            return ours

        vars(place.display).update(step=shown, note=noted)
        vars(place.accelerator).update(prepare=prepared)
        if self._name == "the disk is full for the log":
            events.FileIO = _filling(self._at - seen["whole"], seen)  # type: ignore[misc]
        if self._name == "the disk is full for a checkpoint":
            _fill(self._at, seen)


def _dead(*_: object) -> None:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def _full(seen: Seen) -> OSError:
    seen.note("struck")
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _filling(lines: int, seen: Seen) -> type[FileIO]:
    """A file that takes so many lines, then halves of three, then whole ones again."""
    written = 0

    class Filling(FileIO):
        def write(self, line: Any, /) -> int:
            nonlocal written
            written += 1
            if lines < written <= lines + 3:
                super().write(line[: len(line) // 2])
                raise _full(seen)
            return super().write(line)

    return Filling


def _fill(step: int, seen: Seen) -> None:
    """Let the disk take no checkpoint from a step on: it is full in the middle of a file."""
    write = folder.write_synced

    def limited(path: Path, content: bytes) -> None:
        if int(path.parent.name.split("-")[1]) >= step:
            path.write_bytes(content[: len(content) // 2])
            raise _full(seen)
        write(path, content)

    folder.write_synced = limited


def config_of(place: Path) -> RunConfig:
    """A run of single samples that two workers read."""
    text = f"""
        folder = '{place}'
        steps = {STEPS}
        data = {{ manifest = "none", batch = 1, accumulate = 2, workers = 2 }}
        optimizer = {{ learning_rate = 0.001, average = 0.9, schedule = "cosine" }}
        checkpoints = {{ every = {SAVE_EVERY}, keep_last = 2, keep_every = 0 }}
        preview = {{ every = 0 }}
    """
    return parse_config(text, "the campaign", RunConfig)


def start_child(config: RunConfig, seen: Seen, name: str, at: int) -> int:
    """Train in a forked child of a session of its own, whose last words go to `words` beside the run; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    os.setsid()
    words = os.open(config.folder.with_suffix(".words"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for output in (1, 2):
        os.dup2(words, output)
    try:
        quiet = Console(quiet=True, force_terminal=False)
        resume = bool((config.folder / "config.toml").exists() and RunFolder.open(config.folder).steps())
        outcome = train(config, lambda _, place: Fragile(place, seen, name, at), resume=resume, console=quiet)
        status = 0 if outcome.interrupted is None else 128 + outcome.interrupted
    except (ValueError, OSError) as error:
        status = 1 if isinstance(error, ValueError) else 3
        print(error)
    finally:
        sys.stdout.flush()
        os._exit(status)


def end_of(pid: int, mishap: Mishap, seen: Seen, chance: random.Random) -> int:
    """Let the mishap happen, if it comes from outside, and wait. Returns the exit status."""
    ended, status = 0, 0
    if mishap.sent:
        while not (seen["begun"] or ended):
            time.sleep(0.001)
            ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(chance.uniform(0, 0.7))
        if not ended:
            ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            seen.note("struck")
            mishap.sent(pid, chance)
    if not ended:
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def judge(mishap: Mishap, status: int, run: RunFolder, seen: Seen, count: Count) -> None:
    """Count a mishap, and what it has cost."""
    count.times += 1
    words = run.path.with_suffix(".words").read_text()
    newest = run.latest() or 0
    count.other_end += status != mishap.status or (status in (1, 3) and len(words.splitlines()) != 3)
    names = (
        (f"it is step {newest}.", f"is saved: step-{newest:08d}.") if newest else ("is none.", "None is saved so far.")
    )
    kept = {
        "whole": newest == seen["whole"],
        "named": newest == seen["published"] and any(name in words for name in names),
        "published": newest >= seen["published"],
        "end": newest == STEPS,
    }[mishap.kept]
    if not kept or status != mishap.status:
        print(f"{mishap.name}: status {status}, step {seen['whole']} was whole, {newest} is kept. {words}")
    count.lost += not kept


def campaign(place: Path, each: int, seed: int) -> Tally:
    """Let every mishap happen so often, in an order of chance."""
    chance, tally, seen = random.Random(seed), Tally(), Seen()
    reference = config_of(place / "undisturbed")
    assert os.waitpid(start_child(reference, seen, "", 0), 0)[1] == 0, "the undisturbed run failed"
    expected = RunFolder.open(reference.folder).load(STEPS)
    left = [mishap for mishap in MISHAPS for _ in range(each)]
    chance.shuffle(left)
    config, begun = config_of(place / "disturbed-0"), 0
    while left:
        mishap, seen = left[-1], Seen()
        last = STEPS - 2 * SAVE_EVERY  # so that a checkpoint is still due
        at = chance.randint(begun + 1, last) if begun < last else 0
        seen.note("whole", begun)
        seen.note("published", begun)
        status = end_of(start_child(config, seen, mishap.name, at), mishap, seen, chance)
        if seen["struck"] and (status or mishap.kept == "end"):  # else the run ended before anything could happen
            judge(mishap, status, RunFolder.open(config.folder), seen, tally.of[mishap.name])
            left.pop()
        run = RunFolder.open(config.folder)
        begun = run.latest() or 0
        if begun > last and begun < STEPS:
            os.waitpid(start_child(config, Seen(), "", 0), 0)
            begun = run.latest() or 0
        if begun == STEPS:
            tally.finished += 1
            tally.different += not _equal(run.load(STEPS), expected)
            tally.spoiled += not _is_json(run.path / events.EVENTS)
            config, begun = config_of(place / f"disturbed-{tally.finished}"), 0
    return tally


def _equal(left: tuple[Any, Any], right: tuple[Any, Any]) -> bool:
    (tensors, state), (expected, numbers) = left, right
    flat, other = ({(a, b): each for a, named in of.items() for b, each in named.items()} for of in (tensors, expected))
    return (
        state == numbers and flat.keys() == other.keys() and all(torch.equal(flat[name], other[name]) for name in flat)
    )


def _is_json(path: Path) -> bool:
    try:
        return all(json.loads(line) for line in path.read_text().splitlines())
    except json.JSONDecodeError:
        return False


def table(tally: Tally) -> str:
    """The campaign as a table."""
    lines = [
        "| what happened | times | ended otherwise than promised | whole steps lost without a word |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {count.times} | {count.other_end} | {count.lost} |" for name, count in tally.of.items()]
    times = sum(count.times for count in tally.of.values())
    ends = f"{times} mishaps, {tally.finished} runs finished: {tally.different} differ by a bit, {tally.spoiled} logs are spoiled."
    return "\n".join([*lines, "", ends])
