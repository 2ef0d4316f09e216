# SPDX-License-Identifier: GPL-3.0-or-later
"""Training a recogniser: flat-lays, garments cut out of people by their masks, and whole people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...data.manifest import Item, Manifest
from ...picture_files import read_grey, read_unit
from ...progress import Progress
from ...run.noise import Draw
from ...run.task import Terms
from .config import PaperDollConfig
from .recogniser import (
    Recogniser,
    recognition_loss,
    right_answers,
    truth_of_garment,
    truth_of_person,
)
from .views import dyed

SHIFT = 12  # pixels that a picture is moved by, at most
VIEWS = ("flat-lay", "worn", "person", "person")

View = tuple[Tensor, dict[str, Tensor]]


class RecognitionData:
    """Views of people and garments, with what is true of them."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        self.items = manifest.of_split(split)
        self._manifest = manifest
        self.digest = hashlib.sha256(f"{manifest.digest} {split}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.items)

    def name(self, item: int) -> str:
        return self.items[item].id

    def sample(self, draw: Draw) -> View:
        """One view, moved a little and sometimes mirrored, and half of the garments dyed.

        Held-out garments have colours that no training garment of their texture has: without the dye, jeans of another
        blue are not recognised as jeans.
        """
        item = self.items[draw.item]
        view = VIEWS[draw.integer(len(VIEWS), "view")]
        picture, truth = self.view(item, view, draw.integer(len(item.garments), "garment"))
        if view != "person" and draw.uniform("dyed") < 0.5:
            picture = dyed(picture, draw)
            truth["colours"] = torch.full_like(truth["colours"], -1)
        if draw.uniform("mirror") < 0.5:
            picture = picture.flip(2)
        shift = [draw.integer(2 * SHIFT + 1, axis) - SHIFT for axis in ("down", "right")]
        return torch.roll(picture, shift, (1, 2)), truth

    def view(self, item: Item, view: str, garment: int) -> View:
        """A picture (3, H, W) in [0, 1]: `flat-lay` on white, `worn` on black outside its mask, or the whole `person`."""
        assert item.labels is not None
        worn = item.garments[garment]
        labels: Mapping[str, Any] = item.labels["garments"][worn.slot]
        if view == "flat-lay":
            assert worn.image is not None
            return read_unit(self._manifest.path(worn.image)), truth_of_garment(labels)
        person = read_unit(self._manifest.path(item.image))
        if view == "person":
            return person, truth_of_person(item.labels)
        return person * (read_grey(self._manifest.path(worn.mask)) > 0.5), truth_of_garment(labels)

    def collate(self, samples: list[View]) -> tuple[Tensor, dict[str, Tensor]]:
        pictures = torch.stack([picture for picture, _ in samples])
        truth = {name: torch.stack([answers[name] for _, answers in samples]) for name in samples[0][1]}
        return pictures.contiguous(memory_format=torch.channels_last), truth


class RecognitionTask:
    """What the loop trains: all heads at once."""

    def __init__(self, config: PaperDollConfig, data: RecognitionData) -> None:
        torch.manual_seed(config.seed)  # for the initial weights alone
        self.data = data
        self._recogniser = Recogniser(config.widths, config.kernel)
        self._recogniser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def module(self) -> nn.Module:
        return self._recogniser

    def losses(self, batch: tuple[Tensor, dict[str, Tensor]], *, measure: bool) -> Terms:
        """The sum of the heads' cross-entropies, and what share of each head's answers is right."""
        pictures, truth = batch
        logits = self._recogniser.classify(pictures)
        losses = recognition_loss(logits, truth)
        right = {name: all_right / max(of, 1) for name, (all_right, of) in right_answers(logits, truth).items()}
        return Terms(torch.stack(list(losses.values())).sum(), right)

    def preview(self, step: int, progress: Progress) -> None:
        """There is nothing to look at."""
