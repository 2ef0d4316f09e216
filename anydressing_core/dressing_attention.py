# SPDX-License-Identifier: GPL-3.0-or-later
"""Dressing-Attention: self-attention plus attention to every garment's tokens (Eq. 6-8), in one product per term.

    Z_new = softmax(Q K^T / sqrt d) V  +  strength * softmax(Q K'^T / sqrt d) V'

K' and V' hold all garments' tokens one after another, so one softmax runs over all of them. A region mask adds
30 (m_k - 1) to the logits of garment k's tokens.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor
from torch.nn import functional

from .garment_kv import Attend, GarmentKV, scaled_dot_product, split_heads, whose, widen_query

REGION_BIAS = 30.0
"""What a pixel outside a garment's region subtracts from that garment's logits; exp(-30) is 1e-13."""


def garment_attention(
    query: Tensor,
    garments: GarmentKV,
    *,
    regions: Tensor | None = None,
    attend: Attend = scaled_dot_product,
) -> tuple[Tensor, Tensor | None]:
    """The second term of Eq. 6 without its strength, and the maps A_k (Eq. 7-8).

    query: (B, L, C), projected by the frozen W_q. regions: (B or 1, L, N) in [0, 1], garment k's region mask on the
    site's grid; given exactly when `garments` was laid out with biases. Outside every region the term is zero.
    Returns the term (B, L, C), before the output projection, and A (B, L, N) averaged over heads in fp32, or None
    when `garments` was laid out without maps.
    """
    columns, heads = garments.columns, garments.heads
    batch = query.shape[0]
    key, value = garments.key.expand(batch, -1, -1), garments.value.expand(batch, -1, -1)
    out = attend(widen_query(query, garments, _region_bias(regions)), key, value, heads)
    if not columns.widened:
        return out, None
    out = split_heads(out, heads)
    term = rearrange(out[..., : columns.dim], "b l h d -> b l (h d)")
    if regions is not None:
        # A bias shared by all keys cancels in the softmax, so the bias alone chooses between garments, never none.
        term = term * regions.amax(dim=-1, keepdim=True).to(term)
    if not columns.maps:
        return term, None
    return term, out[..., [columns.dim + column for column in garments.owners]].float().mean(dim=2)


def attention_maps(
    query: Tensor, garments: GarmentKV, *, regions: Tensor | None = None, attend: Attend = scaled_dot_product
) -> Tensor:
    """A_k (Eq. 7-8) of garments that were laid out without maps, by a call of its own: (B, L, N), mean over heads.

    The arguments are those of `garment_attention`. Outside every region nothing is worn: there all maps are 0.
    """
    columns, heads, counts = garments.columns, garments.heads, garments.counts
    indicator = whose(counts, query)  # -> (M, N)
    null = garments.key.shape[1] - len(indicator)  # the null token belongs to no garment
    assert len(counts) <= columns.width
    indicator = functional.pad(indicator, (0, columns.width - len(counts), 0, null))
    value = indicator.repeat(1, heads)[None].expand(query.shape[0], -1, -1)
    query = widen_query(query, garments, _region_bias(regions))
    out = attend(query, garments.key.expand(query.shape[0], -1, -1), value, heads)
    maps = split_heads(out, heads)[..., : len(counts)].float().mean(dim=2)
    return maps if regions is None else maps * regions.amax(dim=-1, keepdim=True).to(maps)


def dressing_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    garments: GarmentKV,
    strength: float | Tensor,
    *,
    regions: Tensor | None = None,
    attend: Attend = scaled_dot_product,
) -> tuple[Tensor, Tensor | None]:
    """Self-attention plus `strength` times attention to all garments (Eq. 6), and the maps A_k (Eq. 7-8).

    query, key, value: (B, L, C), projected by the frozen W_q, W_k, W_v. strength: lambda. The rest and the result as
    in `garment_attention`.
    """
    term, maps = garment_attention(query, garments, regions=regions, attend=attend)
    return attend(query, key, value, garments.heads) + strength * term, maps


def _region_bias(regions: Tensor | None) -> Tensor | None:
    return None if regions is None else (regions.float() - 1) * REGION_BIAS
