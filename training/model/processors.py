# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing on diffusers' U-Net: one frozen module plays both roles, GarmentsNet and DressingNet.

The role of a call travels in `cross_attention_kwargs`, never in a flag on the module: gradient checkpointing runs a
block again during the backward pass and must find the same role. `install` once, then call `garment_features` and
`dressed_prediction`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange
from torch import Tensor

from ...anydressing_core.dressing_attention import garment_attention
from ...anydressing_core.garment_kv import GarmentKV, scaled_dot_product
from ...anydressing_core.lora import grouped_lora
from ...anydressing_core.places import on_grid, word_maps
from ...anydressing_core.reference_attention import garment_bias, reference_attention
from ...anydressing_core.sites import AttentionSite, UNetShape
from ...anydressing_core.worn_queries import WornStates

Lora = tuple[Tensor, Tensor, Tensor]
"""Stacked for the garments of one call: down (N, rank, C), up (N, C, rank), scale (N,)."""


@dataclass(frozen=True)
class GarmentsRole:
    """GarmentsNet: add each garment's LoRA, silence text, keep features.

    loras: site key -> target (q, k, v, out) -> Lora; what is absent stays frozen. feature_tap: as in the file.
    features: filled by the call, site key -> (N, L_g, C).
    """

    loras: Mapping[str, Mapping[str, Lora]]
    feature_tap: str
    features: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadingRole:
    """The garment's pass of reference mode: the frozen U-Net as it is, whose keys and values are kept.

    sites: the keys of those that are. silent: whether cross-attention adds nothing. tokens: filled by the call, site key
    -> K_g and V_g, (G, L_g, C) each.
    """

    sites: frozenset[str]
    silent: bool
    tokens: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict[str, tuple[Tensor, Tensor]])


@dataclass(frozen=True)
class ReferenceStep:
    """What one call of the U-Net takes of reference mode.

    garments: site key -> K_g and V_g, where attention is joint. weights: w_k, (N,). places: (B, N, h, w), or None for
    everywhere. words: (B, N, C_text), looked for at the cross-attention of the site `probe`; None leaves that out. size:
    of the latent. looks: filled by the call, one (B, h_s, w_s, N).
    """

    garments: Mapping[str, GarmentKV]
    weights: Tensor
    places: Tensor | None
    words: Tensor | None
    probe: str
    size: tuple[int, int]
    looks: list[Tensor] = field(default_factory=list[Tensor])


@dataclass(frozen=True)
class DressingRole:
    """DressingNet: attend to the garments at every site.

    garments: site key -> K' and V', none without a file. strength: lambda. reference: what reference mode adds. worn: where
    garments are computed; None for everywhere. maps: filled by the call, site key -> A (B, L, N): of K' and V' where they were
    laid out with maps, else of the reference.
    """

    garments: Mapping[str, GarmentKV]
    strength: float
    reference: ReferenceStep | None = None
    worn: WornStates | None = None
    maps: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


Role = GarmentsRole | ReadingRole | DressingRole


class AllReadError(Exception):
    """All is read that a garment's pass is for: nothing behind it need be computed."""


def install(unet: UNet2DConditionModel) -> UNetShape:
    """Make every attention layer of the U-Net listen to roles; without one it computes exactly what it did before."""
    shape = UNetShape.from_diffusers(unet.config)
    for site in shape.sites:
        name = site.diffusers_name
        _attention(unet, name).set_processor(SiteProcessor(site, is_last=site == shape.sites[-1]))
        _attention(unet, name.removesuffix("1") + "2").set_processor(TextProcessor(site))
    return shape


def _attention(unet: UNet2DConditionModel, name: str) -> Any:
    """The attention layer of that name; diffusers types its processors by a closed list of its own."""
    return unet.get_submodule(name)


def garment_features(unet: UNet2DConditionModel, latents: Tensor, role: GarmentsRole) -> dict[str, Tensor]:
    """Run GarmentsNet once, all garments in parallel, at t = 0 (Sec. 4.1).

    latents: (N, 4, h, w), the VAE's mode, scaled. Returns site key -> (N, L_g, C). Without gradients it ends at the last site.
    """
    timestep = torch.zeros(latents.shape[0], dtype=torch.long, device=latents.device)
    text = latents.new_zeros(latents.shape[0], 1, unet.config["cross_attention_dim"])
    with contextlib.suppress(AllReadError):
        unet(latents, timestep, encoder_hidden_states=text, cross_attention_kwargs={"role": role})
    return role.features


