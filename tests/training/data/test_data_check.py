# SPDX-License-Identifier: GPL-3.0-or-later
"""The data check finds what is wrong, names it, counts it, and finds nothing in a clean data set."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from typing import get_args

import numpy as np
import pytest
import torch
from comfyui_anydressing.anydressing_core.heat_maps import COLOURS
from comfyui_anydressing.training.base import tokenizer as base_tokenizer
from comfyui_anydressing.training.data.cache import CachePlan, build_cache
from comfyui_anydressing.training.data.check import check_data
from comfyui_anydressing.training.data.findings import EXAMPLES, KINDS, DataReport, Note
from comfyui_anydressing.training.data.manifest import read_manifest
from comfyui_anydressing.training.data.pictures import Fault
from comfyui_anydressing.training.paper_doll.world import write_dataset
from PIL import Image
from support.letters import write_letters

SIZE = (128, 96)
UPPER, LOWER = 0, 1


class Data:
    """A copy of the painted people train-0000000, -1, -2 and held_out-0000000, all in an upper and a lower garment."""

    def __init__(self, folder, tokenizer):
        self.folder, self.tokenizer = folder, tokenizer
        self.lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]

    def manifest(self):
        path = self.folder / "manifest.jsonl"
        path.write_text("\n".join(map(json.dumps, self.lines)))
        return path

    def check(self, resolution=SIZE, **changes):
        return check_data(self.manifest(), resolution, **{"tokenizer": self.tokenizer, **changes})

    def image(self, person=0):
        return self.folder / self.lines[person]["image"]

    def garment(self, index=UPPER, person=0):
        return self.folder / self.lines[person]["garments"][index]["image"]

    def mask(self, index=UPPER, person=0):
        return self.folder / self.lines[person]["garments"][index]["mask"]


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painted") / "dolls"
    write_dataset(folder, 3, size=SIZE, hats=0)
    manifest = write_dataset(folder, 1, size=SIZE, hats=0, split="held_out")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("\n".join(json.dumps(line | {"caption": f"doll {n}"}) for n, line in enumerate(lines)))
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """CLIP's without a merge: a token for every letter."""
    folder = tmp_path_factory.mktemp("sd1_tokenizer")
    write_letters(folder)
    return folder


@pytest.fixture
def data(painted, tokenizer, tmp_path):
    return Data(shutil.copytree(painted, tmp_path / "dolls"), tokenizer)


def kinds(report):
    return Counter(note.kind for note in report.notes)


def box_mask(path, *box, size=SIZE):
    """Overwrite a mask: white in the box (left, top, right, bottom)."""
    mask = Image.new("L", size[::-1])
    mask.paste(255, box)
    mask.save(path)


def test_pictures_may_stay_in_a_root_that_is_only_read(data, tmp_path):
    before = data.check()
    own = tmp_path / "own"
    own.mkdir()
    for part in ("m", "manifest.jsonl"):
        shutil.move(data.folder / part, own / part)
    after = check_data(own / "manifest.jsonl", SIZE, root=data.folder, tokenizer=data.tokenizer)
    assert (after.facts, after.notes) == (before.facts, before.notes)


# --- nothing wrong ---------------------------------------------------------------------------------------------------


def test_a_clean_data_set_has_no_finding(data):
    report = data.check()
    assert report.notes == []
    assert report.status == 0
    assert report.render().endswith("Nothing is wrong with this data.")


def test_the_facts_are_those_of_the_data(data):
    facts = dict(data.check().facts)
    assert facts["people"] == "3 in train, 1 in held_out"
    assert facts["upper"] == facts["lower"] == "4 inshop"
    assert facts["person sizes"] == facts["garment sizes"] == "128 x 96"
    assert facts["trained"] == "3 people in 6 garments, at 128 x 96 (height x width)"
    assert facts["captions"] == "5 to 5 tokens"
    assert facts["adapter.slots"] == '["upper", "lower"]'
    least, most = (int(part.strip("% ")) for part in facts["garments take"].partition(" of")[0].split("to"))
    assert 15 < least < most < 85


def test_the_slots_are_those_that_somebody_wears(data):
    for line in data.lines:
        line["garments"] = line["garments"][:1]
    assert dict(data.check().facts)["adapter.slots"] == '["upper"]'


