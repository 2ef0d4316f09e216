# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run trains, as its loop sees it: any module with samples, a loss and pictures to look at."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from ..progress import Progress
from .noise import Draw


@dataclass(frozen=True)
class Terms:
    """A micro-batch's loss. total: scalar, the mean over its samples, with the graph.

    parts: what is shown of it, by name; the names are the same for all micro-batches of a step.
    """

    total: Tensor
    parts: Mapping[str, float | Tensor] = field(default_factory=dict)


class Task(Protocol):
    """What is trained, and on what."""

    @property
    def module(self) -> nn.Module:
        """Its parameters that require a gradient are trained, saved and averaged; it stands on its device."""
        ...

    @property
    def data(self) -> TaskData: ...

    def losses(self, batch: Any, *, measure: bool) -> Terms:
        """The loss of a batch on its device, without chance of its own. measure: also read what is too dear for every step."""
        ...

    def preview(self, step: int, progress: Progress) -> None:
        """Write sample pictures. progress: told how far they are; what it raises ends the preview and must come through.

        Whatever else is raised is noted, and training goes on.
        """
        ...


class TaskData(Protocol):
    """The samples; picklable, since worker processes read them. digest: of all that is in them."""

    digest: str

    def __len__(self) -> int: ...

    def name(self, item: int) -> str: ...

    def sample(self, draw: Draw) -> Any:
        """One sample on the CPU with its chance: a function of the draw alone."""
        ...

    def collate(self, samples: list[Any]) -> Any:
        """A batch: tensors in tuples, lists or dicts, or something with a `to(device)`."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a run ended. interrupted: by which signal, None when it came to its last step.

    Where several processes train, one that got no signal itself says SIGTERM.
    """

    step: int
    interrupted: signal.Signals | None
