# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsers: a small random model of the architecture that is documented, and the doll's own, which knows her."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfyui_anydressing.training.commands.wardrobes import LAYOUTS, DollParser
from comfyui_anydressing.training.data.manifest import read_manifest
from comfyui_anydressing.training.data.pictures import Source
from comfyui_anydressing.training.paper_doll.world.samples import sample
from comfyui_anydressing.training.wardrobes.convert import Plan, convert
from comfyui_anydressing.training.wardrobes.parser import classes_of, load_parser
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

FASHN = {
    **{0: "background", 1: "face", 2: "hair", 3: "top", 4: "dress", 5: "skirt", 6: "pants", 7: "belt", 8: "bag"},
    **{
        9: "hat",
        10: "scarf",
        11: "glasses",
        12: "arms",
        13: "hands",
        14: "legs",
        15: "feet",
        16: "torso",
        17: "jewelry",
    },
}
B2_CLOTHES = {
    **{0: "Background", 1: "Hat", 2: "Hair", 3: "Sunglasses", 4: "Upper-clothes", 5: "Skirt", 6: "Pants", 7: "Dress"},
    **{
        8: "Belt",
        9: "Left-shoe",
        10: "Right-shoe",
        11: "Face",
        12: "Left-leg",
        13: "Right-leg",
        16: "Bag",
        17: "Scarf",
    },
}


def segformer(folder, names):
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[3, 3],
        strides=[4, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return segformer(tmp_path_factory.mktemp("parser"), FASHN)


@pytest.fixture
def person(tmp_path):
    path = tmp_path / "person.png"
    Image.fromarray(sample(0, size=(128, 96), hats=0).person).save(path)
    return Source.find("person.png", path)


def test_classes_are_known_by_their_names():
    assert classes_of(FASHN) == {"upper": [3], "lower": [5, 6], "dress": [4], "hat": [9], "bag": [8]}
    clothes = classes_of(B2_CLOTHES)
    assert clothes == {"upper": [4], "lower": [5, 6], "dress": [7], "hat": [1], "shoes": [9, 10], "bag": [16]}


def test_every_pixel_gets_its_likeliest_class_as_the_textbook_has_it(folder, person):
    found = load_parser(folder, torch.device("cpu")).parse(person)
    model = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    pixels = SegformerImageProcessor.from_pretrained(folder)(Image.open(person.path), return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(model(pixels).logits, (128, 96), mode="bilinear")
    expected = logits[0].argmax(dim=0).numpy()
    assert found["lower"].shape == (128, 96)
    assert np.array_equal(found["lower"], np.isin(expected, [5, 6]))


def test_a_folder_without_a_model_is_told_what_belongs_there(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json, preprocessor_config\.json and model\.safetensors"):
        load_parser(tmp_path, torch.device("cpu"))


def test_pickled_weights_are_not_read(folder, tmp_path):
    torch.save({}, tmp_path / "pytorch_model.bin")
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match="is not there"):
        load_parser(tmp_path, torch.device("cpu"))


def test_a_model_of_other_things_is_refused(tmp_path):
    segformer(tmp_path, {0: "road", 1: "sky"})
    with pytest.raises(ValueError, match="Its classes are called road, sky"):
        load_parser(tmp_path, torch.device("cpu"))


def test_people_without_masks_are_parsed(root, tmp_path):
    """The doll's parser stands behind the same interface; it finds garments as well as it does on the bench."""
    (tmp_path / "src/people").mkdir(parents=True)
    painted = [sample(number, "held_out", (384, 288), 0) for number in range(3)]
    for number, one in enumerate(painted):
        Image.fromarray(one.person).save(tmp_path / "src/people" / f"{number}.png")
    parser = DollParser(root / "demo" / "paper_doll_parser.safetensors")
    plan = Plan(LAYOUTS["photos"], tmp_path / "src", tmp_path / "out", (384, 288), held_out=0, parser=parser)
    assert convert(plan).status == 0
    items = read_manifest(tmp_path / "out" / "manifest.jsonl").items
    assert len(items) == 3
    for item, one in zip(items, painted, strict=True):
        for garment in item.garments:
            found = np.array(Image.open(tmp_path / "out" / garment.mask)) > 0
            true = one.garments[garment.slot].mask
            assert (found & true).sum() / (found | true).sum() > 0.85, (item.id, garment.slot)
        assert {garment.slot for garment in item.garments} == {"upper", "lower"}
