# SPDX-License-Identifier: GPL-3.0-or-later
"""One place that chooses where a network computes and in which precision, for training, pictures and measuring alike."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..anydressing_core.checkpoint_info import Precision
from ..anydressing_core.refusals import quote, refusal
from .defaults import WantedPrecision

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""In what frozen weights are kept and computed; trained ones are always fp32."""


@dataclass(frozen=True)
class Hardware:
    """Where frozen networks compute, and in which precision."""

    device: torch.device
    precision: Precision

    @property
    def dtype(self) -> torch.dtype:
        """The precision as PyTorch names it."""
        return DTYPES[self.precision]

    @property
    def vae_dtype(self) -> torch.dtype:
        """The autoencoder's: it overflows in fp16 and takes fp32 instead."""
        return torch.float32 if self.precision == "fp16" else self.dtype

    def told(self) -> dict[str, str]:
        """What stands beside a picture that was made here."""
        return {"precision": self.precision, "device": str(self.device)}


CPU = Hardware(torch.device("cpu"), "fp32")


@dataclass(frozen=True)
class WantedHardware:
    """What a person asks for. precision, device: `auto` leaves the choice to us."""

    precision: WantedPrecision = "auto"
    device: str = "auto"

    def for_file(self, trained_in: Precision) -> Hardware:
        """The hardware for a finished file's pictures: in what it was trained, unless another precision is asked for."""
        precision = trained_in if self.precision == "auto" else self.precision
        return Hardware(choose_device(self.device), precision)


def choose_device(wanted: str) -> torch.device:
    """`auto` (CUDA where there is one, else the CPU), cpu, cuda, cuda:N or mps. Raises ValueError for what is not there.

    Of several processes that torchrun starts each has a GPU of its own under `auto`, as far as there are.
    """
    name = f"--device {quote(wanted)}"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", wanted):
        raise refusal(name, "is unknown", "A device is auto, cpu, cuda, cuda:N or mps.", "choose one of these.")
    if wanted == "auto":
        own = int(os.environ.get("LOCAL_RANK", "0"))
        index = own % torch.cuda.device_count() if torch.cuda.is_available() else 0
        return torch.device(f"cuda:{index}" if index else "cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise refusal(name, "is not here", "PyTorch finds no Apple GPU.", "choose cpu or auto.")
    if wanted.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(wanted.partition(":")[2] or 0) >= count:
            why = f"PyTorch finds {count or 'no'} CUDA device{'s' if count > 1 else ''}."
            raise refusal(name, "is not here", why, "choose cpu or auto.")
    return torch.device(wanted)


def launched_alone(environment: Mapping[str, str]) -> bool:
    """Whether `accelerate launch` was asked for several processes and started one, as it does on a CPU.

    It then names a port at which they would meet, and no number of them.
    """
    launched = "ACCELERATE_USE_CPU" in environment and "MASTER_PORT" in environment
    return launched and not any(name in environment for name in _NUMBERS_OF_PROCESSES)


_NUMBERS_OF_PROCESSES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun and the kinds of mpirun say how many there are."""


def training_precision(wanted: WantedPrecision, device: torch.device) -> Precision:
    """In what a run keeps frozen weights: `auto` is bf16 where a GPU computes it, else fp32.

    Raises ValueError for fp16 elsewhere than on CUDA.
    """
    cuda = device.type == "cuda"
    if wanted == "auto":
        return "bf16" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if wanted == "fp16" and not cuda:
        why = "Its gradients are scaled, which only a GPU does here."
        raise refusal('memory.precision = "fp16"', "needs a CUDA device", why, 'set memory.precision = "auto".')
    return wanted
