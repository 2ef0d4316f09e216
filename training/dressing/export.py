# SPDX-License-Identifier: GPL-3.0-or-later
"""From a run to the file that ComfyUI opens."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ...anydressing_core.checkpoint import Checkpoint, load_checkpoint, read_info, save_checkpoint
from ...anydressing_core.checkpoint_info import CheckpointInfo, Precision
from ...anydressing_core.refusals import refusal
from ..places import replaces
from ..run.config import parse_config
from ..run.folder import CONFIG, RunFolder
from .config import TrainConfig

logger = logging.getLogger(__name__)

START = "start.safetensors"
"""In a run's folder: the AnyDressing file as it was before step 0. What a checkpoint lacks, a finished file takes from it."""

FILE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""How an exported file may keep its numbers, what is preferred first."""


def export_run(
    folder: Path,
    out: Path,
    *,
    step: int | None = None,
    dtype: str | None = None,
    title: str | None = None,
    author: str | None = None,
) -> CheckpointInfo:
    """Write a run's AnyDressing file and return what it says of itself.

    step: of a checkpoint, the newest when None. dtype: one of FILE_DTYPES; None is the first that keeps every bit of what
    the run left alone, so that a garment kind can be added to a file of any dtype. A file of a run with these settings
    and this data is replaced, and that is told. Raises ValueError when `folder` is no such run, the checkpoint is missing
    or damaged, a value does not fit the dtype, or `out` is not named `.safetensors` or is there as something else.
    """
    run = RunFolder.open(folder)
    if not trains_gfe(run):
        why = "It is Base of the paper's Table 3, which reads all garments in one picture; ComfyUI's nodes do not."
        raise refusal(
            f"The run in {str(run.path)!r}", "makes no AnyDressing file", why, "compare it: `anydressing evaluate RUN`."
        )
    if out.suffix != ".safetensors":
        raise refusal(
            f"{str(out)!r}", "is not a file's name for this", "ComfyUI lists .safetensors files.", "say x.safetensors."
        )
    finished, trained, step = _file_and_trained(run, step)
    if replaces(out, lambda path: _of_such_a_run(read_info(path), finished.info), "a file of this run"):
        logger.warning("%s held %d steps and is replaced.", out, read_info(out).steps)
    if step == 0:
        logger.warning("This is step 0: what the run trains is in the file as it began, untrained.")
    untouched = [tensor for name, tensor in finished.tensors.items() if name not in trained]
    dtype = dtype or next(name for name in FILE_DTYPES if all(_fits(tensor, FILE_DTYPES[name]) for tensor in untouched))
    info = replace(finished.info, title=title or finished.info.title, author=author or finished.info.author)
    tensors = {name: tensor.to(FILE_DTYPES[dtype]) for name, tensor in finished.tensors.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, Checkpoint(info, tensors))
    return info


def finished_file(run: RunFolder, step: int | None = None) -> Checkpoint:
    """The AnyDressing file of a run as it stands at a checkpoint, the newest when None; averaged if the run averages.

    Raises ValueError when the run has no checkpoint yet, or not that one.
    """
    return _file_and_trained(run, step)[0]


def trains_gfe(run: RunFolder) -> bool:
    """Whether each garment has a pass and a LoRA of its own in a run, as in every AnyDressing file."""
    return _config(run).adapter.gfe


def row_of_run(run: RunFolder) -> Literal["base", "gfe", "igl", "gtl"] | None:
    """Which row of the paper's Table 3 a run is by its switches; None for another mixture of them."""
    config = _config(run)
    switches = (config.adapter.gfe, config.losses.localisation > 0, config.losses.texture > 0)
    rows: dict[tuple[bool, bool, bool], Literal["base", "gfe", "igl", "gtl"]] = {
        (False, False, False): "base",
        (True, False, False): "gfe",
        (True, True, False): "igl",
        (True, True, True): "gtl",
    }
    return rows.get(switches)


def _of_such_a_run(there: CheckpointInfo, ours: CheckpointInfo) -> bool:
    """Whether a file says of itself what every file of our run says, at whatever step and under whatever title."""
    changing = {"steps": 0, "title": "", "author": "", "training_config_hash": "", "precision": None, "extra": {}}
    return vars(there) | changing == vars(ours) | changing


def _file_and_trained(run: RunFolder, step: int | None) -> tuple[Checkpoint, set[str], int]:
    """A run's file, the names of the tensors in it that the run trains, and its step."""
    if not (run.path / START).is_file():
        why = f"It holds no {START}: only `anydressing train` makes AnyDressing files."
        raise refusal(f"The run in {str(run.path)!r}", "has nothing to export", why, "name the folder of such a run.")
    step, trained = run.trained(step)
    start = load_checkpoint(run.path / START)
    named = {name.removeprefix("adapter."): tensor for name, tensor in trained.items()}
    # A resumed run may have been given other settings than at its start: how long it goes, what it shows and keeps.
    config, precision = _config(run), precision_of(run, start.info)
    info = replace(start.info, steps=start.info.steps + step, training_config_hash=config.digest, precision=precision)
    return Checkpoint(info, {**start.tensors, **named}), set(named), step


def precision_of(run: RunFolder, start: CheckpointInfo) -> Precision | None:
    """In what a run trains: as its file said before step 0, or, where files did not say it yet, as its settings do."""
    stated = _config(run).memory.precision
    return start.precision or (None if stated == "auto" else stated)


def _config(run: RunFolder) -> TrainConfig:
    return parse_config(run.config, str(run.path / CONFIG), TrainConfig)


def _fits(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor can be kept in a dtype to the bit."""
    return torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)
