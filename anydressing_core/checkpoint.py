# SPDX-License-Identifier: GPL-3.0-or-later
"""The AnyDressing file: one safetensors file with the trained tensors of every garment slot and attention site.

Names and shapes follow from the metadata alone, so they are compared with the header before any tensor is read. A file
holds exactly the expected tensors, all of one dtype and finite; it never holds a pickle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from .atomic_write import write_atomically
from .checkpoint_info import IDENTITY, CheckpointInfo, LoraTarget
from .digests import file_identity
from .refusals import quote, refusal
from .safetensors_header import Header, file_name, open_weights, read_header, read_tensors, refuse_not_finite


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The trained tensors of an AnyDressing file and what it says about itself.

    tensors: by their names in the file. Raises ValueError when they are not exactly the ones that `info` asks for.
    """

    info: CheckpointInfo
    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        layout = {name: (_dtype_name(tensor), tuple(tensor.shape)) for name, tensor in self.tensors.items()}
        _refuse_other_tensors(self.info, layout, "This checkpoint")

    def lora(self, slot: str, site_key: str) -> Mapping[LoraTarget, tuple[Tensor, Tensor]]:
        """The (down, up) pair of every projection that `slot` updates at a site; none at the last under `attn_input`.

        down: (rank, C). up: (C, rank). Raises ValueError for a slot that was not trained.
        """
        self._refuse_untrained(slot)
        if site_key == _site_without_lora(self.info):
            return {}
        pairs: dict[LoraTarget, tuple[Tensor, Tensor]] = {}
        for target in self.info.lora_targets:
            name = _lora_name(slot, site_key, target)
            pairs[target] = self.tensors[f"{name}.down.weight"], self.tensors[f"{name}.up.weight"]
        return pairs

    def scale(self, slot: str) -> float:
        """The factor alpha / rank of a slot's LoRA. Raises ValueError for a slot that was not trained."""
        self._refuse_untrained(slot)
        return self.info.alpha[slot] / self.info.rank[slot]

    def to_k(self, site_key: str) -> Tensor:
        """W_k' of a site, (C, C)."""
        return self.tensors[f"dressing.{site_key}.to_k.weight"]

    def to_v(self, site_key: str) -> Tensor:
        """W_v' of a site, (C, C)."""
        return self.tensors[f"dressing.{site_key}.to_v.weight"]

    def null(self, site_key: str) -> tuple[Tensor, Tensor] | None:
        """The null token's key (C,) and bias (1,) at a site; None when it was trained without."""
        if not self.info.null_token:
            return None
        return self.tensors[f"dressing.{site_key}.null_key"], self.tensors[f"dressing.{site_key}.null_bias"]

    @cached_property
    def identity(self) -> str:
        """The sha256 of metadata and tensors: equal content has an equal identity, in whatever order a file keeps it."""
        dtype = _dtype_name(next(iter(self.tensors.values())))  # of all of them
        return file_identity(self.info.to_metadata(), self.tensors, dtype)

    def _refuse_untrained(self, slot: str) -> None:
        if slot not in self.info.slots:
            trained = ", ".join(self.info.slots)
            why = f"It was trained for: {trained}."
            raise refusal(f"Slot {quote(slot)}", "is not in this AnyDressing file", why, "choose one of these slots.")


