# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step costs by formula, against what PyTorch counts in diffusers' U-Net (benchmarks/flops.json)."""

from __future__ import annotations

import json

import pytest
import torch
from comfyui_anydressing.anydressing_core.cost import row_flops, worn_flops
from comfyui_anydressing.anydressing_core.garment_kv import garment_kv
from comfyui_anydressing.anydressing_core.reference_attention import reference_kv, reference_sites
from comfyui_anydressing.anydressing_core.sites import SD15

SIZE = (96, 72)


@pytest.fixture(scope="module")
def counted(root):
    costs = json.loads((root / "benchmarks" / "flops.json").read_text())["costs"]
    return {(cost["scheme"], cost["garments"]): cost["step"] for cost in costs}


def worn(count, make, sites):
    """`count` garments of full size at some sites; numbers are not looked at."""

    def tokens(site):
        height, width = site.grid(*SIZE)
        return [torch.empty(1, height * width, site.channels, device="meta") for _ in range(count)]

    return {site.key: make(tokens(site)) for site in sites}


def test_a_plain_row_is_what_is_counted(counted):
    assert 2 * row_flops(SD15, SIZE) == counted["base", 0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_files_garments_are_what_is_counted(counted, count):
    trained = worn(count, lambda tokens: garment_kv(tokens, tokens, SD15.heads), SD15.sites)
    assert 2 * row_flops(SD15, SIZE) + worn_flops(SD15, SIZE, trained, None) == counted["ours", count]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_garments_by_reference_are_what_is_counted(counted, count):
    read = worn(count, lambda tokens: reference_kv(tokens, tokens, SD15.heads), reference_sites(SD15))
    assert 2 * row_flops(SD15, SIZE) + worn_flops(SD15, SIZE, None, read) == counted["reference mode", count]
