# SPDX-License-Identifier: GPL-3.0-or-later
"""Chance is a function of seed, step and sample. The literals are promises: runs of today go on with them."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.training.run.noise import Draw, draws_of_step, micro_batches, noise_seed

DRAW = Draw(seed=7, step=3, position=13, item=2)


def test_seed_is_frozen():
    assert noise_seed(7, 3, 13, "noise") == 2958530682665679024
    assert noise_seed(7, 3, "person 2", "noise") == 9020356639547661190


def test_noise_seeds_are_those_of_every_machine_and_version():
    # sha256 of '[0,0,0,"noise"]' and so on, first 8 bytes, halved: printf '[0,0,0,"noise"]' | sha256sum
    assert noise_seed(0, 0, 0, "noise") == 2468257265342378738
    assert noise_seed(42, 99_999, 7, "timestep") == 5331688126775992565
    assert noise_seed(42, 99_999, "Größe 38", "dropout") == 1884040770545389240


def test_noise_seeds_differ_in_every_argument_and_fit_a_generator():
    lists = [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, "0", "a"), (0, 0, 0, "b")]
    seeds = [noise_seed(*arguments) for arguments in [*lists, (1, 11, 1, "a"), (11, 1, 1, "a")]]
    assert len(set(seeds)) == len(seeds)
    draws = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_draws_are_frozen():
    assert DRAW.uniform("dropout") == pytest.approx(0.5528594, abs=1e-7)
    assert [DRAW.integer(1000, purpose) for purpose in ("timestep", "other")] == [849, 757]
    torch.testing.assert_close(
        DRAW.normal((3,), "noise"), torch.tensor([1.016394, -0.280363, -1.187009]), atol=1e-6, rtol=0
    )


def test_order_is_frozen():
    assert [draw.item for step in range(3) for draw in draws_of_step(7, step, items=5, size=4)] == [
        2,
        3,
        0,
        4,
        1,
        4,
        1,
        2,
        3,
        0,
        1,
        0,
    ]


def test_every_draw_is_repeatable_and_every_purpose_has_chance_of_its_own():
    assert torch.equal(DRAW.normal((4,), "noise"), DRAW.normal((4,), "noise"))
    assert not torch.equal(DRAW.normal((4,), "noise"), DRAW.normal((4,), "other"))
    assert (
        len({noise_seed(*values) for values in [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a")]}) == 4
    )


def test_draws_leave_the_global_chance_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    DRAW.normal((4,), "noise")
    draws_of_step(0, 0, items=5, size=4)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(("items", "size"), [(5, 4), (12, 4), (3, 8), (1, 1)])
def test_every_item_comes_once_in_a_pass(items, size):
    draws = [draw for step in range(4 * items) for draw in draws_of_step(0, step, items, size)]
    assert [draw.position for draw in draws] == list(range(4 * items * size))
    for start in range(0, len(draws), items):
        assert sorted(draw.item for draw in draws[start : start + items]) == list(range(items))


def test_passes_have_different_orders():
    first, second = (tuple(draw.item for draw in draws_of_step(0, step, items=50, size=50)) for step in (0, 1))
    assert first != second


@pytest.mark.parametrize("micro", [1, 2, 3, 6])
def test_micro_batches_of_all_processes_are_the_step(micro):
    parts = [slice(0, 6), slice(6, 12)]
    plans = [list(micro_batches(0, range(5, 7), items=9, size=12, part=part, micro=micro)) for part in parts]
    assert all(len(batch) <= micro for plan in plans for batch in plan)
    together = sorted((draw for plan in plans for batch in plan for draw in batch), key=lambda draw: draw.position)
    assert together == draws_of_step(0, 5, 9, 12) + draws_of_step(0, 6, 9, 12)
