# SPDX-License-Identifier: GPL-3.0-or-later
"""K' and V' of all garments at one site, laid out for one attention call in which no mask tensor is needed.

Four things ride in that call, in spare columns of each head, so that the fast kernels stay usable:

    null token     one learned key with a zero value and the logit  q . k0 / sqrt d + b + log M,  by which a pixel may
                   attend to no garment; its bias sits in two columns, a high and a low part, so that bf16 keeps it
    token mask     the same two columns take tokens out: garments that a row lacks, and filling
    biases         one column per garment, by which each pixel adds a number of its own to the logits of garment k's tokens
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

ABSENT_BIAS = -1e3
"""What takes a token out of the softmax: exp(-1000) is 0 in every dtype, and fp16 holds it times sqrt d'."""


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """PyTorch's attention in the layout of `Attend`."""
    query, key, value = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (query, key, value))
    return rearrange(functional.scaled_dot_product_attention(query, key, value), "b h l d -> b l (h d)")


@dataclass(frozen=True)
class Columns:
    """Which spare columns the heads of K' and V' carry.

    dim: d, a head's own width. garments: N. null, masked, biased, maps: what rides along, see the module's first lines.
    """

    dim: int
    garments: int
    null: bool = False
    masked: bool = False
    biased: bool = False
    maps: bool = False

    @property
    def bias(self) -> int:
        """How many columns carry a bias for each key: a high and a low part, or none."""
        return 2 if self.null or self.masked else 0

    @property
    def width(self) -> int:
        """d', the head width of the call: d itself without spare columns, else the next multiple of eight."""
        spare = max(self.bias + self.garments * self.biased, self.garments * self.maps)
        return math.ceil((self.dim + spare) / 8) * 8 if spare else self.dim

    @property
    def widened(self) -> bool:
        return self.width != self.dim


