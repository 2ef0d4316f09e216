# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper-doll world keeps its promises: the same bits, exact masks, white flat-lays, a split that never leaks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comfyui_anydressing.training.data.manifest import read_manifest
from comfyui_anydressing.training.paper_doll import world as paper_doll
from comfyui_anydressing.training.paper_doll.world import (
    LABEL_SPACES,
    SLOTS,
    SPLITS,
    draw_recipe,
    render,
    sample,
    split_of,
)
from comfyui_anydressing.training.paper_doll.world.captions import POSE_WORDS, SCENE_WORDS
from comfyui_anydressing.training.paper_doll.world.colours import CLOTH_COLOURS, DENIM_COLOURS
from comfyui_anydressing.training.paper_doll.world.flat_lays import flat_lay
from comfyui_anydressing.training.paper_doll.world.prints import LETTERS, WORDS
from comfyui_anydressing.training.paper_doll.world.textures import ONE_COLOUR, TEXTURES, TILE, Dye
from comfyui_anydressing.training.progress import Course, StoppedError
from PIL import Image

SMALL = (128, 96)


@pytest.fixture(scope="module")
def samples():
    """Forty small samples, everybody with a hat."""
    return [sample(seed, split, SMALL, hats=1) for seed in range(20) for split in SPLITS]


def same(first, second):
    pairs = [(first.garments[slot], second.garments[slot]) for slot in first.garments]
    return (
        np.array_equal(first.person, second.person)
        and np.array_equal(first.person_mask, second.person_mask)
        and all(np.array_equal(a.flat_lay, b.flat_lay) and np.array_equal(a.mask, b.mask) for a, b in pairs)
        and (first.caption, first.labels) == (second.caption, second.labels)
    )


def test_the_same_seed_gives_the_same_bits_in_any_order():
    forth = {seed: sample(seed, size=SMALL) for seed in range(4)}
    back = {seed: sample(seed, size=SMALL) for seed in reversed(range(4))}
    assert all(same(forth[seed], back[seed]) for seed in range(4))


def test_different_seeds_and_splits_give_different_people():
    first, other, held_out = sample(0, size=SMALL), sample(1, size=SMALL), sample(0, "held_out", SMALL)
    assert not np.array_equal(first.person, other.person)
    assert not np.array_equal(first.person, held_out.person)


def test_a_hat_changes_neither_the_person_nor_the_other_garments():
    bare, hatted = draw_recipe(5, hats=0), draw_recipe(5, hats=1)
    assert "hat" not in bare.outfit
    assert bare.labels.pose == hatted.labels.pose
    assert all(bare.labels.garments[slot] == hatted.labels.garments[slot] for slot in SLOTS[:2])


@pytest.mark.parametrize("size", [(512, 384), (256, 192), (128, 128)])
def test_every_picture_has_the_size_asked_for(size):
    painted = sample(3, size=size, hats=1)
    assert painted.person.shape == (*size, 3)
    assert painted.person_mask.shape == size
    for garment in painted.garments.values():
        assert garment.flat_lay.shape == (*size, 3)
        assert garment.flat_lay.dtype == np.uint8
        assert garment.mask.shape == size
        assert garment.mask.dtype == bool


def test_masks_are_disjoint_and_inside_the_person(samples):
    for painted in samples:
        masks = [garment.mask for garment in painted.garments.values()]
        assert (np.sum(masks, axis=0) <= 1).all()
        assert all((painted.person_mask | ~mask).all() for mask in masks)


def test_every_worn_garment_is_visible(samples):
    least = {"upper": 0.03, "lower": 0.02, "hat": 0.005}
    for painted in samples:
        assert set(painted.garments) == set(SLOTS)
        for slot, garment in painted.garments.items():
            assert least[slot] < garment.mask.mean() < 0.3, (slot, painted.caption)


def test_flat_lays_are_pure_white_at_the_border_and_large(samples):
    for painted in samples:
        for slot, garment in painted.garments.items():
            border = np.ones(SMALL, bool)
            border[2:-2, 2:-2] = False
            assert (garment.flat_lay[border] == 255).all(), (slot, painted.caption)
            assert (garment.flat_lay < 250).any(axis=2).mean() > 0.1, (slot, painted.caption)


