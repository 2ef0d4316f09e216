# SPDX-License-Identifier: GPL-3.0-or-later
"""A finished AnyDressing file on its base model, ready to dress people."""

from __future__ import annotations

from pathlib import Path

from ...anydressing_core.checkpoint import Checkpoint, load_checkpoint
from ...anydressing_core.refusals import refusal
from ..base.model import BaseModel
from ..model.adapter import Adapter
from ..model.dressing import DressingModel
from ..places import require_there
from ..run.folder import RunFolder
from .export import finished_file


def load_file(path: Path) -> Checkpoint:
    """An AnyDressing file, or that of a run as it stands. Raises ValueError when it is neither."""
    return finished_file(RunFolder.open(path)) if require_there(path).is_dir() else load_checkpoint(path)


def dressing_model(checkpoint: Checkpoint, base: BaseModel) -> DressingModel:
    """A finished file on its base model, frozen. Raises ValueError when they do not fit."""
    if checkpoint.info.unet != base.shape:
        why = "Its W_k' and W_v' have the widths of the U-Net it was trained on."
        raise refusal("This AnyDressing file", "does not fit the base model", why, "name the base it was trained on.")
    adapter = Adapter(checkpoint.info, base.unet)
    adapter.load(checkpoint)
    return DressingModel(base.unet, adapter.requires_grad_(False)).to(base.unet.device)
