# SPDX-License-Identifier: GPL-3.0-or-later
"""One precision, one device: what is asked for, what a file says, and what is not there."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.training.hardware import DTYPES, Hardware, WantedHardware, choose_device, training_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def cards(monkeypatch):
    """`cards(n)`: a machine with n CUDA devices, as far as PyTorch's answers go."""

    def pretend(count, bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)

    return pretend


def test_auto_is_cuda_where_there_is_one_and_else_the_cpu(cards):
    cards(0)
    assert choose_device("auto") == CPU
    cards(2)
    assert choose_device("auto") == CUDA


def test_what_is_named_is_taken(cards):
    cards(2)
    assert [str(choose_device(name)) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("cuda", 0, "no CUDA device"),
        ("cuda:2", 2, "2 CUDA devices"),
        ("mps", 0, "no Apple GPU"),
        ("gpu", 0, "auto, cpu, cuda, cuda:N or mps"),
        ("cuda:-1", 1, "auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_what_is_not_there_is_refused_with_a_way_out(cards, monkeypatch, name, count, words):
    cards(count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"(?s)--device '{name}'.*{words}.*What to do: "):
        choose_device(name)


@pytest.mark.parametrize("trained_in", ["fp32", "bf16", "fp16"])
def test_auto_is_what_the_file_was_trained_in(trained_in):
    hardware = WantedHardware().for_file(trained_in)
    assert hardware.precision == trained_in
    assert hardware.dtype == DTYPES[trained_in]
    assert WantedHardware("fp32").for_file(trained_in).precision == "fp32"


def test_what_stands_beside_a_picture():
    assert Hardware(torch.device("cuda:1"), "bf16").told() == {"precision": "bf16", "device": "cuda:1"}


def test_training_takes_bf16_where_a_gpu_computes_it(cards):
    cards(1)
    assert training_precision("auto", CUDA) == "bf16"
    cards(1, bf16=False)
    assert training_precision("auto", CUDA) == "fp32"
    assert training_precision("auto", CPU) == "fp32"
    assert training_precision("bf16", CPU) == "bf16"
    assert training_precision("fp16", CUDA) == "fp16"


def test_fp16_needs_a_gpu_to_scale_its_gradients():
    with pytest.raises(ValueError, match=r'(?s)memory\.precision = "fp16" needs a CUDA device.*What to do: '):
        training_precision("fp16", CPU)