@dataclass(frozen=True)
class GarmentKV:
    """K' and V' of all garments at one site, laid out for one attention call.

    key, value: (B or 1, M, H*d'), or M + 1 tokens with the null token last. counts: tokens of each garment.
    null_bias: b, (1,), present exactly when `columns.null`. owned: which of the N columns for biases and maps belongs
    to each garment, in order; None when it is the k-th for garment k.
    """

    key: Tensor
    value: Tensor
    counts: tuple[int, ...]
    heads: int
    columns: Columns
    null_bias: Tensor | None = None
    owned: tuple[int, ...] | None = None

    @property
    def owners(self) -> list[int]:
        """Which of the N columns for biases and maps belongs to each garment, in order."""
        return list(range(len(self.counts)) if self.owned is None else self.owned)

    def select(self, garments: Sequence[int]) -> GarmentKV:
        """Keep some garments, in their order; the others leave the softmax as if they had never been in it.

        Not for a masked layout, whose rows have different numbers of tokens.
        """
        assert not self.columns.masked
        if tuple(garments) == tuple(range(len(self.counts))):
            return self
        kept = [self._tokens_of(index) for index in garments]
        keys, values = [self.key[:, span] for span in kept], [self.value[:, span] for span in kept]
        counts = tuple(self.counts[index] for index in garments)
        if self.null_bias is not None:
            null_key = split_heads(self.key[:, -1:], self.heads)[..., : self.columns.dim]
            keys.append(_null_token(null_key, self.null_bias, sum(counts), self.columns))
            values.append(self.value[:, -1:])
        owners = self.owners
        owned = tuple(owners[index] for index in garments)
        return replace(self, key=torch.cat(keys, dim=1), value=torch.cat(values, dim=1), counts=counts, owned=owned)

    def alone(self, garment: int) -> GarmentKV:
        """One garment's tokens, and the null token with the share that it has beside all of them. All N columns stay."""
        kept = self._tokens_of(garment)
        key, value = self.key[:, kept], self.value[:, kept]
        if self.columns.null:
            key, value = (torch.cat([own, part[:, -1:]], dim=1) for own, part in ((key, self.key), (value, self.value)))
        counts = tuple(count * (index == garment) for index, count in enumerate(self.counts))
        return replace(self, key=key, value=value, counts=counts)

    def _tokens_of(self, garment: int) -> slice:
        first = sum(self.counts[:garment])
        return slice(first, first + self.counts[garment])


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
    biased: bool = False,
    maps: bool = False,
) -> GarmentKV:
    """Lay out K' and V' of N garments for attention.

    keys, values: per garment (B or 1, M_k, C), C = H*d. weights: per garment, scales its V' (0 removes its picture
    but not its share of the softmax). null: (k0 (C,), b (1,)), see the module's first lines. token_mask: (B, M) bool,
    False where a row has no such token; every row keeps at least one. biased: the calls will bring a
    bias for each pixel and garment. maps: the calls will ask for A_k.
    """
    counts = tuple(key.shape[1] for key in keys)
    masked = token_mask is not None
    columns = Columns(keys[0].shape[-1] // heads, len(counts), null is not None, masked, biased, maps)
    if weights is not None:
        values = [value * weight for value, weight in zip(values, weights, strict=True)]
    if not columns.widened:
        return GarmentKV(torch.cat(list(keys), dim=1), torch.cat(list(values), dim=1), counts, heads, columns)

    key = split_heads(torch.cat(list(keys), dim=1), heads)  # -> (B, M, H, d)
    value = split_heads(torch.cat(list(values), dim=1), heads)
    indicator = whose(counts, key)[None, :, None, :]  # -> (1, M, 1, N)
    key = _widen(key, columns, indicator if biased else None, offset=columns.bias)
    value = _widen(value, columns, indicator if maps else None)
    if token_mask is not None:
        key = key.expand(token_mask.shape[0], -1, -1, -1).clone()
        key[..., columns.dim] = (~token_mask[:, :, None]).to(key) * (ABSENT_BIAS * math.sqrt(columns.width))
    key, value = rearrange(key, "b m h d -> b m (h d)"), rearrange(value, "b m h d -> b m (h d)")
    if null is None:
        return GarmentKV(key, value, counts, heads, columns)
    null_key, null_bias = null
    tokens = sum(counts) if token_mask is None else token_mask.sum(dim=1)
    null_row = _null_token(split_heads(null_key[None, None].to(key), heads), null_bias, tokens, columns)
    key = torch.cat([key, null_row.expand(key.shape[0], -1, -1)], dim=1)
    value = torch.cat([value, torch.zeros_like(value[:, :1])], dim=1)
    return GarmentKV(key, value, counts, heads, columns, null_bias)


def whose(counts: Sequence[int], like: Tensor) -> Tensor:
    """1 where a token is garment k's: (M, N), on the device and in the dtype of `like`. counts: tokens of each garment."""
    garments = torch.arange(len(counts), device=like.device)
    tokens = torch.tensor(counts, device=like.device)
    owner = garments.repeat_interleave(tokens, output_size=sum(counts))
    return functional.one_hot(owner, len(counts)).to(like)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, H*d) as (B, L, H, d)."""
    return rearrange(x, "b l (h d) -> b l h d", h=heads)


def widen_query(query: Tensor, garments: GarmentKV, bias: Tensor | None = None) -> Tensor:
    """The query (B, L, C) with its side of the columns: (B, L, H*d').

    bias: (B or 1, L or 1, N), what is added to the logits of garment k's tokens; given exactly when they were laid out
    for it. What `Attend` divides by sqrt d' equals a division by sqrt d.
    """
    columns = garments.columns
    assert (bias is not None) == columns.biased
    if not columns.widened:
        return query
    width = columns.width
    q = split_heads(query, garments.heads) * math.sqrt(width / columns.dim)
    spare: list[Tensor] = []
    if columns.bias:
        spare.append(q.new_ones(1, 1, 1, 2))
    if bias is not None:
        own = bias.new_zeros(*bias.shape[:-1], columns.garments)  # nobody owns the other columns
        own[..., garments.owners] = bias
        spare.append((own.float() * math.sqrt(width)).to(q)[:, :, None, :])
    spare = [part.expand(*q.shape[:-1], -1) for part in spare]
    wide = torch.cat([q, *spare], dim=-1)
    return rearrange(functional.pad(wide, (0, width - wide.shape[-1])), "b l h d -> b l (h d)")


def _widen(x: Tensor, columns: Columns, extra: Tensor | None, offset: int = 0) -> Tensor:
    """Append the spare columns to (B, M, H, d): zeros, with `extra` (1, M, 1, N) standing `offset` columns in."""
    spare = columns.width - columns.dim
    if extra is None:
        return functional.pad(x, (0, spare))
    extra = functional.pad(extra, (offset, spare - offset - extra.shape[-1]))
    return torch.cat([x, extra.expand(*x.shape[:-1], -1)], dim=-1)


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
