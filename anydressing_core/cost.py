# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step costs, undressed and dressed, in FLOP: products alone (linear, convolution, attention), 2 for a multiply-add."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .garment_kv import GarmentKV
from .sites import UNetShape, halved
from .word_table import POSITIONS


def row_flops(shape: UNetShape, size: tuple[int, int]) -> int:
    """One undressed row of a U-Net. size: h and w of the latent."""
    width, emb = shape.block_channels[0], 4 * shape.block_channels[0]
    tokens = [math.prod(halved(*size, level)) for level in range(len(shape.block_channels))]

    def residual(before: int, after: int, level: int) -> int:
        skip = before * after if before != after else 0
        return (9 * before * after + 9 * after * after + skip) * tokens[level] + emb * after

    def transformer(channels: int, level: int) -> int:
        own = 2 * channels + 4 * channels + 2 * channels + 12 * channels  # in and out, attn1, attn2's q and out, GEGLU
        text = 2 * channels * shape.cross_attention_dim * POSITIONS
        attention = 2 * tokens[level] * (tokens[level] + POSITIONS) * channels
        return own * channels * tokens[level] + text + attention

    products = width * emb + emb * emb + 9 * 4 * width * tokens[0]
    channels, skips = width, [width]
    for level, after in enumerate(shape.block_channels):
        for _ in range(shape.layers[level]):
            products += residual(channels, after, level) + shape.attention[level] * transformer(after, level)
            channels = after
            skips.append(after)
        if level + 1 < len(tokens):
            products += 9 * after * after * tokens[level + 1]
            skips.append(after)
    last = len(tokens) - 1
    products += 2 * residual(channels, channels, last) + shape.mid_attention * transformer(channels, last)
    for level in reversed(range(len(tokens))):
        after = shape.block_channels[level]
        for _ in range(shape.layers[level] + 1):
            products += residual(channels + skips.pop(), after, level)
            products += shape.attention[level] * transformer(after, level)
            channels = after
        if level:
            products += 9 * after * after * tokens[level - 1]
    return 2 * (products + 9 * width * 4 * tokens[0])


def worn_flops(
    shape: UNetShape,
    size: tuple[int, int],
    trained: Mapping[str, GarmentKV] | None,
    read: Mapping[str, GarmentKV] | None,
) -> int:
    """What garments add to a conditional row: those of a file's attention, and those that join by reference."""
    products = 0
    for site in shape.sites:
        tokens = math.prod(site.grid(*size))
        if trained is not None:
            one = trained[site.key]
            products += 2 * tokens * one.key.shape[1] * one.heads * one.columns.width
        if read is not None and site.key in read:
            one = read[site.key]
            both = (tokens + one.key.shape[1]) * one.columns.width
            products += 2 * tokens * one.heads * (both - tokens * one.columns.dim)
    return 2 * products