def expected_tensors(info: CheckpointInfo) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor that a file with this metadata holds."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = {site.key: site.channels for site in info.unet.sites}
    with_lora = [key for key in channels if key != _site_without_lora(info)]
    for slot, key, target in product(info.slots, with_lora, info.lora_targets):
        name, rank, width = _lora_name(slot, key, target), info.rank[slot], channels[key]
        shapes[f"{name}.down.weight"] = (rank, width)
        shapes[f"{name}.up.weight"] = (width, rank)
    for key, width in channels.items():
        shapes[f"dressing.{key}.to_k.weight"] = (width, width)
        shapes[f"dressing.{key}.to_v.weight"] = (width, width)
        if info.null_token:
            shapes[f"dressing.{key}.null_key"] = (width,)
            shapes[f"dressing.{key}.null_bias"] = (1,)
    return shapes


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a crash leaves the old file or the whole new one.

    Raises ValueError for values that are not finite and OSError when the disk refuses.
    """
    refuse_not_finite(checkpoint.tensors, "This checkpoint", _EARLIER)
    # Copies, because safetensors refuses tensors that overlap in memory; to us they are equal values, no more.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
    metadata = checkpoint.info.to_metadata() | {IDENTITY: _stated_identity(checkpoint)}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint onto the CPU, everything checked. Raises ValueError with the file's name.

    Metadata, names, shapes and dtype are checked from the header alone, and the content against the identity that the
    file states, if it does: files from before it was written do not.
    """
    with open_weights(path) as file:
        header, info = _read_description(file)
        name, tensors = file_name(file), read_tensors(file, header)
    refuse_not_finite(tensors, name, _EARLIER)
    checkpoint = Checkpoint(info, tensors)
    stated = header.metadata.get(IDENTITY)
    if stated is not None and stated != _stated_identity(checkpoint):
        why = "Its content is not what it was written with: bits were lost on the way, or somebody changed it."
        raise refusal(name, "is damaged", why, "download or copy it again.")
    return checkpoint


def read_info(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Read what a file says about itself, from its header alone. Raises ValueError as `load_checkpoint` does."""
    with open_weights(path) as file:
        return _read_description(file)[1]


def _read_description(file: BinaryIO) -> tuple[Header, CheckpointInfo]:
    header = read_header(file)
    name = file_name(file)
    info = CheckpointInfo.from_metadata(header.metadata, name)
    layout = {key: (entry.dtype, entry.shape) for key, entry in header.tensors.items()}
    _refuse_other_tensors(info, layout, name)
    return header, info


def _stated_identity(checkpoint: Checkpoint) -> str:
    """The identity that a file states: without entries of other programs, which may come and go."""
    if not checkpoint.info.extra:
        return checkpoint.identity  # computed once, and asked for again by whoever encodes with it
    return replace(checkpoint, info=replace(checkpoint.info, extra={})).identity


def _lora_name(slot: str, site_key: str, target: LoraTarget) -> str:
    return f"garments.{slot}.{site_key}.{target}"


def _site_without_lora(info: CheckpointInfo) -> str | None:
    """The last site under `attn_input`: its features are taken before its own LoRA acts, so nothing could train it."""
    return info.unet.sites[-1].key if info.feature_tap == "attn_input" else None


_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def _dtype_name(tensor: Tensor) -> str:
    return _DTYPES.get(tensor.dtype, str(tensor.dtype))


_UNFIT = "does not hold the tensors of an AnyDressing file"
_EARLIER = "use an earlier checkpoint of that run, or another file."
_EXPORT = "download it again, or ask its author to export it again with `anydressing export`."


def _refuse_other_tensors(info: CheckpointInfo, layout: Mapping[str, tuple[str, tuple[int, ...]]], source: str) -> None:
    """Refuse all but exactly the expected tensors. layout: the dtype and shape of each tensor, by name."""
    expected = expected_tensors(info)
    missing = [name for name in expected if name not in layout]
    unexpected = [name for name in layout if name not in expected]
    if missing or unexpected:
        found = [_some(missing, "missing"), _some(unexpected, "unexpected")]
        raise refusal(source, _UNFIT, " ".join(text for text in found if text), _EXPORT)
    for name, shape in expected.items():
        if layout[name][1] != shape:
            why = f"Tensor {name!r} has the shape {layout[name][1]}; its metadata asks for {shape}."
            raise refusal(source, _UNFIT, why, _EXPORT)
    dtypes = sorted({dtype for dtype, _ in layout.values()})
    if len(dtypes) != 1 or dtypes[0] not in _DTYPES.values():
        why = f"Its tensors are {' and '.join(dtypes)}; all must be F32, all F16 or all BF16."
        raise refusal(source, _UNFIT, why, _EXPORT)


def _some(names: Sequence[str], state: str) -> str:
    shown = ", ".join(quote(name) for name in sorted(names)[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {state}: {shown}{more}." if names else ""
