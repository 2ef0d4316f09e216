# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Attention Maps: where in a picture each garment went, and how much garments share the same places.

The finished picture's latent is noised to a few levels and shown to the dressed MODEL once at each; A_k is the mean over
these levels and over all sites, as L_loc averages it (Eq. 15).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy_api.latest import io, ui
from torch import Tensor
from torch.nn import functional

from ..anydressing_core.heat_maps import COLOUR_NAMES, COLOURS, colours_of, confusion, overlay
from ..anydressing_core.pixels import as_unit, bytes_of
from ..anydressing_core.refusals import refusal
from .attention_patch import Dressing, dressings_of, record_maps
from .inputs import require_conditioning, require_latent, require_model
from .loader import COMMON_SLOTS
from .notes import tell
from .pictures import require_image
from .types import CATEGORY, SEARCH_ALIASES

LEVELS = (0.1, 0.3, 0.5, 0.7)
"""At which noise the picture is shown, as fractions of the sampling: 0 is pure noise, 1 the finished picture."""

SEED = 0  # of that noise


class AnyDressingAttentionMaps(io.ComfyNode):
    """Show where each garment of a dressed MODEL went."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnyDressingAttentionMaps",
            display_name="AnyDressing Attention Maps",
            category=CATEGORY,
            description="Shows where in a finished picture each garment went, as a veil of its colour, and how much the "
            "garments share the same places. Use it when garments bleed into each other.",
            search_aliases=[*SEARCH_ALIASES, "heat map", "debug"],
            is_output_node=True,  # it shows its overlay itself
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL from AnyDressing Apply."),
                io.Conditioning.Input("positive", tooltip="The positive prompt that the picture was made with."),
                io.Latent.Input("samples", tooltip="The finished picture, from the sampler."),
                io.Image.Input("image", tooltip="The same picture, decoded. The veils are laid over it."),
            ],
            outputs=[
                io.Image.Output(display_name="overlay", tooltip="The picture in grey, under each garment's colour."),
                io.Mask.Output(display_name="maps", tooltip="One mask for each garment, 1 where it went."),
                io.Float.Output(
                    display_name="confusion",
                    tooltip="0: every place looks at one garment. 0.5: at two garments alike.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model: Any, positive: Any, samples: dict[str, Any], image: Tensor) -> io.NodeOutput:
        require_model(model)
        require_conditioning("positive", positive)
        require_latent("samples", samples)
        latent = samples["samples"]
        require_image("image", image)
        if latent.ndim != 4 or len(image) != len(latent):
            raise refusal(
                "image:",
                f"{len(image)} pictures came with {len(latent)} latents",
                "The veils of a latent belong on its own picture.",
                "connect the VAE Decode of the same latent.",
            )
        record = _Record(dressings_of(model), len(latent), (latent.shape[-2], latent.shape[-1]))
        if record.dressings:
            _show(record_maps(model, record), positive, latent)
        maps = record.maps()  # -> (B, N, h, w)
        colours = colours_of(record.slots, COMMON_SLOTS)
        sheet = torch.stack([_veiled(picture, one, colours) for picture, one in zip(image, maps, strict=True)])
        height, width = image.shape[1:3]
        masks = functional.interpolate(maps, (height, width), mode="bilinear").flatten(0, 1).clamp(0, 1)
        score = confusion(maps.transpose(0, 1))
        text = _words(record.slots, colours, maps, score)
        tell(cls, text)
        preview = ui.PreviewImage(sheet, cls=cls).as_dict() | {"text": (text,)}
        return io.NodeOutput(sheet, masks, score, ui=preview)


@dataclass
class _Record:
    """Adds up A_k. dressings: of the MODEL, one for each Apply. batch, size: of the latent."""

    dressings: Sequence[Dressing]
    batch: int
    size: tuple[int, int]
    seen: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict[tuple[int, int], list[Tensor]])

    @property
    def slots(self) -> list[str]:
        """Every garment's slot, in the order of the maps."""
        return [slot for dressing in self.dressings for slot in dressing.slots]

    def __call__(self, dressing: Dressing, active: list[int], maps: Tensor, size: tuple[int, int]) -> None:
        """Add a site's maps (B, h, w, N) of the garments that take part; several prompts count alike. size: of the latent
        that they are of.
        """
        if size != self.size:
            raise refusal(
                "positive:",
                "a prompt covers only an area of the picture, so it cannot be mapped",
                "Each such prompt sees a piece of the picture, and the pieces would lie over one another.",
                "connect a prompt without Set Area.",
            )
        maps = maps.unflatten(0, (-1, self.batch)).float().mean(dim=0).movedim(-1, 1).cpu()  # -> (B, N, h, w)
        fine = functional.interpolate(maps, self.size, mode="bilinear")
        place = next(index for index, one in enumerate(self.dressings) if one is dressing)
        for column, garment in enumerate(active):
            self.seen.setdefault((place, garment), []).append(fine[:, column])

    def maps(self) -> Tensor:
        """The means over sites and levels of noise: (B, N, h, w); 0 for a garment that was never worn.

        A MODEL that wears nothing has one empty map, so that whoever reads them finds one.
        """
        keys = [(place, index) for place, one in enumerate(self.dressings) for index in range(len(one.slots))]
        never = [torch.zeros(self.batch, *self.size)]
        means = [torch.stack(self.seen.get(key, never)).mean(dim=0) for key in keys]
        return torch.stack(means or never, dim=1)


def _show(model: Any, positive: Any, latent: Tensor) -> None:
    """Show the noised latent to a MODEL, through ComfyUI's own sampling, so that prompts and ControlNets take part."""

    def look(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, **_: Any) -> Tensor:
        for sigma in sigmas:
            model(model.latent_image + model.noise * sigma, sigma * x.new_ones(len(x)), **extra_args)
        return model.latent_image

    sampling = model.get_model_object("model_sampling")
    sigmas = torch.tensor([sampling.percent_to_sigma(level) for level in LEVELS])
    noise, sampler = comfy.sample.prepare_noise(latent, SEED), comfy.samplers.KSAMPLER(look)
    comfy.sample.sample_custom(model, noise, 1.0, sampler, sigmas, positive, [], latent, seed=SEED, disable_pbar=True)


def _veiled(picture: Tensor, maps: Tensor, colours: Sequence[int]) -> Tensor:
    """One picture (H, W, 3) in [0, 1] in grey under its maps (N, h, w)."""
    grey = (picture[..., :3].float().cpu() @ torch.tensor([0.299, 0.587, 0.114]))[..., None].expand(-1, -1, 3)
    pixels = bytes_of(grey)
    tints = [COLOURS[index] for index in colours] or COLOURS
    return as_unit(overlay(pixels, maps, tints)).movedim(0, -1)


def _words(slots: Sequence[str], colours: Sequence[int], maps: Tensor, score: float) -> str:
    """The legend and the score, or why there is nothing to see."""
    if not slots:
        return (
            "nothing is worn: this MODEL comes from no AnyDressing Apply, or strength, weights or ranges leave nothing."
        )
    if not maps.any():
        return "nothing is worn where this node looks: the ranges leave out 0.1 to 0.7 of the sampling."
    named = [f"{slot}: {COLOUR_NAMES[colour]}" for slot, colour in zip(slots, colours, strict=True)]
    return f"{', '.join(named)}; confusion {score:.2f}"
