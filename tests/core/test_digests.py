# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests are promises: runs, caches and evidence hold them, and later versions must find them again."""

from __future__ import annotations

import json

import torch
from comfyui_anydressing.anydressing_core.checkpoint import load_checkpoint
from comfyui_anydressing.anydressing_core.digests import content_key, ordered_digest, tensor_digest

HALF = torch.arange(6, dtype=torch.float16).reshape(2, 3)
WHOLE = torch.tensor([1.5, -2.0])


def test_what_was_written_by_earlier_versions_is_found_again():
    assert content_key("text", 1, "word") == "3dac4c324c31ad9c5bcdd451b5b4a8a7e19adf9d3a01c137d531ff2a66042f13"
    named = tensor_digest({"b": HALF, "a": WHOLE}, "x")
    assert named == "3da72fd8a65413c44a88d5b92fcfe7b9bd7c26d1affd472d2cbfd3dfda1d0516"
    ordered = ordered_digest(WHOLE, "upper", HALF)
    assert ordered == "c6b7804dba89964b82cf9bae92080946fba53e00dd2be842c4fa03872756fc05"


def test_the_shipped_file_is_the_one_that_the_evidence_measured(root):
    measured = json.loads((root / "docs" / "evidence" / "figures" / "dressing.json").read_text())
    assert (
        load_checkpoint(root / "demo" / "anydressing" / "paper_doll.safetensors").identity == measured["about"]["file"]
    )


def test_names_dtypes_shapes_values_and_words_all_count_and_order_does_not():
    one = tensor_digest({"a": WHOLE, "b": HALF}, "x")
    assert one == tensor_digest({"b": HALF, "a": WHOLE}, "x")
    others = [
        tensor_digest({"a": WHOLE, "c": HALF}, "x"),
        tensor_digest({"a": WHOLE, "b": HALF.float()}, "x"),
        tensor_digest({"a": WHOLE, "b": HALF.reshape(3, 2)}, "x"),
        tensor_digest({"a": WHOLE, "b": HALF + 1}, "x"),
        tensor_digest({"a": WHOLE, "b": HALF}, "y"),
    ]
    assert len({one, *others}) == 6


def test_strides_and_numbers_without_dimension_change_nothing():
    assert tensor_digest({"a": HALF.T.contiguous().T}) == tensor_digest({"a": HALF})
    assert len(tensor_digest({"a": torch.tensor(3.0)})) == 64
