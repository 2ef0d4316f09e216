# SPDX-License-Identifier: GPL-3.0-or-later
"""The ablation's arms: what each leaves out of AnyDressing, or does otherwise.

The paper's Table 3 builds up from Base: one reference pass that all garments share (+GFE: a LoRA and a pass for each
garment; +IGL: L_loc; +GTL: L_texture). With the paper's lambda2 = 0.001 L_perc and L_hf each pull some 400 times less
than L_LDM here; at 0.1 a quarter as hard. The other arms are places where it is silent or contradicts itself, and two yardsticks:
training-free, and garments pooled to a few tokens as IP-Adapter does with its image prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ...anydressing_core.garment_kv import GarmentKV
from ..model.adapter import Adapter
from ..model.dressing import DressingModel
from ..model.garment_tokens import Part
from ..model.outfits import Outfits
from ..model.processors import GarmentsRole, garment_features
from ..model.shared_reference import SharedReference

POOLED_TOKENS = 4


class PooledTokens(DressingModel):
    """Each garment as POOLED_TOKENS tokens, made from the means of its features: colours without places."""

    def __init__(self, unet: UNet2DConditionModel, adapter: Adapter) -> None:
        super().__init__(unet, adapter)
        channels = [site.channels for site in adapter.info.unet.sites]
        self.project = nn.ModuleDict(
            {str(width): nn.Linear(sum(channels), POOLED_TOKENS * width) for width in sorted(set(channels))}
        )

    def garments(self, outfits: Outfits, *, maps: bool = True) -> dict[str, GarmentKV]:
        """K' and V' of the pooled tokens."""
        with torch.no_grad():
            role = GarmentsRole({}, self.adapter.info.feature_tap)
            features = garment_features(self.unet, outfits.latents.to(self.unet.dtype), role)
            pooled = torch.cat([features[site.key].float().mean(1) for site in self.adapter.info.unet.sites], dim=1)
            pooled = functional.layer_norm(pooled, pooled.shape[1:])
        tokens = {
            width: rearrange(project(pooled), "g (t c) -> g t c", t=POOLED_TOKENS)
            for width, project in self.project.items()
        }
        normed = {
            site.key: functional.layer_norm(tokens[str(site.channels)], (site.channels,)).to(self.unet.dtype)
            for site in self.adapter.info.unet.sites
        }
        return self._laid_out([Part.whole(outfits, "all")], [normed], outfits, maps)


@dataclass(frozen=True)
class StudyArm:
    """settings: of `anydressing train`, by dotted name, beside those that all arms share. model: around the adapter.

    of: the arm whose weights it shows, for one that trains nothing itself. half: garments at half their size. strength:
    lambda of Eq. 6 while sampling. start: before the first step. mix: trained on the paper's own mix, in which one garment
    of a person is laid flat and the others are cut out of her. seeds: how many are wanted.
    """

    title: str
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    model: type[DressingModel] = DressingModel
    of: str | None = None
    half: bool = False
    strength: float = 1.0
    start: bool = False
    mix: bool = False
    seeds: int = 1


_LDM_ALONE = {"losses.localisation": 0.0, "losses.texture": 0.0}

ARMS: Mapping[str, StudyArm] = MappingProxyType(
    {
        "training-free": StudyArm("training-free", of="no_null", start=True),
        "faint": StudyArm("training-free, strength 0.2", of="no_null", start=True, strength=0.2),
        "pooled": StudyArm("pooled tokens, as IP-Adapter's", _LDM_ALONE, PooledTokens),
        "base": StudyArm("Base: one shared reference pass", _LDM_ALONE, SharedReference, seeds=3),
        "gfe": StudyArm("+GFE", _LDM_ALONE, seeds=3),
        "igl": StudyArm("+GFE+IGL", {"losses.texture": 0.0}, seeds=3),
        "full": StudyArm("+GFE+IGL+GTL", seeds=3),
        "texture": StudyArm("GTL with lambda2 = 0.1", {"losses.texture": 0.1}),
        "more_texture": StudyArm("GTL with lambda2 = 0.3", {"losses.texture": 0.3}),
        "attn_output": StudyArm("D1: features are attention's output", {"adapter.feature_tap": "attn_output"}),
        "no_null": StudyArm("D2: no null token", {"adapter.null_token": False}, seeds=3),
        "foreground": StudyArm("tokens of the garment alone", {"adapter.garment_tokens": "foreground"}),
        "cropped": StudyArm(
            "tokens of the garment alone, read without its ground", {"adapter.garment_tokens": "cropped"}
        ),
        "half": StudyArm("garments at half size", of="full", half=True),
        "strength": StudyArm("D8: strength 0.7", of="full", strength=0.7),
        "mix": StudyArm("the paper's own mix: one garment laid flat, the other cut out", mix=True),
        "mix_jitter": StudyArm("the paper's mix, cut-out garments jittered", {"data.crop_jitter": 1.0}, mix=True),
        "mse": StudyArm(
            "D6: L_loc and L_hf as mean squares",
            {"losses.localisation_reduction": "mse", "losses.high_frequency_reduction": "mse"},
        ),
    }
)
"""By name, in the order of the page."""


def arm_tensors(model: DressingModel, trained: Mapping[str, Tensor]) -> None:
    """Put a run's trained tensors, named as the loop names them, into a model of the same arm."""
    missing = set(trained) - set(model.state_dict())
    assert not missing, missing
    model.load_state_dict({**model.state_dict(), **trained})
