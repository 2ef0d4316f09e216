# SPDX-License-Identifier: GPL-3.0-or-later
"""From a configuration to a run that has ended: the folder, the device, the display, and what they must agree on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs
from rich.console import Console

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.refusals import refusal
from ..hardware import Hardware, choose_device, training_precision
from ..progress import Course, StoppedError
from .config import RunConfig, parse_config
from .display import Display, open_display
from .events import require_tensorboard
from .folder import CONFIG, RunFolder
from .interrupts import Interrupts, catch_signals
from .loop import Trainer
from .task import Outcome, Task
from .together import PATIENCE

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Workplace:
    """What a task is built in: the run's folder, the hardware, where a person looks, and whether she wants it to stop."""

    run: RunFolder
    accelerator: Accelerator
    hardware: Hardware
    display: Display
    interrupts: Interrupts

    @property
    def course(self) -> Course:
        """How long work before the first step is watched."""
        return Course(self.display.work, lambda: bool(self.interrupts))


MakeTask = Callable[[Config, Workplace], Task]


def train(
    config: Config, make_task: MakeTask[Config], *, resume: bool, console: Console, device: str = "auto"
) -> Outcome:
    """Begin a run, or go on with it, until its last step or a signal.

    make_task: builds what is trained, caches included, once the folder is ours. device: as `choose_device` takes it.
    Under `accelerate launch` every process calls this. Raises ValueError in the user's words, OSError when the disk
    refuses, SystemExit when it is stopped before the first step.
    """
    if config.tensorboard:
        require_tensorboard()
    accelerator, hardware = _accelerator(config, device)
    main = accelerator.is_main_process
    run = _open_run(config, resume) if main else None
    accelerator.wait_for_everyone()
    run = run or RunFolder.open(config.folder)
    with (
        run.lock() if main else nullcontext(),
        catch_signals() as interrupts,
        closing(open_display(console if main else Console(quiet=True, force_terminal=False))) as display,
    ):
        try:
            task = make_task(config, Workplace(run, accelerator, hardware, display, interrupts))
        except StoppedError as stopped:
            display.say(f"{stopped} What is built is kept. Go on with --resume.")
            raise SystemExit(interrupts.exit_status) from stopped
        accelerator.wait_for_everyone()
        outcome = Trainer(task, config, run, accelerator, display).train(interrupts)
        accelerator.wait_for_everyone()
        accelerator.end_training()  # else a process may abort when it ends while its connections are open
        return outcome


def _accelerator(config: RunConfig, device: str) -> tuple[Accelerator, Hardware]:
    chosen = choose_device(device)
    if chosen.index is not None:
        torch.cuda.set_device(chosen)  # a lone process; `accelerate launch` gives each of several its own
    precision = training_precision(config.memory.precision, chosen)
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=chosen.type == "cpu",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the loop's own; no variable changes it
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    alone = accelerator.num_processes == 1 and chosen.index is not None
    return accelerator, Hardware(chosen if alone else accelerator.device, precision)


def end_one_of_several(status: int) -> None:
    """End this process at once if it is one of several that trained together; else return.

    When Python takes such a process down in the ordinary way, PyTorch's threads abort it now and then, after all is
    saved, and the launcher takes that for a failure.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _open_run(config: RunConfig, resume: bool) -> RunFolder:
    if not resume:
        return RunFolder.create(config.folder, config.to_toml())
    run = RunFolder.open(config.folder)
    begun = parse_config(run.config, str(run.path / CONFIG), type(config))
    changed = begun.changes(config)
    if changed:
        why = f"It began with another {', '.join(changed)}, and would become a different run half-way."
        remedy = "set these back (config.toml in the folder has them), or begin a new run in another folder."
        raise refusal(f"The run in {str(run.path)!r}", "cannot go on with this configuration", why, remedy)
    if run.config != config.to_toml():
        with run.lock():
            write_atomically(run.path / CONFIG, config.to_toml().encode())
    return run
