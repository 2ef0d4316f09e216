# SPDX-License-Identifier: GPL-3.0-or-later
"""What `anydressing train` trains: the adapter on a frozen base model, by Eq. 15, and the pictures it shows meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...anydressing_core.atomic_write import write_atomically
from ..model.dresser import Dresser
from ..model.dressing import DressingModel
from ..model.reference_dresser import ReferenceDresser
from ..model.sampling import SamplingSettings
from ..progress import Progress
from ..run.task import Terms
from ..sheets import of_step, save_sheet
from .config import TrainConfig
from .previews import Sitter, draw_sheet, sample_rows
from .samples import DressingBatch, DressingData
from .step import DressingStep


class DressingTask:
    """The adapter, its data and its losses. sitters: who sits for the previews. no_text: the empty prompt, (77, C)."""

    def __init__(
        self,
        config: TrainConfig,
        step: DressingStep,
        data: DressingData,
        sitters: Sequence[Sitter],
        no_text: Tensor,
        folder: Path,
    ) -> None:
        self.step, self.data, self.sitters = step, data, sitters
        self._config, self._no_text, self._folder = config, no_text, folder

    @property
    def module(self) -> DressingModel:
        """What is trained."""
        return self.step.model

    def losses(self, batch: DressingBatch, *, measure: bool) -> Terms:
        """L of Eq. 15, without autocast, as `DressingStep` wants it."""
        with torch.autocast(batch.latents.device.type, enabled=False):
            return self.step.terms(batch, measure=measure)

    def preview(self, step: int, progress: Progress) -> None:
        """A sheet of the same few people at every preview, and beside it what it was made from.

        Before the first step they are also dressed by reference, which is what the base model does untrained. Without
        autocast, in the base model's own precision, so that `anydressing sample` makes the same pictures.
        """
        if not self.sitters:
            return
        settings, base = sampling_settings(self._config), self.step.base
        size = self._config.data.resolution
        ways: dict[str, tuple[Dresser, str]] = {
            of_step(step): (self.module, f"{self._config.adapter.title}, step {step}")
        }
        if step == 0 and settings.strength > 0:
            with torch.autocast(base.unet.device.type, enabled=False):
                untrained = ReferenceDresser(base, size)
            ways["reference"] = (untrained, "Reference mode: the base model alone, nothing trained")
        total, done = len(ways) * settings.steps * sum(len(sitter.outfits) for sitter in self.sitters), 0

        def tick(pictures: int) -> None:
            nonlocal done
            done += pictures
            progress("preview", done, total)

        note = f"DDIM {settings.steps}, guidance {settings.guidance:g}, strength {settings.strength:g}"
        made_from = {"people": [sitter.name for sitter in self.sitters], "base_sha256": base.sha256}
        told = json.dumps({"step": step, **made_from, **base.hardware.told(), **settings.told()}, indent=1)
        for name, (dresser, title) in ways.items():
            at_once = 4 if dresser is self.module else 1  # by reference a person's garments are read at every level
            with torch.autocast(base.unet.device.type, enabled=False):
                rows = sample_rows(
                    dresser, base, self.sitters, self._no_text, settings, size=size, batch=at_once, tick=tick
                )
            path = save_sheet(self._folder, name, draw_sheet(title, note, rows))
            write_atomically(path.with_suffix(".json"), told.encode())


def sampling_settings(config: TrainConfig) -> SamplingSettings:
    """How this run samples its previews."""
    preview = config.preview
    return SamplingSettings(preview.steps, preview.guidance, preview.strength, preview.seed)
