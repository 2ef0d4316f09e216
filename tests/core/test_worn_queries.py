# SPDX-License-Identifier: GPL-3.0-or-later
"""The garments' term where it is worn: the same numbers there, zero elsewhere, and a ring that follows what moves."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.anydressing_core.dressing_attention import garment_attention
from comfyui_anydressing.anydressing_core.garment_kv import garment_kv
from comfyui_anydressing.anydressing_core.sites import SD15
from comfyui_anydressing.anydressing_core.worn_queries import THRESHOLD, WHOLE_STEPS, WornQueries, all_of, some_of

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


def worn_after(maps, steps=WHOLE_STEPS):
    worn = WornQueries()
    for _ in range(steps):
        worn.see({SITES[0].key: maps})
    return worn


@pytest.mark.parametrize("regions", [False, True])
def test_the_term_is_the_same_where_it_is_computed_and_zero_elsewhere(regions):
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 12, 16), torch.randn(1, 9, 16), torch.randn(1, 9, 16)
    null = (torch.randn(16), torch.tensor([0.3]))
    garments = garment_kv(
        [key[:, :4], key[:, 4:]], [value[:, :4], value[:, 4:]], 2, null=null, maps=True, biased=regions
    )
    masks = torch.rand(1, 12, 2) if regions else None
    queries = torch.tensor([[0, 3, 11], [5, 2, 7]])
    whole, whole_maps = garment_attention(query, garments, regions=masks)
    some, some_maps = garment_attention(query, garments, regions=masks, queries=queries)
    chosen = torch.zeros(2, 12, dtype=torch.bool).scatter(1, queries, value=True)
    torch.testing.assert_close(some[chosen], whole[chosen])
    torch.testing.assert_close(some_maps[chosen], whole_maps[chosen])
    assert not some[~chosen].any()
    assert not some_maps[~chosen].any()


def test_what_is_taken_out_comes_back_to_its_place():
    x, queries = torch.arange(24.0).reshape(1, 12, 2), torch.tensor([[4, 0], [11, 3]])
    back = all_of(some_of(x, queries), queries, 12)
    assert torch.equal(back[0, [0, 4]], x[0, [0, 4]])
    assert torch.equal(back[1, [3, 11]], x[0, [3, 11]])
    assert int((back != 0).any(dim=-1).sum()) == 4


def test_the_first_steps_compute_everywhere():
    for steps in range(WHOLE_STEPS):
        assert worn_after(shown((5, 5)), steps).chosen(SITES, SIZE) == {}
    assert set(worn_after(shown((5, 5))).chosen(SITES, SIZE)) == {SITES[0].key}


def test_a_ring_of_one_token_is_taken_in_and_corners_stay_inside():
    queries = worn_after(shown((5, 5), (0, 0))).chosen(SITES, SIZE)[SITES[0].key]
    places = {divmod(int(place), GRID[1]) for place in queries[0]}
    around = {(row, column) for row in (4, 5, 6) for column in (4, 5, 6)}
    assert places == around | {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_below_the_threshold_nothing_is_worn_but_one_query_is_asked():
    queries = worn_after(shown((5, 5), share=THRESHOLD * 0.9)).chosen(SITES, SIZE)[SITES[0].key]
    assert queries.tolist() == [[5 * GRID[1] + 5]]


def test_every_picture_of_a_batch_has_its_own_and_the_largest_decides_how_many():
    maps = shown(batch=2).unflatten(1, GRID)
    maps[0, 5, 5] = 0.4
    maps[1, 2:9, 3:9] = 0.4
    queries = worn_after(maps.flatten(1, 2)).chosen(SITES, SIZE)[SITES[0].key]
    assert queries.shape == (2, 9 * 8)
    around = {row * GRID[1] + column for row in (4, 5, 6) for column in (4, 5, 6)}
    assert set(queries[0].tolist()) == around  # as if it were alone; the rest repeats
    assert len(set(queries[1].tolist())) == 72


def test_where_everything_is_worn_all_is_computed():
    assert worn_after(torch.full((1, TOKENS, 2), 0.4)).chosen(SITES, SIZE) == {}


def test_what_has_another_number_of_tokens_is_computed_everywhere():
    worn = worn_after(shown((5, 5)))
    assert worn.chosen(SITES, (48, 32)) == {}
    worn.see({SITES[0].key: torch.zeros(4, TOKENS // 4, 2)})  # in tiles
    assert worn.chosen(SITES, SIZE) == {}


def test_a_garment_that_grows_is_followed_a_ring_a_step():
    worn = worn_after(shown((5, 5)))
    for reach in range(1, 4):
        queries = worn.chosen(SITES, SIZE)[SITES[0].key][0]
        assert len(queries) == (2 * reach + 1) ** 2
        maps = torch.zeros(1, TOKENS, 2)
        maps[0, queries] = 0.4  # all that is asked answers
        worn.see({SITES[0].key: maps})
