# SPDX-License-Identifier: GPL-3.0-or-later
"""A finished AnyDressing file on its base model, or none, ready to dress people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...anydressing_core.checkpoint import Checkpoint, load_checkpoint
from ...anydressing_core.defaults import RESOLUTION
from ...anydressing_core.latents import Size
from ...anydressing_core.refusals import refusal
from ..base.model import BaseModel, load_base
from ..hardware import WantedHardware
from ..model.adapter import Adapter
from ..model.dresser import Dresser
from ..model.dressing import DressingModel
from ..model.reference_dresser import ReferenceDresser
from ..model.shared_reference import SharedReference
from ..places import require_there
from ..run.folder import RunFolder
from .export import finished_file, trains_gfe

NO_FILE = Path("none")
"""What is written where a file is expected, to dress by reference alone."""


@dataclass(frozen=True)
class Way:
    """How people are to be dressed.

    file: an AnyDressing file or a run, or NO_FILE. reference: by reference as well; without a file always. resolution: of
    garments and pictures without a file, H and W.
    """

    file: Path
    reference: bool = False
    resolution: Size = RESOLUTION

    @property
    def is_by_reference(self) -> bool:
        return self.reference or self.file == NO_FILE


@dataclass(frozen=True)
class Ready:
    """Whoever dresses, on the loaded base model. identity: what tells these weights and this way from any others."""

    dresser: Dresser
    base: BaseModel
    identity: str


def make_ready(way: Way, base: Path, hardware: WantedHardware, tokenizer: Path | None = None) -> Ready:
    """Load what a way of dressing needs. Raises ValueError in the user's words."""
    if way.file == NO_FILE:
        loaded = load_base(base, hardware.for_file("fp32"), tokenizer=tokenizer)
        return Ready(ReferenceDresser(loaded, way.resolution), loaded, "reference")
    checkpoint = load_file(way.file)
    loaded = load_base(base, hardware.for_file(checkpoint.info.trained_in), tokenizer=tokenizer)
    kind = SharedReference if way.file.is_dir() and not trains_gfe(RunFolder.open(way.file)) else DressingModel
    trained = dressing_model(checkpoint, loaded, kind)
    if not way.reference:
        return Ready(trained, loaded, checkpoint.identity)
    both = ReferenceDresser(loaded, trained.preparation.resolution, trained)
    return Ready(both, loaded, f"{checkpoint.identity} and reference")


def load_file(path: Path) -> Checkpoint:
    """An AnyDressing file, or that of a run as it stands. Raises ValueError when it is neither."""
    return finished_file(RunFolder.open(path)) if require_there(path).is_dir() else load_checkpoint(path)


def dressing_model(checkpoint: Checkpoint, base: BaseModel, kind: type[DressingModel] = DressingModel) -> DressingModel:
    """A finished file on its base model, frozen. Raises ValueError when they do not fit."""
    if checkpoint.info.unet != base.shape:
        why = "Its W_k' and W_v' have the widths of the U-Net it was trained on."
        raise refusal("This AnyDressing file", "does not fit the base model", why, "name the base it was trained on.")
    adapter = Adapter(checkpoint.info, base.unet)
    adapter.load(checkpoint)
    return kind(base.unet, adapter.requires_grad_(False)).to(base.unet.device)
