# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference attention against the textbook: one explicit softmax over the picture's tokens and each garment's."""

import math

import pytest
import torch
from comfyui_anydressing.anydressing_core.garment_kv import scaled_dot_product
from comfyui_anydressing.anydressing_core.reference_attention import (
    fair_weight,
    garment_bias,
    garments_part,
    reference_attention,
    reference_kv,
)

HEADS, DIM, PIXELS = 2, 5, 7
C = HEADS * DIM
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def heads(x):
    """(B, L, C) -> (B, H, L, d)."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def textbook(q, k, v, keys, values, weights, places):
    """Z (B, L, C) and A (B, L, N), written out. places: (B, L, N)."""
    owner = [garment for garment, key in enumerate(keys) for _ in range(key.shape[1])]
    joint_key = torch.cat([k, *(key.expand(len(q), -1, -1) for key in keys)], dim=1)
    joint_value = torch.cat([v, *(value.expand(len(q), -1, -1) for value in values)], dim=1)
    exponentials = (heads(q) @ heads(joint_key).transpose(-1, -2) / math.sqrt(DIM)).exp()
    own = torch.ones(len(q), PIXELS, k.shape[1])
    factor = torch.cat([own, torch.tensor(weights)[owner] * places[..., owner]], dim=-1)
    share = exponentials * factor[:, None]
    share = share / share.sum(dim=-1, keepdim=True)
    maps = [share[..., [k.shape[1] + i for i, one in enumerate(owner) if one == n]].sum(-1) for n in range(len(keys))]
    return (share @ heads(joint_value)).transpose(1, 2).flatten(-2), torch.stack(maps, -1).mean(1)


def scene(garments, *, batch=2, dtype=torch.float32, grad=False):
    """q, k, v and per garment K_g, V_g with uneven token counts 3, 4, 5, ..."""
    torch.manual_seed(garments)
    make = lambda *size: torch.randn(*size).to(dtype).requires_grad_(grad)  # noqa: E731
    q, k, v = (make(batch, PIXELS, C) for _ in range(3))
    keys = [make(1, 3 + n, C) for n in range(garments)]
    values = [make(1, 3 + n, C) for n in range(garments)]
    return q, k, v, keys, values


def places_of(garments, batch=2):
    torch.manual_seed(5)
    places = torch.rand(batch, PIXELS, garments)
    places[:, 0] = 0.0  # nobody's
    places[:, 1] = 1.0  # everybody's
    return places


def weights_of(garments):
    return [0.5 + 0.5 * n for n in range(garments)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("garments", range(1, 9))
def test_one_softmax_equals_the_textbook(garments, dtype):
    q, k, v, keys, values = scene(garments, dtype=dtype)
    weights, places = weights_of(garments), places_of(garments)
    bias = garment_bias(torch.tensor(weights), places)
    ours, maps = reference_attention(q, k, v, reference_kv(keys, values, HEADS), bias)
    wide = [x.float() if torch.is_tensor(x) else [one.float() for one in x] for x in (q, k, v, keys, values)]
    want, want_maps = textbook(*wide, weights, places)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), want, atol=4 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    torch.testing.assert_close(maps, want_maps, atol=2 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("garments", range(1, 9))
def test_around_what_attends_already_it_is_the_same_softmax(garments, dtype):
    q, k, v, keys, values = scene(garments, dtype=dtype)
    garment, bias = reference_kv(keys, values, HEADS), garment_bias(torch.ones(garments), places_of(garments))
    one, maps = reference_attention(q, k, v, garment, bias)
    part = garments_part(q, k, garment, bias)
    torch.testing.assert_close(
        part.beside(scaled_dot_product(q, k, v, HEADS)), one, atol=4 * TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )
    torch.testing.assert_close(part.maps, maps, atol=2 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_what_attended_already_keeps_what_the_garments_leave():
    q, k, v, keys, values = scene(2)
    garment, bias = reference_kv(keys, values, HEADS), garment_bias(torch.ones(2))
    part = garments_part(q, k, garment, bias)
    identity, nothing = part.beside(v), part.beside(torch.zeros_like(v))  # the first as PAG's replacement has it
    own = textbook(q, k, torch.ones_like(v), keys, [0 * value for value in values], [1.0, 1.0], places_of(2) * 0 + 1)[0]
    torch.testing.assert_close(identity - nothing, own * v, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("garments", range(1, 9))
def test_gradients_equal_the_textbooks(garments):
    def gradients(attention):
        q, k, v, keys, values = scene(garments, grad=True)
        places = places_of(garments)[:, 1:].clamp(min=0.1)
        places = torch.cat([places, places[:, :1]], dim=1).requires_grad_(True)
        out, maps = attention(q, k, v, keys, values, places)
        (out.square().sum() + (maps - 0.4).square().sum()).backward()
        return [x.grad for x in (q, k, v, *keys, *values, places)]

    weights = weights_of(garments)
    ours = gradients(
        lambda q, k, v, keys, values, places: reference_attention(
            q, k, v, reference_kv(keys, values, HEADS), garment_bias(torch.tensor(weights), places)
        )
    )
    theirs = gradients(lambda q, k, v, keys, values, places: textbook(q, k, v, keys, values, weights, places))
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_the_order_of_garments_is_of_no_matter():
    q, k, v, keys, values = scene(4)
    places, weights = places_of(4), torch.tensor(weights_of(4))
    order = [2, 0, 3, 1]
    one, maps = reference_attention(q, k, v, reference_kv(keys, values, HEADS), garment_bias(weights, places))
    other, other_maps = reference_attention(
        q,
        k,
        v,
        reference_kv([keys[n] for n in order], [values[n] for n in order], HEADS),
        garment_bias(weights[order], places[..., order]),
    )
    torch.testing.assert_close(other, one, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(other_maps, maps[..., order], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("left", [[0], [1, 2], [3, 0]])
def test_a_garment_that_is_taken_out_was_never_there(left):
    q, k, v, keys, values = scene(4)
    some = reference_kv(keys, values, HEADS).select(left)
    alone = reference_kv([keys[n] for n in left], [values[n] for n in left], HEADS)
    bias = garment_bias(torch.ones(len(left)), places_of(len(left)))
    for got, want in zip(
        reference_attention(q, k, v, some, bias), reference_attention(q, k, v, alone, bias), strict=True
    ):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_where_a_garment_does_not_belong_the_picture_is_plain():
    q, k, v, keys, values = scene(3)
    bias = garment_bias(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(2, PIXELS, 3))
    out, maps = reference_attention(q, k, v, reference_kv(keys, values, HEADS), bias)
    torch.testing.assert_close(out, scaled_dot_product(q, k, v, HEADS), atol=1e-6, rtol=1e-6)
    assert maps.max() < 1e-10


def test_rows_may_lack_tokens():
    """A batch in which the first person's garment has two tokens and the second's all three."""
    q, k, v, keys, values = scene(1)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    bias = garment_bias(torch.ones(1))
    out, _ = reference_attention(q, k, v, reference_kv(keys, values, HEADS, mask), bias)
    for row, tokens in enumerate((2, 3)):
        alone = reference_kv([keys[0][:, :tokens]], [values[0][:, :tokens]], HEADS)
        want, _ = reference_attention(q[row : row + 1], k[row : row + 1], v[row : row + 1], alone, bias)
        torch.testing.assert_close(out[row : row + 1], want, atol=2e-6, rtol=1e-5)


def test_one_call_without_a_mask_tensor_serves_all():
    calls = []

    def attend(query, key, value, heads_):
        calls.append((query.shape, key.shape, value.shape))
        return scaled_dot_product(query, key, value, heads_)

    q, k, v, keys, values = scene(8)
    garment = reference_kv(keys, values, HEADS)
    reference_attention(q, k, v, garment, garment_bias(torch.ones(8), places_of(8)), attend=attend)
    tokens = PIXELS + sum(key.shape[1] for key in keys)
    width = HEADS * garment.columns.width
    assert calls == [((2, PIXELS, width), (2, tokens, width), (2, tokens, width))]


def reference_only(q, k, v, keys, values):
    """sd-webui-controlnet's reference_only: the picture attends to itself and to the references, all alike."""
    key = torch.cat([k, *(one.expand(len(q), -1, -1) for one in keys)], dim=1)
    value = torch.cat([v, *(one.expand(len(q), -1, -1) for one in values)], dim=1)
    return (
        ((heads(q) @ heads(key).transpose(-1, -2) / math.sqrt(DIM)).softmax(-1) @ heads(value))
        .transpose(1, 2)
        .flatten(-2)
    )


