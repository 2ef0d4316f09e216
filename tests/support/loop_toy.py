# SPDX-License-Identifier: GPL-3.0-or-later
"""A task of a few numbers for the tests of the loop, and the ways in which it can go wrong.

As a script it trains in a folder, so that launchers can be tested: `python loop_toy.py FOLDER [SETTING ...]`, or with
`--serve` in a process for each request (see fork_server.py).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from dataclasses import dataclass
from io import FileIO

import torch
from accelerate.state import AcceleratorState, GradientState
from rich.console import Console
from torch import nn
from torch.utils.data import get_worker_info

if "comfyui_anydressing" not in sys.modules:  # a script
    from checkout import load_package

    load_package()

from comfyui_anydressing.training.run import events
from comfyui_anydressing.training.run.config import RunConfig, parse_config
from comfyui_anydressing.training.run.start import end_one_of_several, train
from comfyui_anydressing.training.run.task import Terms

ITEMS = 12


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, and in which process (None: in all). Steps count from 0.

    largest: more samples at once are out of memory. seconds: what a micro-batch takes. bad_loss, bad_gradient: steps.
    bad_sample: the first step whose samples cannot be read. preview_steps: of 0.05 s each. full_disk: no checkpoint can be
    written. error: what is raised at the step `error_step`, so many `times`; `at` says where: in the "loss", the
    "optimizer" before it changes anything or "halfway", by the "display", or in the loss of a "dead device", which
    cannot be read any more. killed_worker: the first step whose samples kill who reads them. full_log: how many lines
    are written before the disk is full for three of them, each of which it takes a half of.
    """

    largest: int = 1000
    seconds: float = 0.0
    bad_loss: tuple[int, ...] = ()
    bad_gradient: tuple[int, ...] = ()
    bad_preview: bool = False
    bad_sample: int | None = None
    preview_steps: int = 1
    full_disk: bool = False
    error: str = "RuntimeError"
    error_step: int | None = None
    at: str = "loss"
    times: int = 1000
    killed_worker: int | None = None
    full_log: int | None = None
    process: int | None = None


class ToyData:
    """Points on a plane, moved and sometimes dropped by chance."""

    def __init__(self, digest, broken=None, deadly=None):
        self.digest, self._broken, self._deadly = digest, broken, deadly
        self._points = torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(5))

    def __len__(self):
        return ITEMS

    def name(self, item):
        return f"person {item}"

    def sample(self, draw):
        if self._broken is not None and draw.step >= self._broken:
            raise ValueError("a picture is gone")
        if self._deadly is not None and draw.step >= self._deadly and get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        point = self._points[draw.item] + 0.1 * draw.normal((6,), "noise")
        dropped = draw.uniform("dropped") < 0.3
        return {"point": point * (not dropped), "target": draw.normal((4,), "target"), "step": draw.step}

    def collate(self, samples):
        joined = {name: torch.stack([sample[name] for sample in samples]) for name in ("point", "target")}
        return {**joined, "step": torch.tensor([sample["step"] for sample in samples])}


