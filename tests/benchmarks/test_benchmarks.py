# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of FLOPs in `benchmarks` is what the code costs, and the cost stays within its bounds."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from comfyui_anydressing.anydressing_core.sites import SD15
from comfyui_anydressing.benchmarks import flops, schemes, training, training_counts, training_page, training_speed
from comfyui_anydressing.benchmarks.rehearsal import Rehearsal, fake_rehearsal, tiny_networks
from comfyui_anydressing.training.model.processors import DressingRole, dressed_prediction
from comfyui_anydressing.training.run.needs import read_table


@pytest.fixture(scope="module")
def meter() -> flops.Meter:
    return flops.Meter()


@pytest.fixture(scope="module")
def costs(meter) -> dict[tuple[str, int], flops.Cost]:
    return {(cost.scheme, cost.garments): cost for cost in flops.count(meter)}


def test_counter_sees_attention_on_meta_tensors():
    query = torch.empty(1, 8, 6, 40, device="meta")
    key = torch.empty(1, 8, 10, 40, device="meta")
    attention = partial(torch.nn.functional.scaled_dot_product_attention, query, key, key)
    assert flops.flops(attention) == 2 * (2 * 8 * 6 * 10 * 40)  # Q K^T, then its product with V


def test_undressed_unet_costs_what_is_known_of_sd15(meter):
    assert meter.plain_row == pytest.approx(1.496e12, rel=1e-3)


@pytest.mark.parametrize(
    ("garments", "null_token"),
    [(schemes.Garments(2), True), (schemes.Garments(3, schemes.HALF, kept=0.5), False)],
)
def test_sites_add_up_to_the_whole_dressed_unet(meter, garments, null_token):
    role = DressingRole({site.key: schemes.laid_out(site, garments, null_token) for site in SD15.sites}, 0.7)
    latents = torch.empty(1, 4, *schemes.FULL, device="meta")
    timestep, text = torch.zeros(1, device="meta"), torch.empty(1, 77, 768, device="meta")
    whole = flops.flops(lambda: dressed_prediction(meter.unet, latents, timestep, text, role))
    assert meter.row(partial(schemes.dressed, garments=garments, null_token=null_token)) == whole


@pytest.mark.parametrize(
    ("scheme", "per_garment"),
    [(flops.OURS, 12.0), (flops.OURS_NULL, 14.0), (flops.OURS_HALF, 3.0), (flops.OURS_HALF_NULL, 3.5)],
)
def test_a_garment_adds_no_more_than_promised(costs, scheme, per_garment):
    for number in flops.NUMBERS:
        assert costs[scheme, number].over_base <= number * per_garment


# TFLOP per step, counted once with the same counter on those methods' own attention code, which is not kept here.
OWN_CODE = {
    (flops.MAGIC, 1): 5.214,
    (flops.MAGIC_JOINT, 1): 7.820,
    (flops.IMAG, 1): 3.383,
    (flops.STABLE, 1): 4.748,
    (flops.FASTFIT, 1): 3.062,
    (flops.FASTFIT, 2): 3.236,
    (flops.FASTFIT, 5): 3.759,
    (flops.FASTFIT_UNCACHED, 1): 3.656,
    (flops.FASTFIT_UNCACHED, 5): 6.733,
}


@pytest.mark.parametrize("line", OWN_CODE, ids=str)
def test_restated_scheme_costs_what_the_method_costs(costs, line):
    assert costs[line].step == pytest.approx(OWN_CODE[line] * 1e12, rel=1e-3)


def test_every_scheme_says_what_is_counted(costs):
    assert {scheme for scheme, _ in costs} == set(flops.COUNTED)


def test_committed_result_is_what_the_code_counts(costs):
    stored = json.loads(flops.RESULT.read_text())
    stale = "flops.json is stale: run `python -m benchmarks.flops --write`"
    assert [flops.Cost(**line) for line in stored["costs"]] == list(costs.values()), stale


@pytest.fixture(scope="module")
def tiny_config():
    return training_counts.step_config(1, False, 'memory.precision="fp32"', *training_speed.TINY)


def test_the_parts_of_a_training_step_add_up_to_it(tiny_config):
    parts = training_counts.parts(tiny_config, tiny_networks)
    step = training_counts.flops_of(fake_rehearsal(tiny_config, tiny_networks).run)
    assert sum(part.forward + part.backward for part in parts) == step
    assert all(part.forward > 0 and part.held > 0 for part in parts)


def test_measuring_is_rehearsed_on_a_cpu():
    rehearsal = Rehearsal(training_counts.step_config(2, True, *training_speed.TINY), tiny_networks("fp32").fill("cpu"))
    speed = training_speed.speed_of(rehearsal, torch.device("cpu"))
    assert (speed.batch, speed.checkpointing) == (2, True)
    assert min(speed.base, speed.full, speed.flops) > 0  # which is faster, a busy machine may say otherwise
    assert training_speed.attention_kernel(48, torch.device("cpu"), torch.float32) == "flash_attention_for_cpu"


def test_the_page_on_training_memory_has_the_tables_numbers():
    page = training.PAGE.read_text()
    for preset, by_precision in read_table().items():
        for precision, memory in by_precision.items():
            row = next(line for line in page.splitlines() if line.startswith(f"| {preset} | {precision} |"))
            assert f"**{memory.peak:.2f}**" in row, "stale: run `python -m benchmarks.training --write`"
    assert training_page.goal(read_table()) in page
