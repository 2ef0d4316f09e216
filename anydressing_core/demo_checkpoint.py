# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's base model: one safetensors file with a narrow SD1.5-type U-Net and its autoencoder.

The U-Net has an original checkpoint's names (`model.diffusion_model.`), the autoencoder TAESD's (`first_stage_model.`);
for text there is a seed, of which `word_table` makes the rest. Latents are SD1.5's: `vae_scale` and `vae_shift` are
such that 0.18215 times what the autoencoder gives is what the U-Net was trained on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .refusals import is_text, quote, refusal
from .safetensors_header import file_name, open_weights, read_header, read_tensors, refuse_not_finite
from .sites import SD15, UNetShape, parse_unet_config
from .word_table import WIDTH

FORMAT_ENTRY = "anydressing_base_format"
FORMAT_VERSION = "1"
LATENT_SCALE = 0.18215
"""By what SD1.5 multiplies its autoencoder's latents; ComfyUI does so in `process_latent_in`."""

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."


@dataclass(frozen=True)
class DemoInfo:
    """What the demo's base model says about itself.

    unet: its shape; every width a multiple of the first, for ComfyUI knows no other. word_table_seed: 0 or greater.
    facts: what else there is to tell, steps and data set among them; it has no effect.

    Raises ValueError for a U-Net that ComfyUI could not build and for what metadata cannot hold.
    """

    unet: UNetShape
    word_table_seed: int
    title: str
    licence: str
    facts: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        _refuse_other_shapes(self.unet, _THIS)
        texts = self.to_metadata()
        if self.word_table_seed < 0 or _KNOWN & set(self.facts):
            raise _unusable("Its word table's seed is negative, or a fact has a name that is taken.", _THIS)
        if not all(is_text(name) and is_text(text) for name, text in texts.items()):
            raise _unusable("It has an entry that is not text.", _THIS)

    def to_metadata(self) -> dict[str, str]:
        """Return the file's metadata."""
        return {
            "format": "pt",
            FORMAT_ENTRY: FORMAT_VERSION,
            "unet_config": json.dumps(self.unet.to_diffusers()),
            "latent_scale": str(LATENT_SCALE),
            "word_table_seed": str(self.word_table_seed),
            "title": self.title,
            "licence": self.licence,
            **dict(sorted(self.facts.items())),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> DemoInfo:
        """Read a file's metadata. Raises ValueError; `source` is what the message says was refused."""
        missing = [name for name in sorted(_KNOWN) if name not in metadata]
        if missing:
            raise _unusable(f"Its metadata has no entry {missing[0]!r}.", source)
        if metadata[FORMAT_ENTRY] != FORMAT_VERSION:
            why = f"Its {FORMAT_ENTRY!r} is {quote(metadata[FORMAT_ENTRY])}; this version reads '{FORMAT_VERSION}'."
            raise refusal(source, "has another format", why, "update ComfyUI-AnyDressing.")
        if metadata["latent_scale"] != str(LATENT_SCALE):
            raise _unusable(
                f"Its latent_scale is {quote(metadata['latent_scale'])}, but should be {LATENT_SCALE}.", source
            )
        if not re.fullmatch("[0-9]{1,18}", metadata["word_table_seed"]):
            raise _unusable(f"Its word_table_seed {quote(metadata['word_table_seed'])} is not a whole number.", source)
        try:
            unet = parse_unet_config(metadata["unet_config"])
        except ValueError as error:
            raise _unusable(f"Its U-Net is not described: {quote(str(error))}", source) from error
        _refuse_other_shapes(unet, source)
        return cls(
            unet,
            int(metadata["word_table_seed"]),
            metadata["title"],
            metadata["licence"],
            {name: text for name, text in metadata.items() if name not in _KNOWN},
        )


_THIS = "This description"
_KNOWN = {"format", FORMAT_ENTRY, "unet_config", "latent_scale", "word_table_seed", "title", "licence"}


def is_demo_checkpoint(metadata: Mapping[str, str]) -> bool:
    """Whether a file's metadata says that it is the demo's base model, of this or another version."""
    return FORMAT_ENTRY in metadata


def read_demo_checkpoint(path: str | os.PathLike[str]) -> tuple[DemoInfo, dict[str, Tensor]]:
    """Read the file: what it says about itself, and its tensors on the CPU under their keys in the file.

    Raises ValueError when it is no complete demo checkpoint; that every tensor is there is for the models to say.
    """
    with open_weights(path) as file:
        header, name = read_header(file), file_name(file)
        info = DemoInfo.from_metadata(header.metadata, name)
        tensors = read_tensors(file, header)
    refuse_not_finite(tensors, name, "install ComfyUI-AnyDressing again, or train the base model anew.")
    return info, tensors


def _refuse_other_shapes(unet: UNetShape, source: str) -> None:
    first = unet.block_channels[0]
    if any(width % 32 or width % first for width in unet.block_channels):
        raise _unusable(f"Its widths {unet.block_channels} are not multiples of 32 and of the first.", source)
    if (unet.mid_attention, unet.heads, unet.cross_attention_dim) != (True, SD15.heads, WIDTH):
        why = f"Its U-Net needs attention in the middle, {SD15.heads} heads and text {WIDTH} wide."
        raise _unusable(why, source)


def _unusable(why: str, source: str) -> ValueError:
    problem = "cannot be used as a demo checkpoint"
    return refusal(source, problem, why, "install ComfyUI-AnyDressing again, or write the file again.")