def test_other_sizes_are_told_smallest_and_largest(data):
    with Image.open(data.garment()) as picture:
        picture.resize((192, 256)).save(data.garment())
    assert dict(data.check().facts)["garment sizes"] == "128 x 96 to 256 x 192, 2 different ones"


class SD15Encoders:
    """Latents and embeddings of SD1.5's shapes."""

    latent_fingerprint, text_fingerprint = "vae", "clip"

    def encode_mode(self, images):
        return torch.zeros(len(images), 4, images.shape[2] // 8, images.shape[3] // 8)

    def encode_text(self, texts):
        return torch.zeros(len(texts), 77, 768)


def test_the_expected_cache_is_as_large_as_the_real_one(data, tmp_path):
    data.lines[1]["garments"][LOWER] |= {"image": None, "kind": "crop"}
    data.lines[2]["caption"] = data.lines[0]["caption"]
    (tmp_path / "cache").mkdir()
    manifest = read_manifest(data.manifest())
    build_cache(manifest, SD15Encoders(), tmp_path / "cache", CachePlan((512, 384), ("upper", "lower")))
    sizes = [path.stat().st_size for path in (tmp_path / "cache").glob("??/*")]
    on_disk = sum(-(-size // 4096) * 4096 for size in sizes) / 2**20
    assert dict(data.check((512, 384)).facts)["cache"].startswith(f"about {on_disk:.1f} MiB")


def test_whoever_waits_is_told(data):
    seen = []
    data.check(progress=lambda *state: seen.append(state))
    assert seen == [("checking people", 0, 4), ("checking people", 4, 4)]


# --- problems --------------------------------------------------------------------------------------------------------


def delete(data):
    data.garment().unlink()


def truncate(data):
    content = data.image().read_bytes()
    data.image().write_bytes(content[: len(content) // 2])


def cut_short_mask(data):
    data.mask().write_bytes(data.mask().read_bytes()[:-40])


def write_words(data):
    data.mask().write_text("not a picture")


def save_as_gif(data):
    Image.new("RGB", SIZE[::-1]).save(data.garment(), "gif")


def delete_person_mask(data):
    (data.folder / data.lines[0]["person_mask"]).unlink()


def halve_mask(data):
    box_mask(data.mask(), 10, 10, 30, 30, size=(64, 48))


def empty_mask(data):
    box_mask(data.mask(), 0, 0, 0, 0)


def label_map(data):
    with Image.open(data.mask()) as mask:
        labels = Image.fromarray((np.array(mask.convert("L")) > 0).astype(np.uint8) * 5, "P")
    labels.putpalette([0, 0, 0] * 5 + [255, 85, 0])
    labels.save(data.mask())


def mask_of_ones(data):
    with Image.open(data.mask()) as mask:
        Image.fromarray((np.array(mask.convert("L")) > 0).astype(np.uint8)).save(data.mask())


def bleach_garment(data):
    Image.new("RGB", SIZE[::-1], "white").save(data.garment())


def lead_out(data):
    outside = data.folder.parent / "outside.png"
    data.mask().rename(outside)
    data.mask().symlink_to(outside)


@pytest.mark.parametrize(
    ("spoil", "kind", "file", "why"),
    [
        (delete, "unreadable", "g/train-0000000_upper.png", "there is no such file"),
        (truncate, "unreadable", "img/train-0000000.png", "damaged or incomplete"),
        (cut_short_mask, "unreadable", "m/train-0000000_upper.png", "damaged or incomplete"),
        (write_words, "unreadable", "m/train-0000000_upper.png", "not a picture in one of PNG"),
        (save_as_gif, "unreadable", "g/train-0000000_upper.png", "not a picture in one of PNG"),
        (delete_person_mask, "unreadable", "m/train-0000000_person.png", "there is no such file"),
        (halve_mask, "mask size", "m/train-0000000_upper.png", "the mask is 48 x 64 pixels, its person 96 x 128"),
        (empty_mask, "empty mask", "m/train-0000000_upper.png", "no pixel is 128 of 255 or brighter"),
        (label_map, "label map", "m/train-0000000_upper.png", "coloured by a palette"),
        (mask_of_ones, "empty mask", "m/train-0000000_upper.png", "values of 0 and 1 are to be multiplied by 255"),
        (bleach_garment, "blank", "g/train-0000000_upper.png", "no garment can be told from its ground"),
        (lead_out, "link", "m/train-0000000_upper.png", "it leads out of the data folder"),
    ],
)
def test_what_cannot_be_used_is_a_problem_of_this_person_and_file(data, spoil, kind, file, why):
    spoil(data)
    report = data.check()
    (note,) = report.notes
    assert (note.kind, note.person) == (kind, "train-0000000")
    assert file in note.text
    assert why in note.text
    assert f"PROBLEM: 1 x {KINDS[kind].what}\n  train-0000000: {note.text}\n  What to do: " in report.render()
    assert report.status == 1  # one of three
    assert report.render().endswith("1 of 4 people have problems; too many: 5% of a split may.")
    assert dict(report.facts)["trained"].startswith("2 people")


def test_links_in_a_circle_are_a_problem(data):
    data.mask().unlink()
    data.mask().symlink_to(data.mask().name)
    report = data.check()
    assert [note.person for note in report.notes] == ["train-0000000"]
    assert KINDS[report.notes[0].kind].level == "problem"  # which one depends on Python


def test_a_garment_outside_of_the_crop_is_a_problem(data):
    box_mask(data.mask(LOWER), 20, 118, 70, 128)
    report = data.check((64, 96))
    assert [note.person for note in report.notes if note.kind == "cut off"] == ["train-0000000"]
    assert report.status == 1


def test_every_bad_file_of_a_person_is_named_and_the_person_counted_once(data):
    data.garment(UPPER).unlink()
    data.garment(LOWER).unlink()
    data.mask(LOWER).unlink()
    report = data.check()
    assert kinds(report) == {"unreadable": 3}
    assert report.bad == {"train": 1}


def test_a_cut_out_shares_its_mask_s_fault_without_naming_it_twice(data):
    data.lines[0]["garments"][UPPER] |= {"image": None, "kind": "crop"}
    empty_mask(data)
    assert kinds(data.check()) == {"empty mask": 1}


def test_a_few_examples_stand_for_all(data):
    for person in range(4):
        data.garment(person=person).unlink()
    text = data.check().render()
    assert f"PROBLEM: 4 x {KINDS['unreadable'].what}" in text
    assert text.count("there is no such file") == EXAMPLES
    assert "  and 1 more\n" in text


@pytest.mark.parametrize(
    ("bad", "status"), [({}, 0), ({"train": 5}, 0), ({"train": 6}, 1), ({"held_out": 1}, 0), ({"held_out": 2}, 1)]
)
def test_a_twentieth_of_each_split_may_be_bad(bad, status):
    report = DataReport(
        [("people", "120")], [Note("empty mask", "a", "m/a.png")], Counter(train=100, held_out=20), Counter(bad)
    )
    assert report.status == status
    assert ("too many" in report.render()) == bool(status)


def test_every_fault_of_a_picture_is_a_kind_of_problem():
    assert all(KINDS[fault].level == "problem" for fault in get_args(Fault))


def test_a_manifest_that_cannot_be_read_is_refused(data):
    data.lines[1]["garments"] = []
    with pytest.raises(ValueError, match=r"line 2 of 'manifest\.jsonl' cannot be used"):
        data.check()


# --- warnings --------------------------------------------------------------------------------------------------------


def copy_person_within(data):
    shutil.copy(data.image(0), data.image(1))


def copy_person_between(data):
    shutil.copy(data.image(0), data.image(3))


def copy_garment_between(data):
    shutil.copy(data.garment(person=0), data.garment(person=3))


def cut_all_out(data):
    for line in data.lines:
        line["garments"] = [garment | {"image": None, "kind": "crop"} for garment in line["garments"]]


def overlap(data):
    box_mask(data.mask(UPPER), 20, 20, 60, 60)
    box_mask(data.mask(LOWER), 20, 50, 60, 90)


def shrink_mask(data):
    box_mask(data.mask(), 40, 40, 50, 50)  # 100 of 12,288 pixels


def spread_mask(data):
    box_mask(data.mask(), 0, 0, 96, 80)
    box_mask(data.mask(LOWER), 0, 80, 96, 128)


def grey_mask(data):
    with Image.open(data.mask()) as mask:
        Image.fromarray(np.maximum(np.array(mask), 60)).save(data.mask())


def shrink_garment(data):
    with Image.open(data.garment()) as picture:
        picture.resize((47, 63)).save(data.garment())


def person_as_garment(data):
    shutil.copy(data.image(), data.garment())


def garment_on_noise(data):
    with Image.open(data.garment()) as picture:
        pixels = np.array(picture.convert("RGB"))
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    Image.fromarray(np.where((pixels == 255).all(axis=2, keepdims=True), noise, pixels)).save(data.garment())


def lengthen_caption(data):
    data.lines[0]["caption"] = "a" * 76


def emphasise(data):
    data.lines[0]["caption"] = "a (red:1.3) shirt"


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (copy_person_within, "duplicate", "train-0000001: 'img/train-0000001.png': train-0000000 has the same"),
        (copy_person_between, "leak", "held_out-0000000: 'img/held_out-0000000.png': train-0000000 of train"),
        (copy_garment_between, "shared garment", "held_out-0000000: 'g/held_out-0000000_upper.png': train-0000000"),
        (cut_all_out, "no in-shop", "expect weaker results"),
        (overlap, "overlap", "shares 25% with 'm/train-0000000_upper.png'"),
        (shrink_mask, "small mask", "'m/train-0000000_upper.png': covers 0.8%"),
        (spread_mask, "large mask", "'m/train-0000000_upper.png': covers 62.5%"),
        (grey_mask, "grey mask", "'m/train-0000000_upper.png': "),
        (shrink_garment, "small picture", "'g/train-0000000_upper.png': 63 x 47"),
        (garment_on_noise, "ground", "'g/train-0000000_upper.png': 100% of it is no plain ground"),
        (lengthen_caption, "long caption", "train-0000000: 76 tokens"),
        (emphasise, "parentheses", "train-0000000: 'a (red:1.3) shirt'"),
    ],
)
def test_what_looks_wrong_is_a_warning_and_stops_nothing(data, spoil, kind, words):
    spoil(data)
    report = data.check()
    assert kinds(report) == {kind: 1}
    assert report.status == 0
    assert f"WARNING: 1 x {KINDS[kind].what}" in report.render()
    assert words in report.render()
    assert report.render().endswith("All of it can be trained on; see the warnings above.")


def test_a_garment_picture_that_is_the_person_s_own_is_told(data):
    person_as_garment(data)
    report = data.check()
    assert kinds(report)["same picture"] == 1
    assert "'g/train-0000000_upper.png': it is the picture of train-0000000" in report.render()
    assert report.status == 0


def test_people_of_another_shape_than_the_resolution_are_told(data):
    report = data.check((96, 96))  # 128 x 96 loses a quarter
    assert kinds(report) == {"cropped": 4}
    assert "'img/train-0000000.png': 128 x 96 loses 25%" in report.render()


def test_pictures_half_as_large_are_large_enough(data):
    assert data.check((256, 192)).notes == []
    assert kinds(data.check((264, 200))) == {"small picture": 12}  # four people, eight garments


def test_captions_of_75_tokens_are_short_enough(data):
    data.lines[0]["caption"] = "a" * 75
    report = data.check()
    assert report.notes == []
    assert dict(report.facts)["captions"] == "5 to 75 tokens"


def test_without_a_tokenizer_it_says_that_captions_were_not_counted(data, monkeypatch, tmp_path):
    monkeypatch.setattr(base_tokenizer, "tokenizer_places", lambda path: [tmp_path])
    lengthen_caption(data)
    report = data.check(tokenizer=None)
    assert report.notes == []
    assert "not counted: CLIP's tokenizer was not found. Name its folder with --tokenizer." in report.render()


def test_a_named_tokenizer_that_is_not_there_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="CLIP's tokenizer was not found"):
        data.check(tokenizer=tmp_path)


# --- the sheet -------------------------------------------------------------------------------------------------------


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture)


def test_the_sheet_outlines_each_mask_in_its_garment_s_colour(data, tmp_path):
    box_mask(data.mask(UPPER), 24, 16, 72, 64)
    box_mask(data.mask(LOWER), 24, 64, 72, 112)
    data.lines = data.lines[:1]
    report = data.check(sheet=tmp_path / "sheet.png")
    assert dict(report.facts)["sheet"] == f"1 of 1 people in {tmp_path / 'sheet.png'}"
    picture = pixels(tmp_path / "sheet.png")[94:414, 28:268]  # the person, 2.5 times as large as painted
    for colour, top in ((COLOURS[UPPER], 40), (COLOURS[LOWER], 160)):
        found = np.abs(picture.astype(int) - colour).max(axis=2) < 8
        assert found[top + 20 : top + 100, 57:63].any(axis=1).all()  # down the left edge, x = 60
        assert found[top + 20 : top + 100, 177:183].any(axis=1).all()  # and the right one, x = 180
        assert not found[top + 20 : top + 100, 75:165].all(axis=1).any()


def test_the_sheet_marks_who_has_a_warning(data, tmp_path):
    data.check(sheet=tmp_path / "clean.png")
    emphasise(data)
    data.check(sheet=tmp_path / "marked.png")
    clean, marked = (pixels(tmp_path / name)[70:92] for name in ("clean.png", "marked.png"))  # the line of names
    changed = np.flatnonzero((clean != marked).any(axis=(0, 2)))
    assert changed.size
    assert changed.max() < 28 + 370  # of the first card alone


def test_the_sheet_leaves_out_who_cannot_be_drawn(data, tmp_path):
    for person in range(4):
        data.image(person).unlink()
    facts = dict(data.check(sheet=tmp_path / "sheet.png").facts)
    assert facts["sheet"].startswith("0 of 4 people")
    assert (tmp_path / "sheet.png").is_file()


def test_a_sheet_shows_24_people_from_first_to_last(data, tmp_path):
    first, last = data.lines[0], data.lines[-1]
    data.lines = [first | {"id": f"p{number}"} for number in range(29)] + [last]
    report = data.check(sheet=tmp_path / "sheet.png")
    assert dict(report.facts)["sheet"].startswith("24 of 30 people")
    assert len({hashlib.sha256(card.tobytes()).digest() for card in cards(tmp_path / "sheet.png")}) == 2


def cards(path):
    """The pictures of the people, without their names, from a sheet of four columns."""
    sheet, (width, height) = pixels(path), (240 + 10 + 120 + 26, 320 + 4 * 22 + 26)
    corners = [(28 + 44 + 22 + row * height, 28 + column * width) for row in range(6) for column in range(4)]
    return [sheet[top : top + 320, left : left + 240] for top, left in corners]


@pytest.mark.parametrize(
    ("caption", "found"),
    [("穿着红色衬衫的女人", 1), ("женщина в парке", 1), ("a woman in a café, façade behind", 0), ("1 2 3", 0)],
)
def test_captions_in_other_letters_are_named(data, caption, found):
    data.lines[0]["caption"] = caption
    report = data.check()
    assert kinds(report)["other letters"] == found
    assert report.status == 0


def test_a_page_shows_everybody_and_says_what_was_found_of_whom(data, tmp_path):
    data.image(1).unlink()
    emphasise(data)
    report = data.check(sheet=tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text()
    assert dict(report.facts)["sheet"].startswith("4 of 4 people")
    assert text.count("<article") == 4
    assert text.count('data-kinds="unreadable"') == text.count('data-kinds="parentheses"') == 1
    assert text.count("data:image/jpeg;base64,") == 3  # all but the one whose picture is gone
    assert "there is no such file" in text


def test_what_strangers_write_stays_text_on_a_page(data, tmp_path):
    data.lines[0]["caption"] = 'a <script>alert(1)</script> "> <b>woman</b>'
    data.check(sheet=tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text()
    assert "<script>alert" not in text
    assert "<b>woman" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("name", ["sheet.jpg", "nowhere/sheet.png"])
def test_a_sheet_that_could_not_be_written_is_refused_before_anything_is_opened(data, tmp_path, name):
    seen = []
    with pytest.raises(ValueError, match="cannot be written"):
        data.check(sheet=tmp_path / name, progress=lambda *state: seen.append(state))
    assert seen == []