def test_masked_pixels_have_the_colours_of_the_garment(samples):
    for painted in samples:
        for slot, labels in painted.labels.garments.items():
            if labels.texture == "plain" and labels.print == "none":
                seen = np.median(painted.person[painted.garments[slot].mask], axis=0) / 255
                assert np.abs(seen - CLOTH_COLOURS[labels.colours[0]]).max() < 0.25, (slot, labels)


def test_no_identity_is_in_both_splits():
    found = {
        split: {g.identity for seed in range(300) for g in draw_recipe(seed, split).labels.garments.values()}
        for split in SPLITS
    }
    assert not found["train"] & found["held_out"]
    assert all(split_of(identity) == split for split in SPLITS for identity in found[split])


def test_every_texture_of_one_colour_lies_on_both_sides():
    """Otherwise drawing one for a split would never end."""
    for texture in ONE_COLOUR:
        names = DENIM_COLOURS if texture == "denim" else CLOTH_COLOURS
        assert {split_of(f"{texture}|{name}|none|") for name in names} == set(SPLITS)


def test_captions_say_who_where_how_and_what_kinds_but_not_the_texture(samples):
    for painted in samples:
        labels, caption = painted.labels, painted.caption
        assert labels.person in caption
        assert POSE_WORDS[labels.pose] in caption
        assert SCENE_WORDS[labels.scene] in caption
        assert all(garment.kind in caption for garment in labels.garments.values())
        assert len(caption.split()) < 50


def test_labels_lie_in_their_spaces_and_every_class_is_drawn():
    seen = {name: set() for name in LABEL_SPACES}
    for seed in range(500):
        labels = draw_recipe(seed, hats=0.8).labels
        for name in ("person", "pose", "scene", "hair", "hair_colour"):
            seen[name].add(getattr(labels, name))
        for slot, garment in labels.garments.items():
            seen[f"{slot}_kind"].add(garment.kind)
            seen["cut"].add(garment.cut)
            seen["texture"].add(garment.texture)
            seen["colour"].update(garment.colours)
            seen["print"].add(garment.print)
    assert {name: set(space) for name, space in LABEL_SPACES.items()} == seen
    assert set(POSE_WORDS) == set(LABEL_SPACES["pose"])
    assert set(SCENE_WORDS) == set(LABEL_SPACES["scene"])


@pytest.mark.parametrize("texture", TEXTURES)
def test_a_tile_is_a_picture_that_shows_its_colours(texture):
    inks = tuple(CLOTH_COLOURS[name] for name in ("red", "white", "navy"))
    tile = TEXTURES[texture](Dye(inks, 5, 0.4, 7))
    assert tile.shape == (TILE, TILE, 3)
    assert 0 <= tile.min() <= tile.max() <= 1
    if texture not in ONE_COLOUR | {"gradient", "colour block"}:
        assert tile.std(axis=(0, 1)).max() > 0.05


def test_every_word_can_be_written():
    assert set("".join(WORDS)) <= set(LETTERS)


def test_a_recipe_with_another_garment_keeps_person_and_scene():
    first, other = draw_recipe(1, hats=0), draw_recipe(2, hats=0)
    changed = type(first)(first.doll, {**first.outfit, "lower": other.outfit["lower"]}, first.caption)
    before, after = render(first, SMALL), render(changed, SMALL)
    above_the_waist = slice(0, 40)
    assert np.array_equal(before.person[above_the_waist], after.person[above_the_waist])
    assert np.array_equal(after.garments["lower"].flat_lay, render(other, SMALL).garments["lower"].flat_lay)


def test_hands_stay_inside_the_picture():
    height, width = 512, 384
    for seed in range(1500):
        doll = draw_recipe(seed).doll
        scale = doll.size * height
        for arm in doll.skeleton.arms:
            x, y = arm.hand * scale + (width * (0.5 + doll.shift), 0.972 * height - 0.858 * scale)
            room = min(x, width - x, y) - 0.024 * scale  # a hand's radius
            assert room > 4, (seed, doll.pose)


