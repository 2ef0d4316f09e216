# SPDX-License-Identifier: GPL-3.0-or-later
"""The garment file: what is written is read, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from comfyui_anydressing.anydressing_core.checkpoint import load_checkpoint
from comfyui_anydressing.anydressing_core.garment_file import (
    GarmentFile,
    GarmentInfo,
    load_garment,
    read_picture,
    save_garment,
)
from comfyui_anydressing.anydressing_core.sites import UNetShape

UNET = UNetShape((32, 64), (1, 1), (True, True), True, 8, 24)
SITES = [site for site in UNET.sites if site.stage == "up"]
DIGEST = "0123456789abcdef" * 4


def rand(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def garment(*, file="", levels=2, alpha=True, **changes):
    info = GarmentInfo(
        DIGEST, UNET, DIGEST, "upper", called="striped shirt", file=file, levels=((0.5, 4, 3), (2.0, 4, 3))[:levels]
    )
    trained = {site.key: rand(1, 5, site.channels) for site in UNET.sites} if file else {}
    pair = {site.key: (rand(1, 5, site.channels), -rand(1, 5, site.channels)) for site in SITES}
    picture = (255 * rand(32, 24, 4 if alpha else 3)).to(torch.uint8)
    return GarmentFile(replace(info, **changes), picture, rand(24), trained, [pair] * levels)


@pytest.mark.parametrize(
    "kept",
    [garment(), garment(file=DIGEST, levels=0), garment(file=DIGEST, alpha=False, loras=True), garment(by_model=True)],
    ids=["reference", "file", "both", "garment_model"],
)
def test_what_is_written_is_read(tmp_path, kept):
    path = tmp_path / "garment.safetensors"
    size = save_garment(path, kept)
    found = load_garment(path)
    assert path.stat().st_size == size
    assert found.info == kept.info
    assert found.tensors().keys() == kept.tensors().keys()
    assert all(torch.equal(tensor, kept.tensors()[name]) for name, tensor in found.tensors().items())
    assert torch.equal(read_picture(path), kept.picture)
    assert [path.name for path in tmp_path.iterdir()] == [path.name], "and nothing is left beside it"


def test_no_words_are_none(tmp_path):
    save_garment(tmp_path / "a.safetensors", replace(garment(), words=None))
    assert load_garment(tmp_path / "a.safetensors").words is None


def written(tmp_path, *, tensors=None, **metadata):
    """A garment file after somebody changed it. A tensor or an entry that is None is left out."""
    path = tmp_path / "garment.safetensors"
    kept = garment()
    save_garment(path, kept)
    with safetensors.safe_open(path, "pt") as file:
        entries = file.metadata() | metadata
    all_tensors = {name: tensor.clone() for name, tensor in kept.tensors().items()} | (tensors or {})
    content = safetensors.torch.save(
        {name: tensor for name, tensor in all_tensors.items() if tensor is not None},
        {name: text for name, text in entries.items() if text is not None},
    )
    path.write_bytes(content)
    return path


UP = SITES[0].key


@pytest.mark.parametrize(
    "changes",
    [
        {"anydressing_garment": None},
        {"anydressing_garment": "2"},
        {"slot": "Upper"},
        {"slot": "../x"},
        {"called": "two\nlines"},
        {"called": "x" * 2000},
        {"unet_digest": "0"},
        {"content": ""},
        {"by_model": "yes"},
        {"levels": "[[1, 2]]"},
        {"levels": "[[NaN, 4, 3], [1, 4, 3]]"},
        {"levels": json.dumps([[1.0, 4, 3]] * 65)},
        {"levels": "[]"},
        {"levels": "[[0.5, 4, 3]]"},
        {"unet_config": "{}"},
        {"licence": None},
        {"file": DIGEST},
        {"identity": None},
        {"identity": "0" * 64},
        {"licence": "somebody else's"},
        {"tensors": {"picture": None}},
        {"tensors": {"picture": torch.zeros(32, 24, 4)}},
        {"tensors": {"picture": torch.zeros(4, 4, 3, dtype=torch.uint8)}},
        {"tensors": {"more": torch.zeros(2)}},
        {"tensors": {f"levels.0.{UP}.key": None}},
        {"tensors": {f"levels.0.{UP}.key": torch.zeros(1, 5, 3)}},
        {"tensors": {f"levels.0.{UP}.key": torch.zeros(1, 4, SITES[0].channels)}},
        {"tensors": {f"levels.0.{UP}.key": torch.full((1, 5, SITES[0].channels), torch.nan)}},
        {"tensors": {f"levels.0.{UP}.key": torch.zeros(1, 5, SITES[0].channels, dtype=torch.float16)}},
        {"tensors": {"words": torch.zeros(23)}},
    ],
    ids=str,
)
def test_a_stranger_s_file_is_refused_in_plain_words(tmp_path, changes):
    path = written(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"'garment\.safetensors'") as refused:
        load_garment(path)
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("What to do: ")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "garment.safetensors"
    save_garment(path, garment())
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load_garment(path)


def test_the_two_kinds_of_file_are_not_taken_for_each_other(tmp_path):
    path = tmp_path / "garment.safetensors"
    save_garment(path, garment())
    with pytest.raises(ValueError, match=r"garment\.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize("changes", [{"called": "a\nb"}, {"slot": "A"}, {"unet_digest": ""}], ids=str)
def test_what_could_not_be_read_is_not_written(tmp_path, changes):
    with pytest.raises(ValueError, match="What to do"):
        save_garment(tmp_path / "garment.safetensors", garment(**changes))
    assert not [*tmp_path.iterdir()]