class Toy:
    """Learns targets from points. seen: the sizes of its micro-batches. previews: step and first weight of each."""

    def __init__(self, place, trouble, digest="points"):
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 4))
        self.module[3].requires_grad_(False)
        struck = trouble.process in (None, place.accelerator.process_index)
        self.trouble = trouble if struck else Trouble(seconds=trouble.seconds)
        self.data = ToyData(digest, self.trouble.bad_sample, self.trouble.killed_worker)
        self.seen, self.previews, self._left = [], [], self.trouble.times
        self._hurt(place)

    def _hurt(self, place):
        """Let what the loop works with fail as the trouble says."""
        if self.trouble.full_disk:
            place.run.save = full_disk
        events.FileIO = FileIO if self.trouble.full_log is None else filling(self.trouble.full_log)
        prepare, show = place.accelerator.prepare, place.display.step

        def fragile(optimizer):
            prepared = prepare(optimizer)
            take = prepared.step

            def step():
                if self.step == self.trouble.error_step == 0 and self._left:
                    optimizer.state[self.module[0].weight]["step"] = torch.zeros(())  # moments of a part of the weights
                self._fail("optimizer")
                take()
                self._fail("halfway")

            prepared.step = step
            return prepared

        def shown(step, readings):
            self._fail("display")
            show(step, readings)

        place.accelerator.prepare, place.display.step = fragile, shown
        self._place = place

    def _fail(self, at):
        if at == self.trouble.at and self.step == self.trouble.error_step and self._left:
            self._left -= 1
            if at == "dead device":
                self._place.run.save = dead_device
            raise ERRORS[self.trouble.error]("the toy broke")

    def losses(self, batch, *, measure):
        trouble, step = self.trouble, int(batch["step"][0])
        self.step = step
        self.seen.append(len(batch["point"]))
        time.sleep(trouble.seconds)
        self._fail("loss")
        self._fail("dead device")
        if len(batch["point"]) > trouble.largest:
            raise torch.OutOfMemoryError("the toy is full")
        loss = (self.module(batch["point"]) - batch["target"]).square().mean()
        if step in trouble.bad_loss:
            loss = loss * torch.nan
        if step in trouble.bad_gradient:
            loss = loss + (0 * self.module[0].weight).sum().square().sqrt()  # 0, its gradient inf * 0
        parts = {"square": loss.detach()} | ({"gradient of square": 1.0} if measure else {})
        return Terms(loss, parts)

    def preview(self, step, progress):
        for done in range(self.trouble.preview_steps):
            progress("preview", done, self.trouble.preview_steps)
            time.sleep(0.05)
        self.previews.append((step, float(self.module[0].weight.detach()[0, 0])))
        torch.rand(3)
        if self.trouble.bad_preview:
            raise RuntimeError("no canvas")


ERRORS = {
    each.__name__: each
    for each in (RuntimeError, ValueError, MemoryError, AssertionError, torch.OutOfMemoryError, torch.AcceleratorError)
}


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def dead_device(*arguments):
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nSearch for it.")


def filling(lines):
    """A file that takes so many lines, then a half of each of three, then whole ones again."""
    written = 0

    class Filling(FileIO):
        def write(self, line):
            nonlocal written
            written += 1
            if lines < written <= lines + 3:
                super().write(line[: len(line) // 2])
                full_disk()
            return super().write(line)

    return Filling


def toy_config(folder, *overrides):
    """A run of 20 steps: accumulation, an average and a falling rate."""
    text = f"""
        folder = '{folder}'
        steps = 20
        data = {{ manifest = "none", batch = 2, accumulate = 2, workers = 0 }}
        optimizer = {{ learning_rate = 0.01, average = 0.9, schedule = "cosine", warmup = 3 }}
        checkpoints = {{ every = 10 }}
        preview = {{ every = 0 }}
    """
    return parse_config(text, "the toy", RunConfig, overrides)


def train_toy(config, trouble=Trouble(), *, resume=False, console=None, digest="points"):
    """Returns how the run ended and the task."""
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps it for the life of a process
    GradientState._reset_state()
    tasks = []

    def make(config, place):
        tasks.append(Toy(place, trouble, digest))
        return tasks[0]

    outcome = train(config, make, resume=resume, console=console or Console(quiet=True, force_terminal=False))
    return outcome, tasks[0]


def answer(request):
    """Train as a request says. Returns what the command line would: 0, 128 + signal, or 1 for a refusal, which is said."""
    try:
        config = parse_config(request["config"], "the toy", RunConfig)
        screen = Console() if request.get("terminal") else None
        outcome, _ = train_toy(config, Trouble(**request["trouble"]), resume=request["resume"], console=screen)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0 if outcome.interrupted is None else 128 + outcome.interrupted


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        import torch._dynamo  # the first optimizer of a process would, for seconds
        from fork_server import serve

        serve(answer)
    else:
        train_toy(toy_config(*sys.argv[1:]))
        end_one_of_several(0)
