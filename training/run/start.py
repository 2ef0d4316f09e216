# SPDX-License-Identifier: GPL-3.0-or-later
"""From a configuration to a run that has ended: the folder, the device, the display, and what they must agree on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs
from rich.console import Console

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.safetensors_header import refusal
from .config import RunConfig, parse_config
from .events import Display, open_display, require_tensorboard
from .folder import CONFIG, RunFolder
from .interrupts import Interrupts, interrupts
from .loop import Outcome, Task, Trainer

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Workplace:
    """What a task is built in: the run's folder, the device, where a person looks, and whether she wants it to stop."""

    run: RunFolder
    accelerator: Accelerator
    display: Display
    wish: Interrupts

    @property
    def frozen_dtype(self) -> torch.dtype:
        """In what frozen weights are kept; trained ones are always fp32."""
        return _FROZEN[self.accelerator.mixed_precision]


_FROZEN = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def frozen_dtype(config: RunConfig) -> torch.dtype:
    """In what a run of this configuration keeps frozen weights on this machine."""
    return _FROZEN[_precision(config)]


MakeTask = Callable[[Config, Workplace], Task]


def train(config: Config, make_task: MakeTask[Config], *, resume: bool, console: Console) -> Outcome:
    """Begin a run, or go on with it, until its last step or a signal.

    make_task: builds what is trained, caches included, once the folder is ours. Under `accelerate launch` every
    process calls this. Raises ValueError in the user's words, OSError when the disk refuses.
    """
    if config.tensorboard:
        require_tensorboard()
    accelerator = Accelerator(
        mixed_precision=_precision(config),
        cpu=not torch.cuda.is_available(),
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the loop's own; no variable changes it
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],  # the others wait for caches and previews
    )
    main = accelerator.is_main_process
    run = _open_run(config, resume) if main else None
    accelerator.wait_for_everyone()
    run = run or RunFolder.open(config.folder)
    with (
        run.lock() if main else nullcontext(),
        interrupts() as wish,
        closing(open_display(console if main else Console(quiet=True, force_terminal=False))) as display,
    ):
        task = make_task(config, Workplace(run, accelerator, display, wish))
        accelerator.wait_for_everyone()
        outcome = Trainer(task, config, run, accelerator, display).train(wish)
        accelerator.wait_for_everyone()
        accelerator.end_training()  # else a process may abort when it ends while its connections are open
        return outcome


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
    begun = parse_config(run.config, str(run.path / CONFIG), kind=type(config))
    changed = begun.changes(config)
    if changed:
        why = f"It began with another {', '.join(changed)}, and would become a different run half-way."
        remedy = "set these back (config.toml in the folder has them), or begin a new run in another folder."
        raise refusal(f"The run in {str(run.path)!r}", "cannot go on with this configuration", why, remedy)
    if begun.to_toml() != config.to_toml():
        with run.lock():
            write_atomically(run.path / CONFIG, config.to_toml().encode())
    return run


def _precision(config: RunConfig) -> str:
    """accelerate's name for memory.precision; `auto` is bf16 where the device computes it, else fp32."""
    wanted, gpu = config.memory.precision, torch.cuda.is_available()
    if wanted == "auto":
        wanted = "bf16" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if wanted == "fp16" and not gpu:
        why = "Its gradients are scaled, which only a GPU does here."
        raise refusal('memory.precision = "fp16"', "needs a CUDA device", why, 'set memory.precision = "auto".')
    return {"fp32": "no"}.get(wanted, wanted)
