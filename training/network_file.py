# SPDX-License-Identifier: GPL-3.0-or-later
"""The small networks' files: fp16 tensors, and in the metadata the shape that the network is built from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..anydressing_core.atomic_write import write_atomically
from ..anydressing_core.refusals import quote, refusal
from ..anydressing_core.safetensors_header import read_header, refuse_not_finite
from .places import require_there

Network = TypeVar("Network", bound=nn.Module)


def save_network(path: Path, network: nn.Module, kind: str, shape: Mapping[str, Any]) -> None:
    """Write a network. kind: what it is, "parser" for example. shape: what `load_network`'s `build` is given."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, safetensors.torch.save(tensors, {_format(kind): json.dumps(shape)}))


def is_network(path: Path, kind: str) -> bool:
    """Whether a safetensors file says that it is one of this kind."""
    return _format(kind) in read_header(path).metadata


def load_network(path: Path, kind: str, build: Callable[[dict[str, Any]], Network]) -> Network:
    """Read a network: frozen, fp32. build: from its shape, which a stranger wrote, on no device.

    Raises ValueError when the file is none of this kind, or its tensors are not those of its shape.
    """
    return read_network(path, kind, build)[0]


def read_network(
    path: Path, kind: str, build: Callable[[dict[str, Any]], Network], behind: str | None = None
) -> tuple[Network, dict[str, Tensor]]:
    """As `load_network`, and all of the file's tensors by name. behind: how names begin that the network lacks."""
    header = read_header(require_there(path))
    try:
        with torch.device("meta"):
            network = build(json.loads(header.metadata[_format(kind)]))
        expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        found = {name: tensor.shape for name, tensor in header.tensors.items()}
        if {name: shape for name, shape in found.items() if not (behind and name.startswith(behind))} != expected:
            raise ValueError("tensors of other names or shapes")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        why = f"It holds no {kind} that `anydressing train-base` made for the paper-doll world."
        raise refusal(quote(path.name), f"is not a {kind}", why, "name another file.") from error
    with safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name).float() for name in found}
    refuse_not_finite(tensors, quote(path.name), "name another file.")
    network.load_state_dict({name: tensors[name] for name in expected}, assign=True)
    return network.requires_grad_(False).eval(), tensors


def _format(kind: str) -> str:
    return f"anydressing_{kind}"
