# SPDX-License-Identifier: GPL-3.0-or-later
"""Grouped LoRA: every garment its own update, all in one product (Eq. 3)."""

import pytest
import torch
from comfyui_anydressing.anydressing_core.lora import grouped_lora, stack_loras
from torch.nn import functional


def random_pair(rank, channels=6):
    return torch.randn(rank, channels), torch.randn(channels, rank)


def test_a_garments_update_by_hand():
    x = torch.tensor([[[1.0, 2.0]]])
    down, up = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0], [-1.0]]])
    # x down^T = 3 + 8 = 11; times up^T = (11, -11); times alpha / rank = 0.5
    assert grouped_lora(x, down, up, torch.tensor([0.5])).tolist() == [[[5.5, -5.5]]]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 8e-2)], ids=str
)
@pytest.mark.parametrize("garments", range(1, 9))
def test_each_garment_equals_its_own_merged_weight(garments, dtype, tolerance):
    torch.manual_seed(0)
    x = torch.randn(garments, 5, 6).to(dtype)
    pairs = [tuple(weight.to(dtype) for weight in random_pair(rank=2)) for _ in range(garments)]
    scale = torch.rand(garments) + 0.5
    out = grouped_lora(x, *stack_loras(pairs), scale)
    assert out.dtype == dtype
    for index, (down, up) in enumerate(pairs):
        want = functional.linear(x[index].float(), scale[index] * (up.float() @ down.float()))
        torch.testing.assert_close(out[index].float(), want, atol=tolerance, rtol=tolerance)


def test_ranks_may_differ_between_garments():
    torch.manual_seed(0)
    pairs = [random_pair(rank=1), random_pair(rank=4)]
    x = torch.randn(2, 3, 6)
    out = grouped_lora(x, *stack_loras(pairs), torch.ones(2))
    torch.testing.assert_close(out[0], functional.linear(x[0], pairs[0][1] @ pairs[0][0]))


def test_gradients_reach_only_the_garments_own_lora():
    torch.manual_seed(0)
    down = torch.randn(2, 2, 6, requires_grad=True)
    up = torch.randn(2, 6, 2, requires_grad=True)
    grouped_lora(torch.randn(2, 3, 6), down, up, torch.ones(2))[1].sum().backward()
    assert down.grad[0].abs().sum() == 0
    assert up.grad[0].abs().sum() == 0
    assert down.grad[1].abs().sum() > 0
    assert up.grad[1].abs().sum() > 0