def read_tokens(
    unet: UNet2DConditionModel, noisy: Tensor, timestep: int, text: Tensor, role: ReadingRole
) -> dict[str, tuple[Tensor, Tensor]]:
    """The garment's pass of reference mode, without gradients, up to the last site that is kept: K_g and V_g, (G, L_g, C)."""
    times = torch.full((len(noisy),), timestep, device=noisy.device)
    with contextlib.suppress(AllReadError), torch.no_grad():
        unet(noisy, times, encoder_hidden_states=text, cross_attention_kwargs={"role": role})
    return role.tokens


def dressed_prediction(
    unet: UNet2DConditionModel, latents: Tensor, timestep: Tensor, text: Tensor, role: DressingRole
) -> Tensor:
    """Predict the noise of dressed conditional rows: (B, 4, h, w). Unconditional rows take no role (Eq. 16)."""
    return unet(latents, timestep, encoder_hidden_states=text, cross_attention_kwargs={"role": role}).sample


class SiteProcessor:
    """Self-attention of one site, in the role that the call brings."""

    def __init__(self, site: AttentionSite, *, is_last: bool = False) -> None:
        self.site, self.is_last = site, is_last

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        role: Role | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is None
        assert attention_mask is None
        if isinstance(role, GarmentsRole):
            return self._encode_garments(attn, hidden_states, role)
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        if isinstance(role, DressingRole):
            return attn.to_out[0](self._dressed(query, key, value, attn.heads, role))
        if role is not None and self.site.key in role.sites:
            role.tokens[self.site.key] = (key, value)
            if len(role.tokens) == len(role.sites):
                raise AllReadError
        return attn.to_out[0](scaled_dot_product(query, key, value, attn.heads))

    def _dressed(self, query: Tensor, key: Tensor, value: Tensor, heads: int, role: DressingRole) -> Tensor:
        site, step, worn = self.site, role.reference, role.worn
        if step is not None and site.key in step.garments:
            places = None if step.places is None else on_grid(step.places, site.grid(*step.size))
            garments, bias = step.garments[site.key], garment_bias(step.weights, places)
            if worn is None:
                out, maps = reference_attention(query, key, value, garments, bias)
            else:
                out, maps = worn.reference.joint(site.key, query, key, value, garments, bias)
            role.maps[site.key] = maps
        else:
            out = scaled_dot_product(query, key, value, heads)
        if site.key in role.garments:
            garments = role.garments[site.key]
            if worn is None:
                term, maps = garment_attention(query, garments)
            else:
                term, maps = worn.trained.term(site.key, query, garments)
            out = out + role.strength * term
            if maps is not None:
                role.maps[site.key] = maps
        return out

    def _encode_garments(self, attn: Any, normed: Tensor, role: GarmentsRole) -> Tensor:
        loras = role.loras.get(self.site.key, {})

        def adapted(target: str, frozen: torch.nn.Module, x: Tensor) -> Tensor:
            if target not in loras:
                return frozen(x)
            down, up, scale = loras[target]
            return frozen(x) + grouped_lora(x, down.to(x), up.to(x), scale)

        taps_input = role.feature_tap == "attn_input"
        if taps_input:
            self._keep(normed, role)
        query, key, value = (adapted(name, getattr(attn, f"to_{name}"), normed) for name in "qkv")
        out = scaled_dot_product(query, key, value, attn.heads)
        if not taps_input:
            self._keep(out, role)
        return adapted("out", attn.to_out[0], out)

    def _keep(self, features: Tensor, role: GarmentsRole) -> None:
        role.features[self.site.key] = features
        if self.is_last and not torch.is_grad_enabled():  # a gradient would ask for the block as a whole
            raise AllReadError


class TextProcessor:
    """Cross-attention: nothing at all for GarmentsNet; where reference mode looks for its garments' words."""

    def __init__(self, site: AttentionSite) -> None:
        self.site = site

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        role: Role | None = None,
    ) -> Tensor:
        if isinstance(role, GarmentsRole) or (isinstance(role, ReadingRole) and role.silent):
            return torch.zeros_like(hidden_states)
        query, key, value = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        step = role.reference if isinstance(role, DressingRole) else None
        if step is not None and step.words is not None and self.site.key == step.probe:
            maps = word_maps(query, key, attn.to_k(step.words), attn.heads)
            step.looks.append(maps.unflatten(1, self.site.grid(*step.size)))
        query, key, value = (rearrange(x, "b l (h d) -> b h l d", h=attn.heads) for x in (query, key, value))
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attention_mask)
        return attn.to_out[0](rearrange(out, "b h l d -> b l (h d)"))
