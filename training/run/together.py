# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes that train one run together: what one of them meets, all of them hear of at the same place."""

from __future__ import annotations

from datetime import timedelta

import torch
from accelerate import Accelerator
from torch import Tensor

PATIENCE = timedelta(days=1)
"""How long processes wait for each other: for caches that the main one builds, and for its previews."""


class Together:
    """All processes of a run, or the only one."""

    FLAGS = 4

    def __init__(self, accelerator: Accelerator) -> None:
        self.several = accelerator.num_processes > 1
        # Agreed on the CPU, so that a process whose device has failed can still say so.
        self._group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE) if self.several else None

    def agree(self, *flags: bool) -> list[bool]:
        """Whether any process says so, for each flag: the same answer in all of them.

        Every call is of one size: a process in trouble joins whichever agreement the others have come to. Raises
        RuntimeError when one of them is gone; from then on this one is alone.
        """
        if not self.several:
            return list(flags)
        mine = torch.zeros(self.FLAGS, dtype=torch.int32)
        mine[: len(flags)] = torch.tensor(flags, dtype=torch.int32)
        try:
            torch.distributed.all_reduce(mine, group=self._group)
        except RuntimeError:
            self.several = False
            raise
        return [value > 0 for value in mine.tolist()[: len(flags)]]

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes, without taking memory for it."""
        if self.several:
            torch.distributed.all_reduce(tensor)
