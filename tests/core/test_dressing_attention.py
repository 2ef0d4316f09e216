# SPDX-License-Identifier: GPL-3.0-or-later
"""Dressing-Attention against the textbook: explicit softmaxes, one garment token list after another (Eq. 4-8)."""

import math

import pytest
import torch
from comfyui_anydressing.anydressing_core.dressing_attention import (
    REGION_BIAS,
    attention_maps,
    dressing_attention,
    garment_attention,
)
from comfyui_anydressing.anydressing_core.garment_kv import garment_kv, project_garment, scaled_dot_product

HEADS, DIM, PIXELS = 2, 5, 7
C = HEADS * DIM


def heads(x):
    """(B, L, C) -> (B, H, L, d)."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def textbook(q, keys, values, *, weights=None, null=None, regions=None):
    """The second term of Eq. 6 and A_k (Eq. 7-8), written out. Returns (B, L, C) and (B, L, N)."""
    counts = [key.shape[1] for key in keys]
    owner = [k for k, count in enumerate(counts) for _ in range(count)]
    weights = weights or [1.0] * len(keys)
    key = heads(torch.cat(keys, 1))
    value = heads(torch.cat([v * w for v, w in zip(values, weights, strict=True)], 1))
    logits = heads(q) @ key.transpose(-1, -2) / math.sqrt(DIM)
    if regions is not None:
        logits = logits + REGION_BIAS * (regions[:, :, owner] - 1).unsqueeze(1)
    if null is not None:
        null_key, null_bias = null
        null_logit = heads(q) @ heads(null_key.expand(1, 1, -1)).transpose(-1, -2) / math.sqrt(DIM)
        logits = torch.cat([logits, null_logit + null_bias + math.log(sum(counts))], -1)
        value = torch.cat([value, torch.zeros_like(value[:, :, :1])], 2)
    share = logits.softmax(-1)
    out = (share @ value).transpose(1, 2).flatten(-2)
    if regions is not None:
        out = out * regions.amax(-1, keepdim=True)
    maps = [share[..., [i for i, k in enumerate(owner) if k == garment]].sum(-1) for garment in range(len(keys))]
    return out, torch.stack(maps, -1).mean(1)


def scene(garments, batch=2, dtype=torch.float32, grad=False, seed=0):
    """q, and per garment K', V' with uneven token counts 3, 4, 5, ..."""
    torch.manual_seed(seed)
    make = lambda *size: torch.randn(*size).to(dtype).requires_grad_(grad)  # noqa: E731
    q = make(batch, PIXELS, C)
    keys = [make(1, 3 + k, C) for k in range(garments)]
    values = [make(1, 3 + k, C) for k in range(garments)]
    return q, keys, values


def null_token(dtype=torch.float32, grad=False):
    torch.manual_seed(9)
    return torch.randn(C).to(dtype).requires_grad_(grad), torch.tensor([0.3]).requires_grad_(grad)


def region_masks(garments):
    """(B, L, N): binary for the first garment, soft for the others; the first pixel is outside all of them."""
    torch.manual_seed(4)
    masks = torch.rand(2, PIXELS, garments)
    masks[..., 0] = (masks[..., 0] > 0.5).float()
    masks[:, 0] = 0.0
    return masks


TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("null", [False, True], ids=["faithful", "null"])
@pytest.mark.parametrize("regions", [False, True], ids=["everywhere", "regions"])
@pytest.mark.parametrize("garments", range(1, 9))
def test_term_and_maps_equal_the_textbook(garments, regions, null, dtype):
    q, keys, values = scene(garments, dtype=dtype)
    token = null_token(dtype) if null else None
    masks = region_masks(garments) if regions else None
    weights = [0.5 + 0.25 * k for k in range(garments)]
    laid_out = garment_kv(keys, values, HEADS, weights=weights, null=token, biased=regions, maps=True)
    term, maps = garment_attention(q, laid_out, regions=masks)

    wide = lambda x: x.float()  # noqa: E731
    judge_null = None if token is None else (token[0].float(), token[1])
    want, want_maps = textbook(
        wide(q), list(map(wide, keys)), list(map(wide, values)), weights=weights, null=judge_null, regions=masks
    )
    torch.testing.assert_close(term.float(), want, atol=TOLERANCE[dtype] * 4, rtol=TOLERANCE[dtype])
    torch.testing.assert_close(maps, want_maps, atol=TOLERANCE[dtype] * 2, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("null", [False, True], ids=["faithful", "null"])
@pytest.mark.parametrize("garments", range(1, 9))
def test_gradients_equal_the_textbook(garments, null, dtype):
    """The judge computes in fp32 from the same rounded values."""

    def gradients(attention, compute):
        q, keys, values = scene(garments, dtype=dtype, grad=True)
        token = null_token(dtype, grad=True) if null else None
        wide = None if token is None else (token[0].to(compute), token[1])
        term, maps = attention(q.to(compute), [k.to(compute) for k in keys], [v.to(compute) for v in values], wide)
        (term.float().square().sum() + (maps - 0.4).square().sum()).backward()
        return [x.grad.float() for x in (q, *keys, *values, *(token or ()))]

    ours = gradients(
        lambda q, keys, values, token: garment_attention(q, garment_kv(keys, values, HEADS, null=token, maps=True)),
        dtype,
    )
    theirs = gradients(lambda q, keys, values, token: textbook(q, keys, values, null=token), torch.float32)
    for got, want in zip(ours, theirs, strict=True):
        assert (got - want).norm() <= 10 * TOLERANCE[dtype] * want.norm() + 1e-6


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("null", [False, True], ids=["faithful", "null"])
def test_rows_may_lack_garments_and_tokens(null, dtype):
    """A batch in which the first person wears garments 0 and 2, the second 1 and half of 2, as one call."""
    q, keys, values = scene(3, dtype=dtype)
    token = null_token(dtype) if null else None
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0]]).bool()
    laid_out = garment_kv(keys, values, HEADS, null=token, token_mask=mask, maps=True)
    term, maps = garment_attention(q, laid_out)

    alone = [
        garment_kv([keys[0], keys[2]], [values[0], values[2]], HEADS, null=token, maps=True),
        garment_kv([keys[1], keys[2][:, :2]], [values[1], values[2][:, :2]], HEADS, null=token, maps=True),
    ]
    for row, worn in enumerate([[0, 2], [1, 2]]):
        want, want_maps = garment_attention(q[row : row + 1], alone[row])
        torch.testing.assert_close(term[row : row + 1], want, atol=TOLERANCE[dtype] * 4, rtol=TOLERANCE[dtype])
        torch.testing.assert_close(maps[row, :, worn], want_maps[0], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    assert maps[0, :, 1].abs().max() == 0


def test_an_absent_garment_gets_no_gradient():
    q, keys, values = scene(2, grad=True)
    mask = torch.tensor([[True] * 3 + [False] * 4] * 2)
    term, _ = garment_attention(q, garment_kv(keys, values, HEADS, null=null_token(), token_mask=mask))
    term.square().sum().backward()
    assert keys[0].grad.abs().sum() > 0
    assert keys[1].grad.abs().sum() == 0
    assert values[1].grad.abs().sum() == 0


def test_projection_is_the_files_linear_layer():
    torch.manual_seed(0)
    features, to_k, to_v = torch.randn(1, 3, C), torch.randn(C, C), torch.randn(C, C)
    key, value = project_garment(features, to_k, to_v)
    torch.testing.assert_close(key, features @ to_k.T)
    torch.testing.assert_close(value, features @ to_v.T)


def test_dressing_attention_is_both_terms_of_equation_6():
    q, keys, values = scene(2)
    k, v = torch.randn(2, PIXELS, C), torch.randn(2, PIXELS, C)
    out, _ = dressing_attention(q, k, v, garment_kv(keys, values, HEADS), 0.7)
    share = (heads(q) @ heads(k).transpose(-1, -2) / math.sqrt(DIM)).softmax(-1)
    want = (share @ heads(v)).transpose(1, 2).flatten(-2) + 0.7 * textbook(q, keys, values)[0]
    torch.testing.assert_close(out, want)


def test_zero_strength_is_plain_self_attention():
    q, keys, values = scene(2)
    k, v = torch.randn(2, PIXELS, C), torch.randn(2, PIXELS, C)
    out, _ = dressing_attention(q, k, v, garment_kv(keys, values, HEADS), 0.0)
    assert torch.equal(out, scaled_dot_product(q, k, v, HEADS))


def test_maps_sum_to_one_without_a_null_token():
    q, keys, values = scene(3)
    _, maps = garment_attention(q, garment_kv(keys, values, HEADS, maps=True))
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, PIXELS))


def test_null_token_takes_the_rest_of_the_maps():
    q, keys, values = scene(3)
    _, maps = garment_attention(q, garment_kv(keys, values, HEADS, null=null_token(), maps=True))
    assert (maps.sum(-1) < 0.999).all()


def test_permuting_garments_permutes_the_maps_and_keeps_the_term():
    q, keys, values = scene(3)
    order = [2, 0, 1]
    term, maps = garment_attention(q, garment_kv(keys, values, HEADS, null=null_token(), maps=True))
    moved, moved_maps = garment_attention(
        q, garment_kv([keys[i] for i in order], [values[i] for i in order], HEADS, null=null_token(), maps=True)
    )
    torch.testing.assert_close(moved, term)
    torch.testing.assert_close(moved_maps, maps[..., order])


@pytest.mark.parametrize("null", [False, True], ids=["faithful", "null"])
@pytest.mark.parametrize("regions", [False, True], ids=["everywhere", "regions"])
@pytest.mark.parametrize("chosen", [[1, 3], [0], [2, 3], [3]], ids=str)
def test_selecting_garments_equals_never_having_had_the_others(chosen, regions, null):
    q, keys, values = scene(4)
    token = null_token() if null else None
    masks = region_masks(4)[..., chosen] if regions else None
    some = garment_kv(keys, values, HEADS, null=token, biased=regions, maps=True).select(chosen)
    alone = garment_kv(
        [keys[k] for k in chosen], [values[k] for k in chosen], HEADS, null=token, biased=regions, maps=True
    )
    for got, want in zip(
        garment_attention(q, some, regions=masks), garment_attention(q, alone, regions=masks), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_selecting_twice_keeps_each_garments_columns():
    q, keys, values = scene(4)
    masks = region_masks(4)
    laid_out = garment_kv(keys, values, HEADS, biased=True, maps=True)
    twice, once = laid_out.select([0, 2, 3]).select([1, 2]), laid_out.select([2, 3])
    for got, want in zip(
        garment_attention(q, twice, regions=masks[..., 2:]),
        garment_attention(q, once, regions=masks[..., 2:]),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_selecting_all_garments_costs_nothing():
    _, keys, values = scene(2)
    laid_out = garment_kv(keys, values, HEADS)
    assert laid_out.select([0, 1]) is laid_out


def test_a_pixel_outside_every_region_gets_nothing():
    q, keys, values = scene(2)
    masks = torch.zeros(1, PIXELS, 2)
    masks[:, 3, 0] = 1.0
    term, _ = garment_attention(q, garment_kv(keys, values, HEADS, biased=True), regions=masks)
    assert (term[:, [0, 1, 2, 4, 5, 6]] == 0).all()
    assert (term[:, 3] != 0).all()


def test_a_region_keeps_the_other_garment_out():
    q, keys, values = scene(2)
    masks = torch.zeros(1, PIXELS, 2)
    masks[..., 1] = 1.0
    term, _ = garment_attention(q, garment_kv(keys, values, HEADS, biased=True), regions=masks)
    alone, _ = garment_attention(q, garment_kv(keys[1:], values[1:], HEADS))
    torch.testing.assert_close(term, alone)


def test_null_bias_survives_bf16():
    """log M of a real picture is 9.5; a bf16 column alone would keep it to 0.03, its low part to 1e-4."""
    token = (torch.zeros(C, dtype=torch.bfloat16), torch.tensor([0.0]))
    zeros = [torch.zeros(1, 13_824, C, dtype=torch.bfloat16)]
    _, maps = garment_attention(zeros[0][:, :1], garment_kv(zeros, zeros, HEADS, null=token, maps=True))
    # All logits equal but log M: the null token's share is M / (M + M).
    assert abs(maps.item() - 0.5) < 2e-3


def test_heads_are_widened_only_when_something_rides_along():
    q, keys, values = scene(2)
    assert not garment_kv(keys, values, HEADS).columns.widened
    assert garment_kv(keys, values, HEADS, maps=True).columns.width == 8
    widths = []

    def attend(query, key, value, count):
        widths.append((query.shape[-1], key.shape[-1], value.shape[-1]))
        return scaled_dot_product(query, key, value, count)

    garment_attention(q, garment_kv(keys, values, HEADS), attend=attend)
    garment_attention(q, garment_kv(keys, values, HEADS, null=null_token()), attend=attend)
    assert widths == [(C, C, C), (8 * HEADS,) * 3]


def test_one_attention_call_serves_everything():
    q, keys, values = scene(8)
    calls = []

    def attend(query, key, value, count):
        calls.append(key.shape[1])
        return scaled_dot_product(query, key, value, count)

    laid_out = garment_kv(keys, values, HEADS, null=null_token(), biased=True, maps=True)
    garment_attention(q, laid_out, regions=region_masks(8), attend=attend)
    assert calls == [sum(key.shape[1] for key in keys) + 1]


@pytest.mark.parametrize("null", [None, "null"])
@pytest.mark.parametrize("with_regions", [False, True])
@pytest.mark.parametrize("kept", [(0, 1, 2), (2, 0), (1,)])
def test_maps_by_a_call_of_their_own_are_the_textbooks(null, with_regions, kept):
    q, keys, values = scene(3)
    token = null_token() if null else None
    regions = torch.rand(2, PIXELS, 3) if with_regions else None
    garments = garment_kv(keys, values, HEADS, null=token, biased=with_regions).select(kept)
    chosen = None if regions is None else regions[..., list(kept)]
    _, expected = textbook(q, [keys[k] for k in kept], [values[k] for k in kept], null=token, regions=chosen)
    if chosen is not None:
        expected = expected * chosen.amax(-1, keepdim=True)
    torch.testing.assert_close(attention_maps(q, garments, regions=chosen), expected, atol=1e-5, rtol=1e-4)
