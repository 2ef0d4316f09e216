# SPDX-License-Identifier: GPL-3.0-or-later
"""One stage of a manifest again: what a hand made stays, what was said before a stop is not asked again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from comfyui_anydressing.training.commands.wardrobes import LAYOUTS
from comfyui_anydressing.training.data.manifest import read_manifest
from comfyui_anydressing.training.data.pictures import BadPictureError, Source
from comfyui_anydressing.training.paper_doll.world.published import write_published
from comfyui_anydressing.training.progress import Course, StoppedError
from comfyui_anydressing.training.wardrobes.captioner import load_captioner
from comfyui_anydressing.training.wardrobes.convert import Plan, convert
from comfyui_anydressing.training.wardrobes.stages import caption_again, mask_again
from PIL import Image
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

SIZE = (128, 96)
TEMPLATES = {
    *("a person wearing trousers and a shirt", "a person wearing a shirt and trousers"),
    *("a person wearing a skirt and a shirt", "a person wearing a shirt and a skirt"),
}


class Model:
    """Says the picture's name, and is asked no more often than it must be."""

    digest = "model 1"

    def __init__(self, refuses=()):
        self.asked, self.refuses = [], refuses

    def caption(self, person):
        self.asked.append(person.name)
        if person.name in self.refuses:
            raise BadPictureError(person.name, "it is damaged")
        return f"somebody in {person.name}"


class Parser:
    """Sees a box as every garment."""

    def __init__(self, digest="parser 1", slots=("upper", "lower")):
        self.digest, self.slots = digest, slots

    def parse(self, person):
        mask = np.zeros(SIZE, bool)
        mask[40:80, 30:60] = True
        return dict.fromkeys(self.slots, mask)


@pytest.fixture
def manifest(tmp_path):
    """Ten painted people, converted."""
    root = write_published(tmp_path / "src", 10, "dresscode", size=SIZE, hats=0)
    convert(Plan(LAYOUTS["dresscode"], root, tmp_path / "out", SIZE))
    return tmp_path / "out" / "manifest.jsonl"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "src"


def captions(manifest):
    return [item.caption for item in read_manifest(manifest).items]


def write_caption(manifest, place, caption):
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[place]["caption"] = caption
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_models_words_take_the_templates_place(manifest, root):
    assert set(captions(manifest)) <= TEMPLATES
    report = caption_again(manifest, Model(), root=root, only_missing=True)
    assert (report.made, report.kept) == (10, 0)
    assert all(caption.startswith("somebody in ") for caption in captions(manifest))


def test_a_caption_that_a_hand_wrote_stays(manifest, root):
    write_caption(manifest, 3, "my own words")
    caption_again(manifest, Model(), root=root, only_missing=False)
    write_caption(manifest, 5, "changed afterwards")
    caption_again(manifest, None, root=root, only_missing=False)
    said = captions(manifest)
    assert (said[3], said[5]) == ("my own words", "changed afterwards")
    assert {said[place] for place in range(10) if place not in (3, 5)} <= TEMPLATES


def test_a_manifest_with_a_byte_order_mark_is_captioned(manifest, root):
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())
    assert caption_again(manifest, Model(), root=root, only_missing=True).made == 10
    assert all(caption.startswith("somebody in ") for caption in captions(manifest))


def test_only_missing_leaves_what_a_model_said(manifest, root):
    caption_again(manifest, Model(), root=root, only_missing=True)
    before = captions(manifest)
    caption_again(manifest, None, root=root, only_missing=True)
    assert captions(manifest) == before


def test_what_was_said_before_a_stop_is_not_asked_again(manifest, root):
    stops, model = iter([False, True]), Model()
    with pytest.raises(StoppedError):
        caption_again(manifest, model, root=root, only_missing=True, course=Course(stop=lambda: next(stops)))
    assert 0 < len(model.asked) < 10
    caption_again(manifest, model, root=root, only_missing=True)
    assert len(model.asked) == len(set(model.asked)) == 10


def test_a_picture_that_tells_nothing_keeps_its_caption_and_is_named(manifest, root):
    bad = read_manifest(manifest).items[0]
    report = caption_again(manifest, Model({bad.image}), root=root, only_missing=True)
    assert captions(manifest)[0] in TEMPLATES
    assert f"{bad.id}: {bad.image}: it is damaged" in report.render()


def mask_files(manifest):
    return [manifest.parent / one.mask for item in read_manifest(manifest).items for one in item.garments]


def test_a_missing_mask_is_made_and_others_stay(manifest, root):
    first, *others = mask_files(manifest)
    before = [path.read_bytes() for path in others]
    first.unlink()
    report = mask_again(manifest, Parser(), root=root, only_missing=True)
    assert (report.made, report.kept) == (1, 19)
    assert np.array(Image.open(first)).astype(bool).sum() == 40 * 30
    assert [path.read_bytes() for path in others] == before


def test_a_mask_that_a_hand_painted_stays(manifest, root):
    by_hand = mask_files(manifest)[2]
    Image.new("L", SIZE[::-1], 255).save(by_hand)
    painted = by_hand.read_bytes()
    assert mask_again(manifest, Parser(), root=root, only_missing=False).made == 19
    assert by_hand.read_bytes() == painted
    assert mask_again(manifest, Parser(), root=root, only_missing=False).made == 0
    assert mask_again(manifest, Parser("parser 2"), root=root, only_missing=False).made == 19
    assert by_hand.read_bytes() == painted


def test_what_a_parser_does_not_see_is_told(manifest, root):
    report = mask_again(manifest, Parser(slots=("upper",)), root=root, only_missing=False)
    assert report.made == 10
    assert "no lower is seen" in report.render()


# --- a model of the documented kind ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """A random BLIP of a few thousand weights, as transformers saves it."""
    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "person", "in", "the", "park", "red", "shirt", "blue"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(1)
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = layers | {"vocab_size": len(words), "encoder_hidden_size": 16, "bos_token_id": 2, "sep_token_id": 3}
    text |= {"eos_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(text_config=text, vision_config=layers | {"image_size": 32, "patch_size": 16}, projection_dim=8)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    processor = BlipProcessor(
        BlipImageProcessor(size={"height": 32, "width": 32}), BertTokenizer(str(folder / "vocab.txt"))
    )
    processor.save_pretrained(folder)
    return folder


def test_a_model_from_a_folder_says_the_same_twice(blip, manifest, root):
    model = load_captioner(blip, torch.device("cpu"))
    item = read_manifest(manifest, root).items[0]
    person = Source.find(item.image, root / item.image)
    said = model.caption(person)
    assert said == model.caption(person)
    assert set(said.split()) <= {"a", "person", "in", "the", "park", "red", "shirt", "blue", "[UNK]", "[MASK]"}
    assert model.digest != load_captioner(blip, torch.device("cpu"), "a").digest


def test_a_folder_without_a_captioner_is_told_what_belongs_there(tmp_path):
    with pytest.raises(ValueError, match=r"\*\.safetensors is expected"):
        load_captioner(tmp_path, torch.device("cpu"))
