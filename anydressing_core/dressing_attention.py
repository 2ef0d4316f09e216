# SPDX-License-Identifier: GPL-3.0-or-later
"""Dressing-Attention: self-attention plus attention to every garment's tokens (Eq. 6-8), in one product per term.

    Z_new = softmax(Q K^T / sqrt d) V  +  strength * softmax(Q K'^T / sqrt d) V'

K' and V' hold all garments' tokens one after another, so one softmax runs over all of them. Three things ride in that
same call, in spare columns of each head, so that no mask tensor is needed and the fast kernels stay usable:

    null token     one learned key with a zero value and the logit  q . k0 / sqrt d + b + log M,  by which a pixel may
                   attend to no garment; its bias sits in two columns, a high and a low part, so that bf16 keeps it
    token mask     the same two columns take tokens out: garments that a row lacks, and filling
    region masks   one column per garment that adds 30 (m_k - 1) to the logits of garment k's tokens
    maps           one column of V' per garment that is 1 for its own tokens, so that A_k comes out beside the result
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(query (B, L, H*d), key (B, M, H*d), value (B, M, H*d), heads H) -> (B, L, H*d), logits divided by sqrt d."""

REGION_BIAS = 30.0
"""What a pixel outside a garment's region subtracts from that garment's logits; exp(-30) is 1e-13."""

ABSENT_BIAS = -1e3
"""What takes a token out of the softmax: exp(-1000) is 0 in every dtype, and fp16 holds it times sqrt d'."""


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """PyTorch's attention in the layout of `Attend`."""
    query, key, value = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (query, key, value))
    return rearrange(functional.scaled_dot_product_attention(query, key, value), "b h l d -> b l (h d)")


@dataclass(frozen=True)
class Columns:
    """Which spare columns the heads of K' and V' carry.

    dim: d, a head's own width. garments: N. null, masked, regions, maps: what rides along, see the module's first lines.
    """

    dim: int
    garments: int
    null: bool = False
    masked: bool = False
    regions: bool = False
    maps: bool = False

    @property
    def bias(self) -> int:
        """How many columns carry a bias for each key: a high and a low part, or none."""
        return 2 if self.null or self.masked else 0

    @property
    def width(self) -> int:
        """d', the head width of the call: d itself without spare columns, else the next multiple of eight."""
        spare = max(self.bias + self.garments * self.regions, self.garments * self.maps)
        return math.ceil((self.dim + spare) / 8) * 8 if spare else self.dim

    @property
    def widened(self) -> bool:
        return self.width != self.dim


@dataclass(frozen=True)
class GarmentKV:
    """K' and V' of all garments at one site, laid out for one attention call.

    key, value: (B or 1, M, H*d'), or M + 1 tokens with the null token last. counts: tokens of each garment.
    null_bias: b, (1,), present exactly when `columns.null`. owned: which of the N columns for regions and maps belongs
    to each garment, in order; None when it is the k-th for garment k.
    """

    key: Tensor
    value: Tensor
    counts: tuple[int, ...]
    heads: int
    columns: Columns
    null_bias: Tensor | None = None
    owned: tuple[int, ...] | None = None

    def select(self, garments: Sequence[int]) -> GarmentKV:
        """Keep some garments, in their order; the others leave the softmax as if they had never been in it.

        Not for a masked layout, whose rows have different numbers of tokens.
        """
        assert not self.columns.masked
        if tuple(garments) == tuple(range(len(self.counts))):
            return self
        starts = [sum(self.counts[:index]) for index in range(len(self.counts))]
        kept = [slice(starts[index], starts[index] + self.counts[index]) for index in garments]
        keys, values = [self.key[:, span] for span in kept], [self.value[:, span] for span in kept]
        counts = tuple(self.counts[index] for index in garments)
        if self.null_bias is not None:
            null_key = _heads(self.key[:, -1:], self.heads)[..., : self.columns.dim]
            keys.append(_null_token(null_key, self.null_bias, sum(counts), self.columns))
            values.append(self.value[:, -1:])
        owned = tuple(garments) if self.owned is None else tuple(self.owned[index] for index in garments)
        return replace(self, key=torch.cat(keys, dim=1), value=torch.cat(values, dim=1), counts=counts, owned=owned)