def upper_with(test, **changes):
    """The first upper garment that passes a test, of a fabric that is changed, on a flat-lay of (256, 192)."""
    uppers = (draw_recipe(seed, hats=0).outfit["upper"] for seed in range(10_000))
    garment = next(upper for upper in uppers if test(upper))
    garment = replace(garment, fabric=replace(garment.fabric, motif=None, **changes))
    return flat_lay(garment, garment.cloth(), (256, 192)).astype(int)


def test_sleeves_of_a_colour_block_have_its_upper_colour():
    red, blue = CLOTH_COLOURS["red"], CLOTH_COLOURS["navy"]
    picture = upper_with(
        lambda upper: upper.kind == "shirt" and upper.sleeve > 0.2,
        texture="colour block",
        dye=Dye((red, blue, blue), 5, 0.4, 7),
    )
    red_there, blue_there = (picture[..., one] - picture[..., other] > 30 for one, other in ((0, 2), (2, 0)))
    sleeves = np.r_[12:40, 152:180]
    assert red_there[:, sleeves].sum() > 1000
    assert not blue_there[:, sleeves].any()
    assert blue_there[:, 80:112].sum() > 500


def test_a_tank_top_has_two_straps_a_scoop_neck_and_arm_holes():
    cloth = (upper_with(lambda upper: upper.kind == "tank top", texture="plain") < 235).any(axis=2)
    top = int(np.flatnonzero(cloth.any(axis=1))[0])
    straps = cloth[top + 12]
    assert np.count_nonzero(np.diff(straps.astype(int)) == 1) == 2
    assert not straps[90:102].any()
    assert np.ptp(np.flatnonzero(straps)) < 0.8 * np.ptp(np.flatnonzero(cloth[top + 100]))