def test_without_places_and_with_all_tokens_it_is_reference_only():
    q, k, v, keys, values = scene(3)
    out, _ = reference_attention(q, k, v, reference_kv(keys, values, HEADS), garment_bias(torch.ones(3)))
    torch.testing.assert_close(out, reference_only(q, k, v, keys, values), atol=4e-6, rtol=1e-5)


def test_with_logit_bias_3_and_the_background_out_it_is_the_multi_reference_scheme():
    """FreeCustom: weighted masks, log-scaled: -inf on a reference's background, +3 on its foreground."""
    q, k, v, keys, values = scene(3)
    seen = [torch.rand(key.shape[1], generator=torch.Generator().manual_seed(8)) > 0.4 for key in keys]
    logits = heads(q) @ heads(torch.cat([k, *(key.expand(2, -1, -1) for key in keys)], 1)).transpose(-1, -2)
    added = torch.cat([torch.zeros(PIXELS), *(torch.where(one, 3.0, -math.inf) for one in seen)])
    share = (logits / math.sqrt(DIM) + added).softmax(-1)
    want = share @ heads(torch.cat([v, *(value.expand(2, -1, -1) for value in values)], 1))
    foreground = reference_kv(
        [key[:, one] for key, one in zip(keys, seen, strict=True)],
        [value[:, one] for value, one in zip(values, seen, strict=True)],
        HEADS,
    )
    ours, _ = reference_attention(q, k, v, foreground, garment_bias(torch.full((3,), math.e**3)))
    torch.testing.assert_close(ours, want.transpose(1, 2).flatten(-2), atol=4e-6, rtol=1e-5)


def test_a_garment_of_half_the_size_counts_as_much():
    """Each token of the small one stands for four: the same softmax as over four of each."""
    q, k, v, keys, values = scene(1)
    weight = fair_weight(1.5, (6, 4), (12, 8))
    assert weight == 6.0
    small, _ = reference_attention(q, k, v, reference_kv(keys, values, HEADS), garment_bias(torch.tensor([weight])))
    four = reference_kv([keys[0].repeat(1, 4, 1)], [values[0].repeat(1, 4, 1)], HEADS)
    large, _ = reference_attention(q, k, v, four, garment_bias(torch.tensor([fair_weight(1.5, (12, 8), (12, 8))])))
    torch.testing.assert_close(small, large, atol=2e-6, rtol=1e-5)
