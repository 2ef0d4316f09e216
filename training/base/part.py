# SPDX-License-Identifier: GPL-3.0-or-later
"""A network that a file holds: compared by names and shapes while it has no memory yet, then filled.

The header is checked and every name and shape is compared before a tensor is read; whatever does not fit is refused
with three lines: what, why, what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ...anydressing_core.refusals import quote, reason_of, refusal
from ...anydressing_core.safetensors_header import Header, read_header
from ..text_files import read_text

SD15_INSTEAD = "choose an SD1.5 checkpoint."


@dataclass(frozen=True)
class Part:
    """One network's weights inside a file.

    name: how messages call it. shapes: the shape by the tensor's name, without the file's prefix for this network.
    prefix: joined before a name it gives the tensor's key in the file.
    """

    name: str
    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    prefix: str = ""

    def width(self, name: str, axis: int = 0) -> int:
        """The length of a tensor along an axis; 0 where there is none, or one that no network has."""
        shape = self.shapes.get(name, ())
        return shape[axis] if axis < len(shape) and shape[axis] < 1 << 16 else 0

    def refuse(self, problem: str, why: str, remedy: str = "choose another checkpoint.") -> ValueError:
        """The error that refuses the file this part comes from; in a folder every network has its own."""
        name = self.path.name if self.prefix else f"{self.path.parent.name}/{self.path.name}"
        return refusal(quote(name), problem, why, remedy)


@dataclass(frozen=True)
class Module:
    """A network without memory (on the meta device), and the key in the file of every tensor it wants."""

    network: Any
    part: Part
    keys: Mapping[str, str]

    @property
    def path(self) -> Path:
        """The file that its weights lie in."""
        return self.part.path

    def load(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """Read the network's tensors, one at a time; the result is frozen and in eval mode."""
        weights: dict[str, Tensor] = {}
        with safe_open(self.path, framework="pt") as file:
            for name, target in self.network.state_dict().items():
                tensor = file.get_tensor(self.keys[name]).reshape(target.shape)
                if not torch.isfinite(tensor).all():
                    why = (
                        f"{quote(self.keys[name])} holds NaN or infinity; the file was damaged or its training failed."
                    )
                    raise self.part.refuse("cannot be used", why, "download it again, or choose another checkpoint.")
                # A copy always: what safetensors returns lies in the file, which may change while we train.
                weights[name] = tensor.to(device, dtype, copy=True)
        return filled(self.network, weights)


def filled(network: Any, weights: Mapping[str, Tensor]) -> Any:
    """Give a network without memory its weights; the result is frozen and in eval mode."""
    network.load_state_dict(weights, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def checked_header(path: Path) -> Header:
    """Read a weights file's header. Raises ValueError for other kinds of files and for eight-bit floats."""
    if path.exists() and path.suffix.lower() != ".safetensors":
        why = "Checkpoints of other kinds (.ckpt, .pt, .bin) can run programs when they are opened."
        remedy = "use the .safetensors version of this model; most model pages offer one."
        raise refusal(quote(path.name), "is not a .safetensors file", why, remedy)
    try:
        return read_header(path)
    except ValueError as error:
        if "unknown dtype 'F8_" not in str(error):
            raise
        why = "Training needs the weights as they were, not rounded to eight bits."
        remedy = "use the 16-bit or 32-bit version of this model."
        raise refusal(quote(path.name), "is stored in 8-bit floats", why, remedy) from error


def part_below(prefix: str, path: Path, shapes: Mapping[str, tuple[int, ...]], name: str) -> Part:
    """The network whose tensors in a file begin with `prefix`."""
    below = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    return Part(name, path, below, prefix)


def part_in_folder(folder: Path, subfolder: str, name: str) -> Part:
    """The network in a subfolder of a diffusers folder. Raises ValueError when there is no safetensors file in it."""
    for stem in ("diffusion_pytorch_model", "model"):
        for variant in ("", ".fp16"):
            path = folder / subfolder / f"{stem}{variant}.safetensors"
            if path.is_file():
                return Part(name, path, {key: entry.shape for key, entry in checked_header(path).tensors.items()})
    why = f"{subfolder}/ holds no .safetensors weights; .bin files can run programs when they are opened."
    remedy = "download the model with its safetensors files, or save it again with save_pretrained."
    raise refusal(quote(folder.name), f"has no {name} that can be loaded", why, remedy)


def config_beside(part: Part) -> dict[str, Any]:
    """The configuration that a diffusers folder keeps beside a network's weights."""
    return read_json(part.path.with_name("config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; any other JSON counts as an empty one. Raises ValueError for what is not JSON."""
    name = quote(f"{path.parent.name}/{path.name}")
    try:
        text = read_text(path, name)
    except OSError as error:
        raise refusal(name, "cannot be read", f"{reason_of(error)}.", "copy it again.") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refusal(name, "cannot be read", "It is not readable JSON.", "copy it again.") from error
    return content if isinstance(content, dict) else {}


def matched(network: Any, part: Part, name_in_file: Callable[[str], str]) -> Module:
    """Find every tensor of the network in the part; raise ValueError for what is missing, left over or misshapen."""
    wanted = {name: (name_in_file(name), tuple(tensor.shape)) for name, tensor in network.state_dict().items()}
    keys = {name: part.prefix + key for name, (key, _) in wanted.items()}
    again = "download it again; if that changes nothing, choose another checkpoint."
    for key, shape in wanted.values():
        found = part.shapes.get(key)
        if found is None:
            why = f"{quote(part.prefix + key)} is missing."
            raise part.refuse(f"lacks weights that an SD1.5 {part.name} has", why, again)
        if _plain(found) != _plain(shape):
            why = f"{quote(part.prefix + key)} has the shape {found}; {shape} fits the rest."
            raise part.refuse(f"has misshapen weights in its {part.name}", why, again)
    foreign = sorted(set(part.shapes) - {key for key, _ in wanted.values()})
    if foreign:
        why = f"{quote(part.prefix + foreign[0])} has no place there; {len(foreign)} tensors are too many."
        raise part.refuse(f"has weights that an SD1.5 {part.name} does not have", why, SD15_INSTEAD)
    return Module(network, part, keys)


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the trailing ones with which a 1 x 1 convolution differs from a matrix."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def run_of_widths(name: Callable[[int], str], part: Part) -> list[int]:
    """The widths of layers 0, 1, 2 ... as far as the part has them."""
    widths: list[int] = []
    while width := part.width(name(len(widths))):
        widths.append(width)
    return widths