def test_the_manifest_leads_back_to_the_same_samples(tmp_path, caplog):
    seen = []
    manifest = paper_doll.write_dataset(
        tmp_path, 3, seed=5, size=SMALL, course=Course(lambda what, *state: seen.append(state))
    )
    entries = read_manifest(manifest).items
    assert caplog.messages == []
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [entry.id for entry in entries] == ["train-0000005", "train-0000006", "train-0000007"]
    for seed, entry in enumerate(entries, 5):
        painted = sample(seed, size=SMALL)
        assert entry.caption == painted.caption
        assert entry.split == "train"
        assert entry.labels["pose"] == painted.labels.pose
        assert entry.labels["garments"]["upper"]["kind"] == painted.labels.garments["upper"].kind
        assert np.array_equal(np.asarray(Image.open(tmp_path / entry.image)), painted.person)
        assert np.array_equal(np.asarray(Image.open(tmp_path / entry.person_mask)) == 255, painted.person_mask)
        for garment in entry.garments:
            assert garment.kind == "inshop"
            pictures = painted.garments[garment.slot]
            assert np.array_equal(np.asarray(Image.open(tmp_path / garment.image)), pictures.flat_lay)
            assert np.array_equal(np.asarray(Image.open(tmp_path / garment.mask)) == 255, pictures.mask)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_several_processes_write_the_same_files_without_an_installed_pack(tmp_path, monkeypatch):
    (tmp_path / "comfyui_anydressing.py").write_text("raise ImportError('found by its name')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for workers, folder in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        paper_doll.write_dataset(folder, 5, size=SMALL, workers=workers)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


@pytest.mark.parametrize(("workers", "most"), [(1, 2), (2, 6)])
def test_a_stopped_run_keeps_what_was_done_and_goes_on_later(tmp_path, workers, most):
    done = []
    course = Course(lambda _, now, __: done.append(now), lambda: max(done) >= 2)
    with pytest.raises(StoppedError, match="of 9"):
        paper_doll.write_dataset(tmp_path, 9, size=SMALL, workers=workers, course=course)
    manifest = tmp_path / "manifest.jsonl"
    kept = read_manifest(manifest).items
    assert 2 <= len(kept) <= most
    assert [item.id for item in kept] == [f"train-{seed:07d}" for seed in range(len(kept))]
    assert len(list((tmp_path / "img").iterdir())) == len(kept)
    with pytest.raises(StoppedError, match=f"{len(kept)} of 9"):
        paper_doll.write_dataset(tmp_path, 9, size=SMALL, course=Course(stop=lambda: True))
    assert len(read_manifest(manifest).items) == len(kept)
    paper_doll.write_dataset(tmp_path, 9, size=SMALL)
    assert len(read_manifest(manifest).items) == 9


def test_a_process_that_dies_is_told_and_costs_only_its_own_samples(tmp_path, capfd):
    (tmp_path / "img" / "train-0000003.png").mkdir(parents=True)
    with pytest.raises(RuntimeError, match=r"(?s)ended early, with status 1.*What to do"):
        paper_doll.write_dataset(tmp_path, 6, size=SMALL, workers=2)
    assert "train-0000003.png" in capfd.readouterr().err
    assert [item.id for item in read_manifest(tmp_path / "manifest.jsonl").items] == [
        f"train-{seed:07d}" for seed in range(3)
    ]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    manifest = paper_doll.write_dataset(tmp_path, 2, size=SMALL)
    whole = manifest.read_text()
    manifest.write_text(whole[:-40])  # the last line was cut off
    painted = []
    monkeypatch.setattr(
        "comfyui_anydressing.training.paper_doll.world.dataset.sample",
        lambda seed, *rest: painted.append(seed) or sample(seed, *rest),
    )
    paper_doll.write_dataset(tmp_path, 3, size=SMALL)
    assert painted == [1, 2]
    assert manifest.read_text().startswith(whole)
    paper_doll.write_dataset(tmp_path, 1, size=SMALL, split="held_out")
    assert [json.loads(line)["split"] for line in manifest.read_text().splitlines()] == [*["train"] * 3, "held_out"]
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_of_another_size_is_refused(tmp_path):
    paper_doll.write_dataset(tmp_path, 1, size=SMALL)
    with pytest.raises(ValueError, match="choose another folder"):
        paper_doll.write_dataset(tmp_path, 2, size=(256, 192))


def test_in_the_papers_mix_one_garment_lies_flat_in_turn_and_a_hat_never(tmp_path):
    manifest = read_manifest(paper_doll.write_dataset(tmp_path, 8, size=(64, 48), hats=0.5, mix="paper"))
    flat = [[garment.slot for garment in item.garments if garment.kind == "inshop"] for item in manifest.items]
    assert flat == [["upper"], ["lower"]] * 4
    assert any(garment.slot == "hat" for item in manifest.items for garment in item.garments)
    pictures = {path.name for path in (tmp_path / "g").iterdir()}
    assert pictures == {
        Path(garment.image).name for item in manifest.items for garment in item.garments if garment.image
    }
    with pytest.raises(ValueError, match="already holds samples of another mix"):
        paper_doll.write_dataset(tmp_path, 9, size=(64, 48), hats=0.5)
    paper_doll.write_dataset(tmp_path / "pairs", 1, size=(64, 48), hats=0.5)
    with pytest.raises(ValueError, match="already holds samples of another mix"):
        paper_doll.write_dataset(tmp_path / "pairs", 2, size=(64, 48), hats=0.5, mix="paper")


def test_a_contact_sheet_shows_everybody():
    sheet = paper_doll.contact_sheet([sample(seed, size=SMALL, hats=seed) for seed in range(2)], columns=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (128 + 8, 2 * (96 + 32 + 8), 3)


WARDROBE = Path(__file__).parents[3] / "demo" / "garments"


def shipped_garments():
    table = re.findall(r"^\| (\w+) \| held_out-(\d{7}) \|$", (WARDROBE / "README.md").read_text(), re.MULTILINE)
    return [(name, int(seed)) for name, seed in table]


def test_every_shipped_garment_is_in_the_table():
    assert sorted(path.stem for path in WARDROBE.glob("*.png")) == sorted(name for name, _ in shipped_garments())


@pytest.mark.parametrize(("name", "seed"), shipped_garments())
def test_shipped_garment_is_what_the_renderer_paints(name, seed):
    painted = sample(seed, "held_out", (512, 384)).garments[name.partition("_")[0]].flat_lay
    with Image.open(WARDROBE / f"{name}.png") as picture:
        difference = np.abs(np.array(picture, np.int16) - painted)
    assert difference.max() <= 2  # other processors round elsewhere