def project_garment(features: Tensor, to_k: Tensor, to_v: Tensor) -> tuple[Tensor, Tensor]:
    """K' = F W_k' and V' = F W_v' of one garment.

    features: (1, L_g, C). to_k, to_v: (C, C), stored as `torch.nn.Linear` does. Returns two (1, L_g, C).
    """
    return functional.linear(features, to_k), functional.linear(features, to_v)


def garment_kv(
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    heads: int,
    *,
    weights: Sequence[float] | None = None,
    null: tuple[Tensor, Tensor] | None = None,
    token_mask: Tensor | None = None,
    regions: bool = False,
    maps: bool = False,
) -> GarmentKV:
    """Lay out K' and V' of N garments for attention.

    keys, values: per garment (B or 1, M_k, C), C = H*d. weights: per garment, scales its V' (0 removes its picture
    but not its share of the softmax). null: (k0 (C,), b (1,)), see the module's first lines. token_mask: (B, M) bool,
    False where a row has no such token; every row keeps at least one. regions: the calls will bring region masks.
    maps: the calls will ask for A_k.
    """
    counts = tuple(key.shape[1] for key in keys)
    masked = token_mask is not None
    columns = Columns(keys[0].shape[-1] // heads, len(counts), null is not None, masked, regions, maps)
    if weights is not None:
        values = [value * weight for value, weight in zip(values, weights, strict=True)]
    if not columns.widened:
        return GarmentKV(torch.cat(list(keys), dim=1), torch.cat(list(values), dim=1), counts, heads, columns)

    key = _heads(torch.cat(list(keys), dim=1), heads)  # -> (B, M, H, d)
    value = _heads(torch.cat(list(values), dim=1), heads)
    owner = torch.arange(len(counts), device=key.device)
    owner = owner.repeat_interleave(torch.tensor(counts, device=key.device), output_size=sum(counts))
    indicator = functional.one_hot(owner, len(counts)).to(key)[None, :, None, :]  # -> (1, M, 1, N)
    key = _widen(key, columns, indicator if regions else None, offset=columns.bias)
    value = _widen(value, columns, indicator if maps else None)
    if token_mask is not None:
        key = key.expand(token_mask.shape[0], -1, -1, -1).clone()
        key[..., columns.dim] = (~token_mask[:, :, None]).to(key) * (ABSENT_BIAS * math.sqrt(columns.width))
    key, value = rearrange(key, "b m h d -> b m (h d)"), rearrange(value, "b m h d -> b m (h d)")
    if null is None:
        return GarmentKV(key, value, counts, heads, columns)
    null_key, null_bias = null
    tokens = sum(counts) if token_mask is None else token_mask.sum(dim=1)
    null_row = _null_token(_heads(null_key[None, None].to(key), heads), null_bias, tokens, columns)
    key = torch.cat([key, null_row.expand(key.shape[0], -1, -1)], dim=1)
    value = torch.cat([value, torch.zeros_like(value[:, :1])], dim=1)
    return GarmentKV(key, value, counts, heads, columns, null_bias)


def garment_attention(
    query: Tensor, garments: GarmentKV, *, regions: Tensor | None = None, attend: Attend = scaled_dot_product
) -> tuple[Tensor, Tensor | None]:
    """The second term of Eq. 6 without its strength, and the maps A_k (Eq. 7-8).

    query: (B, L, C), projected by the frozen W_q. regions: (B or 1, L, N) in [0, 1], garment k's region mask on the
    site's grid; given exactly when `garments` was laid out with regions. Outside every region the term is zero.
    Returns the term (B, L, C), before the output projection, and A (B, L, N) averaged over heads in fp32, or None
    when `garments` was laid out without maps.
    """
    columns, heads = garments.columns, garments.heads
    assert (regions is not None) == columns.regions
    batch = query.shape[0]
    key, value = garments.key.expand(batch, -1, -1), garments.value.expand(batch, -1, -1)
    if not columns.widened:
        return attend(query, key, value, heads), None

    owned = list(garments.owned or range(len(garments.counts)))
    wide = None if regions is None else _in_columns(regions, owned, columns.garments)
    out = _heads(attend(_widen_query(query, heads, columns, wide), key, value, heads), heads)
    term = rearrange(out[..., : columns.dim], "b l h d -> b l (h d)")
    if regions is not None:
        # A bias shared by all keys cancels in the softmax, so the bias alone chooses between garments, never none.
        term = term * regions.amax(dim=-1, keepdim=True).to(term)
    if not columns.maps:
        return term, None
    return term, out[..., [columns.dim + column for column in owned]].float().mean(dim=2)


def attention_maps(
    query: Tensor, garments: GarmentKV, *, regions: Tensor | None = None, attend: Attend = scaled_dot_product
) -> Tensor:
    """A_k (Eq. 7-8) of garments that were laid out without maps, by a call of its own: (B, L, N), mean over heads.

    The arguments are those of `garment_attention`. Outside every region nothing is worn: there all maps are 0.
    """
    columns, heads, counts = garments.columns, garments.heads, garments.counts
    tokens = torch.arange(len(counts), device=query.device).repeat_interleave(
        torch.tensor(counts, device=query.device), output_size=sum(counts)
    )
    indicator = functional.one_hot(tokens, len(counts)).to(query)  # -> (M, N)
    null = garments.key.shape[1] - len(indicator)  # the null token belongs to no garment
    assert len(counts) <= columns.width
    indicator = functional.pad(indicator, (0, columns.width - len(counts), 0, null))
    value = indicator.repeat(1, heads)[None].expand(query.shape[0], -1, -1)
    owned = list(garments.owned or range(len(counts)))
    wide = None if regions is None else _in_columns(regions, owned, columns.garments)
    if columns.widened:
        query = _widen_query(query, heads, columns, wide)
    out = attend(query, garments.key.expand(query.shape[0], -1, -1), value, heads)
    maps = _heads(out, heads)[..., : len(counts)].float().mean(dim=2)
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


def _heads(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "b l (h d) -> b l h d", h=heads)


def _widen(x: Tensor, columns: Columns, extra: Tensor | None, offset: int = 0) -> Tensor:
    """Append the spare columns to (B, M, H, d): zeros, with `extra` (1, M, 1, N) standing `offset` columns in."""
    spare = columns.width - columns.dim
    if extra is None:
        return functional.pad(x, (0, spare))
    extra = functional.pad(extra, (offset, spare - offset - extra.shape[-1]))
    return torch.cat([x, extra.expand(*x.shape[:-1], -1)], dim=-1)


def _in_columns(regions: Tensor, owned: Sequence[int], columns: int) -> Tensor:
    """Put each garment's mask (B, L, N) into the column that is its own, of `columns`; nobody owns the others."""
    wide = regions.new_ones(*regions.shape[:-1], columns)
    wide[..., list(owned)] = regions
    return wide


def _widen_query(query: Tensor, heads: int, columns: Columns, regions: Tensor | None) -> Tensor:
    """Append the query's side of the bias columns; what `attend` divides by sqrt d' must equal a division by sqrt d."""
    width = columns.width
    q = _heads(query, heads) * math.sqrt(width / columns.dim)
    spare: list[Tensor] = []
    if columns.bias:
        spare.append(q.new_ones(1, q.shape[1], 1, 2))
    if regions is not None:
        spare.append(((regions.float() - 1) * (REGION_BIAS * math.sqrt(width))).to(q)[:, :, None, :])
    spare = [part.expand(*q.shape[:-1], -1) for part in spare]
    wide = torch.cat([q, *spare], dim=-1)
    return rearrange(functional.pad(wide, (0, width - wide.shape[-1])), "b l h d -> b l (h d)")


def _null_token(null_key: Tensor, null_bias: Tensor, tokens: int | Tensor, columns: Columns) -> Tensor:
    """The null token's row of K': (B or 1, 1, H*d') from k0 (1, 1, H, d), b (1,) and M, one for all rows or (B,).

    log M keeps its share of the softmax, and so its gradient, whatever the number of garment tokens.
    """
    share = math.log(tokens) if isinstance(tokens, int) else tokens.to(null_bias).log()
    bias = (null_bias.float() + share) * math.sqrt(columns.width)  # -> (1,) or (B,)
    high = bias.detach().to(null_key.dtype)
    low = (bias - high.float()).to(null_key.dtype)
    spare = functional.pad(torch.stack([high, low], dim=-1), (0, columns.width - columns.dim - 2))[:, None, None, :]
    batch, heads = spare.shape[0], null_key.shape[2]
    row = torch.cat([null_key.expand(batch, -1, -1, -1), spare.expand(-1, -1, heads, -1)], dim=-1)
    return rearrange(row, "b m h d -> b m (h d)")
