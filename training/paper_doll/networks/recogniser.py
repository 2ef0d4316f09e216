# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognisers: small plain networks that know the paper-doll world's people and garments.

One stands in for VGG16 inside L_perc (Eq. 12), another of different shape and seed judges, so that nothing is trained on
what it is measured by. As a feature network (`training.losses.dists.FeatureNetwork`) a recogniser gives its stages; as a
classifier it tells a garment's kind, cut, texture, colours and print, and a person's scene, pose and kinds of garment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...losses.features import KIND, FeatureStages, shape_of_stages
from ...network_file import load_network, save_network
from ..world.garments import SLOTS
from ..world.samples import LABEL_SPACES

KINDS = tuple(kind for slot in SLOTS for kind in LABEL_SPACES[f"{slot}_kind"])

QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "kind": KINDS,
    "cut": LABEL_SPACES["cut"],
    "texture": LABEL_SPACES["texture"],
    "print": LABEL_SPACES["print"],
    "colours": LABEL_SPACES["colour"],
    "scene": LABEL_SPACES["scene"],
    "pose": LABEL_SPACES["pose"],
    "wears": KINDS,
}
SEVERAL = frozenset({"colours", "wears"})
"""The heads of which several answers may be true at once: any colours, and one kind of garment for each slot worn."""

OF_SLOT: Mapping[str, slice] = {
    slot: slice(KINDS.index(kinds[0]), KINDS.index(kinds[-1]) + 1)
    for slot, kinds in ((slot, LABEL_SPACES[f"{slot}_kind"]) for slot in SLOTS)
}
"""Where each slot's kinds stand among KINDS."""

WHERE = frozenset({"scene", "pose", "wears"})
"""The heads that look at where in the picture something is."""

GRID = (6, 4)
"""Places, down and across."""


class Recogniser(FeatureStages):
    """Feature stages, and a linear head for each thing that can be named. widths, kernel: of the stages."""

    def __init__(self, widths: Sequence[int], kernel: int = 3) -> None:
        super().__init__(widths, kernel)
        anywhere, where = 2 * sum(widths), GRID[0] * GRID[1] * widths[-1]
        self.heads = nn.ModuleDict(
            {name: nn.Linear(anywhere + where * (name in WHERE), len(words)) for name, words in QUESTIONS.items()}
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def classify(self, image: Tensor) -> dict[str, Tensor]:
        """The logits of every head: (B, number of its words)."""
        maps = self(image)
        anywhere = torch.cat([seen for x in maps for seen in (x.mean((2, 3)), x.amax((2, 3)))], dim=1)
        where = torch.cat([anywhere, functional.adaptive_avg_pool2d(maps[-1], GRID).flatten(1)], dim=1)
        return {name: head(where if name in WHERE else anywhere) for name, head in self.heads.items()}


def recognition_loss(logits: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy of every head, over the rows whose truth is known; of `wears` among the kinds of each slot worn.

    truth: head -> (B,) long, -1 where unknown; of heads with several answers (B, words), 0 or 1, -1 where unknown.
    """
    losses: dict[str, Tensor] = {}
    for name, answer in truth.items():
        if name == "wears":
            worn = answer.clamp(min=0)  # all zero where unknown
            slots = [(worn[:, kinds] * logits[name][:, kinds].log_softmax(dim=1)).sum() for kinds in OF_SLOT.values()]
            losses[name] = -torch.stack(slots).sum() / worn.sum().clamp(min=1)
        elif name in SEVERAL:
            known = (answer >= 0).float()
            each = functional.binary_cross_entropy_with_logits(logits[name], answer.clamp(min=0), reduction="none")
            losses[name] = (each * known).sum() / known.sum().clamp(min=1)
        else:
            each = functional.cross_entropy(logits[name], answer, ignore_index=-1, reduction="sum")
            losses[name] = each / (answer >= 0).sum().clamp(min=1)
    return losses


def right_answers(logits: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """How many rows each head has right, and of how many; of several colours all must be. `wears` counts garments."""
    counts: dict[str, tuple[int, int]] = {}
    for name, answer in truth.items():
        if name == "wears":
            known = torch.stack([(answer[:, kinds] > 0).any(dim=1) for kinds in OF_SLOT.values()])
            right = torch.stack(
                [logits[name][:, kinds].argmax(dim=1) == answer[:, kinds].argmax(dim=1) for kinds in OF_SLOT.values()]
            )
        elif name in SEVERAL:
            known = answer[:, 0] >= 0
            right = ((logits[name] > 0) == (answer > 0.5)).all(dim=1)
        else:
            known = answer >= 0
            right = logits[name].argmax(dim=1) == answer
        counts[name] = int((right & known).sum()), int(known.sum())
    return counts


def truth_of_garment(labels: Mapping[str, Any]) -> dict[str, Tensor]:
    """The answers for a picture of one garment, from its labels in the manifest."""
    return {
        **_unknown(),
        **{name: _index(name, labels[name]) for name in ("kind", "cut", "texture", "print")},
        "colours": _several("colours", labels["colours"]),
    }


def truth_of_person(labels: Mapping[str, Any]) -> dict[str, Tensor]:
    """The answers for a picture of a whole person, from the labels in the manifest."""
    kinds = [garment["kind"] for garment in labels["garments"].values()]
    return {
        **_unknown(),
        **{name: _index(name, labels[name]) for name in ("scene", "pose")},
        "wears": _several("wears", kinds),
    }


def _unknown() -> dict[str, Tensor]:
    return {
        name: torch.full((len(words),), -1.0) if name in SEVERAL else torch.tensor(-1)
        for name, words in QUESTIONS.items()
    }


def _index(head: str, word: str) -> Tensor:
    return torch.tensor(QUESTIONS[head].index(word))


def _several(head: str, words: Sequence[str]) -> Tensor:
    return torch.tensor([float(word in words) for word in QUESTIONS[head]])


def save_recogniser(path: Path, recogniser: Recogniser) -> None:
    """Write a recogniser, in fp16, with its shape in the metadata."""
    save_network(path, recogniser, KIND, {"widths": recogniser.widths, "kernel": recogniser.kernel})


def load_recogniser(path: Path) -> Recogniser:
    """Read a recogniser: frozen, fp32. Raises ValueError when the file is not one."""
    return load_network(path, KIND, lambda shape: Recogniser(*shape_of_stages(shape)))
