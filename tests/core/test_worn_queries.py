# SPDX-License-Identifier: GPL-3.0-or-later
"""The garments' term where it is worn: the same numbers there, zero elsewhere, and a ring that follows what moves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from comfyui_anydressing.anydressing_core.dressing_attention import garment_attention
from comfyui_anydressing.anydressing_core.garment_kv import garment_kv, scaled_dot_product, split_heads
from comfyui_anydressing.anydressing_core.reference_attention import garment_bias, reference_attention
from comfyui_anydressing.anydressing_core.sites import SD15
from comfyui_anydressing.anydressing_core.worn_queries import (
    ALONE,
    THRESHOLD,
    WHOLE_STEPS,
    WornQueries,
    all_of,
    kinds_of,
    some_of,
)
from einops import rearrange

SIZE = (24, 16)
SITES = SD15.sites[:2]
GRID = SITES[0].grid(*SIZE)
TOKENS = GRID[0] * GRID[1]


def shown(*places, batch=1, share=0.9):
    """A (B, L, 2) of the first site: garments share `share` at some places (row, column), nothing elsewhere."""
    maps = torch.zeros(batch, *GRID, 2)
    for row, column in places:
        maps[:, row, column] = share / 2
    return maps.flatten(1, 2)


def seen(worn, maps, size=SIZE):
    """Take a step in which the first site shows these maps."""
    worn.begin(SITES, size)
    worn._saw(SITES[0].key, maps)


def worn_after(maps, steps=WHOLE_STEPS):
    worn = WornQueries()
    for _ in range(steps):
        seen(worn, maps)
    return worn


def chosen(worn, size=SIZE):
    """Which of its queries the first site computes in the next step, (B, K), TOKENS where a row has fewer; None for all."""
    worn.begin(SITES, size)
    queries = worn._chosen.get(SITES[0].key)
    return None if queries is None else queries.worn


def some_garments(regions=False, null=True):
    torch.manual_seed(0)
    key, value = torch.randn(1, 9, 16), torch.randn(1, 9, 16)
    token = (torch.randn(16), torch.tensor([0.3])) if null else None
    return garment_kv([key[:, :4], key[:, 4:]], [value[:, :4], value[:, 4:]], 2, null=token, maps=True, biased=regions)


def is_chosen(queries):
    return torch.zeros(len(queries), TOKENS + 1, dtype=torch.bool).scatter(1, queries, value=True)[:, :TOKENS]


@pytest.mark.parametrize("regions", [False, True])
def test_the_term_is_the_same_where_it_is_computed_and_zero_elsewhere(regions):
    garments, query = some_garments(regions), torch.randn(2, TOKENS, 16)
    masks = torch.rand(2, TOKENS, 2) if regions else None
    whole, whole_maps = garment_attention(query, garments, regions=masks)
    maps = torch.cat([shown((5, 5)), shown((2, 3), (7, 7))])
    worn, want = worn_after(maps), is_chosen(chosen(worn_after(maps)))
    worn.begin(SITES, SIZE)
    some, some_maps = worn.term(SITES[0].key, query, garments, regions=masks)
    torch.testing.assert_close(some[want], whole[want])
    torch.testing.assert_close(some_maps[want], whole_maps[want])
    assert not some[~want].any()
    assert not some_maps[~want].any()
    assert want.sum(dim=1).tolist() == [9, 18]


@pytest.mark.parametrize("everywhere", [False, True])
def test_reference_attention_is_the_same_where_it_is_computed_and_the_pictures_own_elsewhere(everywhere):
    garments = some_garments(regions=True, null=False)
    query, key, value = (torch.randn(2, TOKENS, 16) for _ in range(3))
    bias = garment_bias(torch.tensor([1.0, 2.0]), None if everywhere else torch.rand(2, TOKENS, 2))
    whole, whole_maps = reference_attention(query, key, value, garments, bias)
    maps = torch.cat([shown((5, 5)), shown((2, 3), (7, 7))])
    worn, want = worn_after(maps), is_chosen(chosen(worn_after(maps)))
    worn.begin(SITES, SIZE)
    some, some_maps = worn.joint(SITES[0].key, query, key, value, garments, bias)
    torch.testing.assert_close(some[want], whole[want])
    torch.testing.assert_close(some_maps[want], whole_maps[want])
    torch.testing.assert_close(some[~want], scaled_dot_product(query, key, value, 2)[~want])
    assert not some_maps[~want].any()


def apart(*rows):
    """A (B, L, 2): for each picture the places of either garment."""
    maps = torch.zeros(len(rows), *GRID, 2)
    for row, garments in enumerate(rows):
        for garment, places in enumerate(garments):
            for height, width in places:
                maps[row, height, width, garment] = 0.8
    return maps.flatten(1, 2)


ROWS = ([[(2, 3)], [(7, 7)]], [[(5, 5)], [(5, 6)]], [[(4, 4), (9, 9)], []])
"""Garments far from each other, next to each other, and one of them nowhere: what the first meets alone, the last has none of."""


def without_the_other(garments, query, garment, regions):
    """One garment's term and maps, all of the other's logits as good as minus infinity."""
    key = split_heads(garments.key, garments.heads).clone()
    other = slice(4, 9) if garment == 0 else slice(0, 4)
    key[:, other, :, garments.columns.dim] = -1e3 * garments.columns.width**0.5
    alone = replace(garments, key=rearrange(key, "b m h d -> b m (h d)"))
    return garment_attention(query, alone, regions=regions)


@pytest.mark.parametrize("regions", [False, True])
def test_a_query_that_wears_one_garment_meets_it_alone(regions):
    garments, query = some_garments(regions), torch.randn(3, TOKENS, 16)
    masks = torch.rand(3, TOKENS, 2) if regions else None
    both, both_maps = garment_attention(query, garments, regions=masks)
    worn = worn_after(apart(*ROWS))
    worn.begin(SITES, SIZE)
    some, maps = worn.term(SITES[0].key, query, garments, regions=masks)
    kinds = kinds_of(apart(*ROWS).unflatten(1, GRID), THRESHOLD, ALONE).flatten(1)
    assert [[int((row == kind).sum()) for kind in (0, 1, 2)] for row in kinds] == [[9, 9, 0], [3, 3, 6], [18, 0, 0]]
    for garment in (0, 1):
        own, own_maps = without_the_other(garments, query, garment, masks)
        here = kinds == garment
        torch.testing.assert_close(some[here], own[here])
        torch.testing.assert_close(maps[here], own_maps[here])
        assert not maps[here][:, 1 - garment].any()
    torch.testing.assert_close(some[kinds == 2], both[kinds == 2])
    torch.testing.assert_close(maps[kinds == 2], both_maps[kinds == 2])
    assert not some[kinds == 3].any()
    assert worn.computed[SITES[0].key] == [pytest.approx((18 + 9 + 6) / TOKENS)]  # the most of each kind
    assert worn.met[SITES[0].key] == [pytest.approx((18 * 4 / 9 + 9 * 5 / 9 + 6) / TOKENS)]


def test_a_query_that_wears_one_garment_joins_it_alone():
    garments, bias = some_garments(regions=True, null=False), garment_bias(torch.tensor([1.0, 2.0]))
    query, key, value = (torch.randn(3, TOKENS, 16) for _ in range(3))
    worn = worn_after(apart(*ROWS))
    worn.begin(SITES, SIZE)
    some, maps = worn.joint(SITES[0].key, query, key, value, garments, bias)
    kinds = kinds_of(apart(*ROWS).unflatten(1, GRID), THRESHOLD, ALONE).flatten(1)
    for garment in (0, 1):
        nowhere = torch.zeros(1, 1, 2)
        nowhere[..., 1 - garment] = -1e3
        own, own_maps = reference_attention(query, key, value, garments, bias + nowhere)
        torch.testing.assert_close(some[kinds == garment], own[kinds == garment])
        torch.testing.assert_close(maps[kinds == garment], own_maps[kinds == garment])
    both, _ = reference_attention(query, key, value, garments, bias)
    torch.testing.assert_close(some[kinds == 2], both[kinds == 2])
    torch.testing.assert_close(some[kinds == 3], scaled_dot_product(query, key, value, 2)[kinds == 3])


def test_where_nothing_has_more_than_alone_all_garments_are_met():
    shares = torch.full((1, *GRID, 3), 0.08)  # .24 in all
    assert set(kinds_of(shares, THRESHOLD, ALONE).unique().tolist()) == {3}
    shares[..., 1] = 0.3
    assert set(kinds_of(shares, THRESHOLD, ALONE).unique().tolist()) == {1}
    assert set(kinds_of(shares, THRESHOLD, 0.0).unique().tolist()) == {3}
    assert set(kinds_of(shares[..., 1:2], THRESHOLD, ALONE).unique().tolist()) == {1}  # a garment that has no other


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_a_term_is_kept_for_the_steps_between_and_computed_in_every_other(threshold):
    garments, key = some_garments(), SITES[0].key
    worn, queries = WornQueries(threshold, every=3), torch.randn(8, 2, TOKENS, 16)
    terms = []
    for query in queries:
        worn.begin(SITES, SIZE)
        terms.append(worn.term(key, query, garments)[0])
    same = [torch.equal(a, b) for a, b in pairwise(terms)]
    assert same == [False, False, True, True, False, True, True]
    assert [share == 0 for share in worn.computed[key]] == [False, False, False, True, True, False, True, True]
    if not threshold:
        torch.testing.assert_close(terms[5], garment_attention(queries[5], garments)[0])


def test_what_is_taken_out_comes_back_to_its_place():
    x, queries = torch.arange(24.0).reshape(1, 12, 2), torch.tensor([[4, 0], [11, 3]])
    back = all_of(some_of(x, queries), queries, 12)
    assert torch.equal(back[0, [0, 4]], x[0, [0, 4]])
    assert torch.equal(back[1, [3, 11]], x[0, [3, 11]])
    assert int((back != 0).any(dim=-1).sum()) == 4


def test_the_first_steps_compute_everywhere():
    for steps in range(WHOLE_STEPS):
        assert chosen(worn_after(shown((5, 5)), steps)) is None
    assert chosen(worn_after(shown((5, 5)))) is not None


def test_a_ring_of_one_token_is_taken_in_and_corners_stay_inside():
    queries = chosen(worn_after(shown((5, 5), (0, 0))))
    places = {divmod(int(place), GRID[1]) for place in queries[0]}
    around = {(row, column) for row in (4, 5, 6) for column in (4, 5, 6)}
    assert places == around | {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_below_the_threshold_nothing_is_worn_but_one_query_is_asked():
    queries = chosen(worn_after(shown((5, 5), share=THRESHOLD * 0.9)))
    assert queries.tolist() == [[5 * GRID[1] + 5]]


def test_every_picture_of_a_batch_has_its_own_and_the_largest_decides_how_many():
    maps = shown(batch=2).unflatten(1, GRID)
    maps[0, 5, 5] = 0.4
    maps[1, 2:9, 3:9] = 0.4
    queries = chosen(worn_after(maps.flatten(1, 2)))
    assert queries.shape == (2, 9 * 8)
    around = {row * GRID[1] + column for row in (4, 5, 6) for column in (4, 5, 6)}
    assert set(queries[0].tolist()) == around | {TOKENS}  # as if it were alone; the rest are none
    assert len(set(queries[1].tolist())) == 72


def test_where_everything_is_worn_all_is_computed():
    assert chosen(worn_after(torch.full((1, TOKENS, 2), 0.4))) is None


def test_what_has_another_number_of_tokens_is_computed_everywhere():
    worn = worn_after(shown((5, 5)))
    worn._saw(SITES[0].key, torch.zeros(4, TOKENS // 4, 2))  # in tiles
    assert chosen(worn) is None


def test_a_latent_of_another_size_begins_anew():
    worn = worn_after(shown((5, 5)))
    assert chosen(worn, (48, 32)) is None
    seen(worn, shown((5, 5)))
    assert chosen(worn) is None


def test_a_garment_that_grows_is_followed_a_ring_a_step():
    worn = worn_after(shown((5, 5)))
    for reach in range(1, 4):
        queries = chosen(worn)[0]
        assert len(queries) == (2 * reach + 1) ** 2
        maps = torch.zeros(1, TOKENS, 2)
        maps[0, queries] = 0.4  # all that is asked answers
        worn._saw(SITES[0].key, maps)
