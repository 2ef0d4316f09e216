# SPDX-License-Identifier: GPL-3.0-or-later
"""From published layouts and people's own folders to a manifest, on painted people."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from comfyui_anydressing.training.commands.wardrobes import LAYOUTS, read_captions
from comfyui_anydressing.training.data.check import check_data
from comfyui_anydressing.training.data.manifest import read_manifest
from comfyui_anydressing.training.paper_doll.world.published import write_published
from comfyui_anydressing.training.paper_doll.world.samples import sample
from comfyui_anydressing.training.progress import Course, StoppedError
from comfyui_anydressing.training.wardrobes.convert import Plan, caption_of, convert, is_template, one_laid_flat
from PIL import Image

SIZE = (128, 96)
PEOPLE = 6


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """By layout, six painted people of train and two held out, all with hats."""
    folders = {}
    for layout in ("dresscode", "viton-hd"):
        folder = tmp_path_factory.mktemp("published") / layout
        for split, count in (("train", PEOPLE), ("held_out", 2)):
            write_published(folder, count, layout, size=SIZE, split=split, hats=1)
        folders[layout] = folder
    return folders


@pytest.fixture
def copied(published, tmp_path):
    """A copy of a published folder, which may be spoiled."""
    return lambda layout: shutil.copytree(published[layout], tmp_path / layout)


def converted(layout, root, out, **changes):
    return convert(Plan(LAYOUTS[layout], root, out, SIZE, **changes))


def mask_of(folder, garment):
    return np.array(Image.open(folder / garment.mask)) > 0


def truth(layout, item):
    """The sample of which a line was made."""
    number = int(item.id.split("-")[1].split("_")[0])
    return sample(number % 500_000, item.split, SIZE, 1)


# --- what is published ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["dresscode", "viton-hd"])
def test_every_mask_is_where_its_garment_was_painted(published, tmp_path, layout):
    report = converted(layout, published[layout], tmp_path / "out")
    assert report.status == 0
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl", published[layout])
    assert Counter(item.split for item in manifest.items) == {"train": PEOPLE, "held_out": 2}
    for item in manifest.items:
        painted = truth(layout, item)
        assert manifest.path(item.image).is_file()
        for garment in item.garments:
            assert np.array_equal(mask_of(tmp_path / "out", garment), painted.garments[garment.slot].mask)


def test_dresscode_goes_in_both_directions(published, tmp_path):
    converted("dresscode", published["dresscode"], tmp_path / "out")
    items = read_manifest(tmp_path / "out" / "manifest.jsonl").items
    for item in items:
        kinds = {garment.slot: garment.kind for garment in item.garments}
        laid = "upper" if item.id.startswith("upper_body") else "lower"
        assert kinds[laid] == "inshop"
        assert all(kind == "crop" for slot, kind in kinds.items() if slot != laid)
    assert {item.id.partition("-")[0] for item in items} == {"upper_body", "lower_body"}


def test_skirts_are_lower_garments(published, tmp_path):
    converted("dresscode", published["dresscode"], tmp_path / "out")
    items = read_manifest(tmp_path / "out" / "manifest.jsonl").items
    skirts = [item for item in items if "skirt" in truth("dresscode", item).labels.garments["lower"].kind]
    assert skirts
    assert all("lower" in {garment.slot for garment in item.garments} for item in skirts)


def test_what_is_made_can_be_trained_on(published, tmp_path):
    converted("dresscode", published["dresscode"], tmp_path / "out")
    report = check_data(tmp_path / "out" / "manifest.jsonl", SIZE, root=published["dresscode"])
    assert report.status == 0
    assert not report.bad.total()
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 300


def test_the_root_is_only_read(published, tmp_path):
    root = published["viton-hd"]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    converted("viton-hd", root, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(ValueError, match="lies in the data set"):
        converted("viton-hd", root, root / "out")


def test_the_older_spelling_of_viton_hd_is_read(copied, tmp_path):
    root = copied("viton-hd")
    for split in ("train", "test"):
        (root / split / "image-parse-v3").rename(root / split / "image-parse")
    assert converted("viton-hd", root, tmp_path / "out").status == 0


def test_the_roots_lists_of_dresscode_have_a_third_column(copied, tmp_path):
    root = copied("dresscode")
    lines = [
        f"{line} {number}"
        for number, category in enumerate(("upper_body", "lower_body"))
        for line in (root / category / "train_pairs.txt").read_text().splitlines()
    ]
    for path in root.glob("*/train_pairs.txt"):
        path.unlink()
    (root / "train_pairs.txt").write_text("\n".join(lines))
    converted("dresscode", root, tmp_path / "out")
    assert len(read_manifest(tmp_path / "out" / "manifest.jsonl").of_split("train")) == PEOPLE


def test_nobody_of_train_wears_what_is_held_out(copied, tmp_path):
    root = copied("dresscode")
    pairs = root / "upper_body" / "train_pairs.txt"
    held = (root / "upper_body" / "test_pairs_paired.txt").read_text().split()[0]
    pairs.write_text(pairs.read_text() + f"{held} {held.replace('_0', '_1')}\n")
    report = converted("dresscode", root, tmp_path / "out")
    items = read_manifest(tmp_path / "out" / "manifest.jsonl").items
    assert [item.split for item in items if item.image.endswith(held)] == ["held_out"]
    assert report.status == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_something_else_is_told_what_was_looked_for(tmp_path, layout):
    (tmp_path / "src").mkdir()
    with pytest.raises(ValueError, match="Looked for: "):
        converted(layout, tmp_path / "src", tmp_path / "out")


# --- where all is laid flat --------------------------------------------------------------------------------------------


def dresscode_mr(root):
    """Two people of train and one of test, with all they wear laid flat."""
    for number in range(3):
        painted = sample(number, size=SIZE, hats=0)
        name = f"{number:06d}_0"
        pictures = {"person": painted.person, **{slot: one.flat_lay for slot, one in painted.garments.items()}}
        record = {}
        for kind, picture in pictures.items():
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / kind / f"{name}.jpg")
            record[kind] = f"{kind}/{name}.jpg"
        classes = np.zeros(SIZE, np.uint8)
        classes[painted.garments["upper"].mask], classes[painted.garments["lower"].mask] = 4, 6
        (root / "annotations" / "atr").mkdir(parents=True, exist_ok=True)
        Image.fromarray(classes).save(root / "annotations" / "atr" / f"{name}.png")
        with (root / ("test.jsonl" if number == 2 else "train.jsonl")).open("a") as file:
            file.write(json.dumps(record | {"overall": None, "shoe": "", "bag": None}) + "\n")


def test_dresscode_mr_has_all_laid_flat(tmp_path):
    dresscode_mr(tmp_path / "src")
    converted("dresscode-mr", tmp_path / "src", tmp_path / "out")
    items = read_manifest(tmp_path / "out" / "manifest.jsonl").items
    assert [item.split for item in items] == ["train", "train", "held_out"]
    assert all(garment.kind == "inshop" for item in items for garment in item.garments)


def test_the_papers_mix_lays_one_flat_and_cuts_the_others_out(tmp_path):
    dresscode_mr(tmp_path / "src")
    converted("dresscode-mr", tmp_path / "src", tmp_path / "out", mix="paper")
    items = read_manifest(tmp_path / "out" / "manifest.jsonl").items
    assert [item.id for item in items[:2]] == ["mr-000000_0-upper", "mr-000000_0-lower"]
    assert [[garment.kind for garment in item.garments] for item in items[:2]] == [
        ["inshop", "crop"],
        ["crop", "inshop"],
    ]


def test_one_garment_alone_stays_as_it_is():
    entry = {"id": "a", "garments": [{"slot": "upper", "image": "u.png", "kind": "inshop", "mask": "m.png"}]}
    assert one_laid_flat(entry) == [entry]


def test_a_caption_names_what_is_worn():
    assert caption_of(["shirt"]) == "a person wearing a shirt"
    assert caption_of(["shirt", "trousers", "hat"]) == "a person wearing a shirt, trousers and a hat"


def test_labels_tell_a_skirt_from_trousers(published, tmp_path):
    converted("dresscode", published["dresscode"], tmp_path / "out")
    for item in read_manifest(tmp_path / "out" / "manifest.jsonl").items:
        is_skirt = "skirt" in truth("dresscode", item).labels.garments["lower"].kind
        assert ("skirt" in item.caption, "trousers" in item.caption) == (is_skirt, not is_skirt)


@pytest.mark.parametrize("layout", ["dresscode", "viton-hd"])
def test_captions_of_a_file_win(published, tmp_path, layout):
    root = published[layout]
    converted(layout, root, tmp_path / "out", captions=read_captions(root / "captions.jsonl"))
    items = read_manifest(tmp_path / "out" / "manifest.jsonl").items
    assert [item.caption for item in items] == [truth(layout, item).caption for item in items]


@pytest.mark.parametrize(
    ("caption", "ours"),
    [
        ("a person wearing a shirt", True),
        ("a person wearing a skirt, a shirt and a hat", True),
        ("a person wearing a shirt in a park", False),
        ("a woman wearing a shirt", False),
        ("a person wearing shirt", False),
        ("a person in a shirt", False),
    ],
)
def test_a_templates_caption_is_known_again(caption, ours):
    assert is_template(caption) is ours


def garments2look(root):
    """One look of mytheresa with a garment that has no picture, and one of polyvore, as both lists are published."""
    painted = sample(0, size=SIZE, hats=0)

    def save(path, picture):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / path)

    for source, gender, look, worn in (
        (
            "mytheresa",
            "women",
            "P1-U2",
            {"P1": "green printed silk shirt", "U2": "black wool skirt", "P9": "gold ring"},
        ),
        ("polyvore", "men", "55", {"7": "striped tee", "8": "blue jeans"}),
    ):
        save(f"{source}/looks-resized/{gender}/{look}.png", painted.person)
        for garment, slot in zip(worn, ("upper", "lower"), strict=False):
            for part, half in enumerate((slice(None, 60), slice(60, None))):  # a garment may have several masks
                mask = np.zeros(SIZE, np.uint8)
                mask[half] = np.where(painted.garments[slot].mask[half], 255, 0)
                if mask.any():
                    save(f"{source}/annotations/mask-sam3-resized/{gender}/{look}/{garment}-{part}.png", mask)
            flat_lay = painted.garments[slot].flat_lay
            if source == "mytheresa" and garment[0] == "P":
                save(f"mytheresa/images/{garment}/{garment}_a.jpg", flat_lay)
            elif source == "polyvore":
                save(f"polyvore/images/men/{slot}/{garment}.jpg", flat_lay)
        told = {"gender": gender, "section": "test" if source == "polyvore" else "train", "outfit": worn}
        told |= {"outfit_info": {"outfit_description": f"A look of {source}."}}
        (root / f"{source}_outfit_v1.1_2512.json").write_text(json.dumps({look: told}))
    images = {"P1": {"type": "shirts", "images": {"product": {"full": ["P1_a.jpg"]}}}}
    (root / "mytheresa_image_v1.0_2512.json").write_text(json.dumps(images))
    (root / "polyvore_image_v1.0_2512.json").write_text(json.dumps({"7": {"type": "upper"}, "8": {"type": "lower"}}))
    return painted


def test_garments2look_is_read_as_published(tmp_path):
    painted = garments2look(tmp_path / "src")
    report = converted("garments2look", tmp_path / "src", tmp_path / "out")
    assert report.status == 0, report.render()
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl", tmp_path / "src")
    first, second = manifest.items
    assert (first.split, second.split) == ("train", "held_out")
    assert first.caption == "A look of mytheresa."
    assert [(one.slot, one.kind) for one in first.garments] == [("upper", "inshop"), ("lower", "crop")]
    assert [(one.slot, one.kind) for one in second.garments] == [("upper", "inshop"), ("lower", "inshop")]
    assert np.array_equal(mask_of(tmp_path / "out", first.garments[0]), painted.garments["upper"].mask)


@pytest.mark.parametrize(
    ("slot", "name"),
    [
        ("upper", "black wool dress shirt"),
        ("dress", "floral midi dress"),
        ("dress", "silk dress with belt"),
        ("lower", "green monogram silk wide-leg pants"),
        ("outer", "beige trench coat"),
        ("shoes", "black leather loafers"),
        ("bag", "taupe leather tote bag"),
        ("hat", "straw hat"),
        (None, "red leather studded bracelet"),
        (None, "black leather belt"),
    ],
)
def test_a_garments_name_tells_its_slot(slot, name):
    from comfyui_anydressing.training.wardrobes.garments2look import slot_of

    assert slot_of("", name) == slot


# --- one's own photographs --------------------------------------------------------------------------------------------


def photos(root, count=3, masks=True, flat=("upper",)):
    for number in range(count):
        painted = sample(number, size=SIZE, hats=0)
        stem = f"Fräulein {number}"
        (root / "people").mkdir(parents=True, exist_ok=True)
        Image.fromarray(painted.person).save(root / "people" / f"{stem}.png")
        for slot, garment in painted.garments.items():
            if masks:
                Image.fromarray(garment.mask).save(root / "people" / f"{stem}-{slot}.png")
            if slot in flat:
                (root / slot).mkdir(exist_ok=True)
                Image.fromarray(garment.flat_lay).save(root / slot / f"{stem}.jpg")
    (root / "people" / "Fräulein 0.txt").write_text("a woman on the beach", encoding="utf-8")


def test_photographs_with_masks_need_no_parser(tmp_path):
    photos(tmp_path / "src")
    report = converted("photos", tmp_path / "src", tmp_path / "out")
    assert report.status == 0
    items = read_manifest(tmp_path / "out" / "manifest.jsonl", tmp_path / "src").items
    assert [item.id for item in items] == ["Fräulein 0", "Fräulein 1", "Fräulein 2"]
    assert [item.caption for item in items[:2]] == ["a woman on the beach", "a person wearing a shirt and trousers"]
    assert {(one.slot, one.kind) for one in items[0].garments} == {("upper", "inshop"), ("lower", "crop")}


def test_people_alone_are_all_cut_out_and_that_is_said(tmp_path):
    photos(tmp_path / "src", flat=())
    report = converted("photos", tmp_path / "src", tmp_path / "out")
    assert "all garments are cut out" in report.render()


def test_a_garment_of_nobody_is_named(tmp_path):
    photos(tmp_path / "src")
    shutil.copy(tmp_path / "src/upper/Fräulein 0.jpg", tmp_path / "src/upper/somebody.jpg")
    with pytest.raises(ValueError, match=r"somebody\.jpg among them"):
        converted("photos", tmp_path / "src", tmp_path / "out")


def test_a_folder_of_photographs_given_to_data_check_is_told_what_to_run(tmp_path):
    photos(tmp_path / "src", count=1)
    with pytest.raises(ValueError, match="anydressing data photos FOLDER OUT"):
        check_data(tmp_path / "src", SIZE)


# --- again, and after a kill ------------------------------------------------------------------------------------------


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_changes_nothing(published, tmp_path):
    converted("dresscode", published["dresscode"], tmp_path / "out")
    before = contents(tmp_path / "out")
    converted("dresscode", published["dresscode"], tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_file_that_was_changed_in_place_is_read_again(tmp_path):
    photos(tmp_path / "src")
    converted("photos", tmp_path / "src", tmp_path / "out")
    before = {item.id: item for item in read_manifest(tmp_path / "out" / "manifest.jsonl", tmp_path / "src").items}
    painted = np.zeros(SIZE, np.uint8)
    painted[30:90, 20:60] = 255
    Image.fromarray(painted).save(tmp_path / "src" / "people" / "Fräulein 1-upper.png")
    converted("photos", tmp_path / "src", tmp_path / "out")
    after = {item.id: item for item in read_manifest(tmp_path / "out" / "manifest.jsonl", tmp_path / "src").items}
    assert after == before
    upper = next(garment for garment in after["Fräulein 1"].garments if garment.slot == "upper")
    assert np.array_equal(mask_of(tmp_path / "out", upper), painted > 0)


def test_what_was_stopped_goes_on(published, tmp_path, monkeypatch):
    from comfyui_anydressing.training.wardrobes import convert as module

    monkeypatch.setattr(module, "READ_AT_ONCE", 2)
    looks = iter([False, False, True])
    plan = Plan(LAYOUTS["dresscode"], published["dresscode"], tmp_path / "out", SIZE)
    with pytest.raises(StoppedError):
        convert(plan, Course(stop=lambda: next(looks, True)))
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert convert(plan).status == 0
    converted("dresscode", published["dresscode"], tmp_path / "other")
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == (tmp_path / "other/manifest.jsonl").read_bytes()


def test_processes_share_the_work_and_the_last_writes_the_manifest(published, tmp_path):
    root = published["dresscode"]
    first = converted("dresscode", root, tmp_path / "out", rank=1, ranks=2)
    assert (first.status, first.waiting) == (0, (PEOPLE + 2) // 2)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert converted("dresscode", root, tmp_path / "out", rank=0, ranks=2).by_hand == 0
    converted("dresscode", root, tmp_path / "other")
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == (tmp_path / "other/manifest.jsonl").read_bytes()


def test_what_a_hand_changed_stays(tmp_path):
    photos(tmp_path / "src")
    converted("photos", tmp_path / "src", tmp_path / "out")
    path = tmp_path / "out" / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["caption"] = "my own words"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))  # and the third was taken out
    mask = tmp_path / "out" / lines[0]["garments"][0]["mask"]
    Image.new("L", SIZE[::-1], 255).save(mask)
    painted = mask.read_bytes()
    photos(tmp_path / "src", count=4)
    report = converted("photos", tmp_path / "src", tmp_path / "out")
    captions = {item.id: item.caption for item in read_manifest(path, tmp_path / "src").items}
    assert captions["Fräulein 1"] == "my own words"
    assert "Fräulein 2" not in captions
    assert "Fräulein 3" in captions
    assert mask.read_bytes() == painted
    assert "2 lines as a hand changed" in report.render()


WALK = """
import sys
from pathlib import Path
from comfyui_anydressing.training.commands.wardrobes import LAYOUTS
from comfyui_anydressing.training.progress import Course
from comfyui_anydressing.training.wardrobes import convert

convert.READ_AT_ONCE = 1
course = Course(lambda what, done, total: print(done, flush=True))
convert.convert(convert.Plan(LAYOUTS["dresscode"], Path(sys.argv[1]), Path(sys.argv[2]), (128, 96)), course)
"""


def test_ten_kills_lose_nothing(published, tmp_path):
    """Each process dies by SIGKILL somewhere in its first look or just after; the next goes on."""
    root, out = published["dresscode"], tmp_path / "out"
    chance = random.Random(0)
    for _ in range(10):
        walk = subprocess.Popen([sys.executable, "-c", WALK, root, out], stdout=subprocess.PIPE)
        walk.stdout.readline()
        time.sleep(chance.uniform(0, 0.02))
        walk.kill()
        walk.communicate()
    converted("dresscode", root, out)
    converted("dresscode", root, tmp_path / "other")
    assert (out / "manifest.jsonl").read_bytes() == (tmp_path / "other/manifest.jsonl").read_bytes()
    for path in (tmp_path / "other/masks").iterdir():
        assert (out / "masks" / path.name).read_bytes() == path.read_bytes()


# --- what is bad ------------------------------------------------------------------------------------------------------


def test_cut_outs_that_are_small_or_cut_by_the_frame_are_dropped_and_counted(tmp_path):
    photos(tmp_path / "src", count=3, flat=("lower",))
    for stem, box in (("Fräulein 0", (40, 40, 44, 44)), ("Fräulein 1", (0, 40, 40, 80))):
        mask = Image.new("L", SIZE[::-1])
        mask.paste(255, box)
        mask.save(tmp_path / "src/people" / f"{stem}-upper.png")
    report = converted("photos", tmp_path / "src", tmp_path / "out")
    items = read_manifest(tmp_path / "out" / "manifest.jsonl", tmp_path / "src").items
    assert [[one.slot for one in item.garments] for item in items] == [["lower"], ["lower"], ["upper", "lower"]]
    assert "1 x upper: less than 1% of the picture" in report.render()
    assert "1 x upper: cut by the frame" in report.render()


def spoil(root):
    """One fault of each kind, in the first people's files."""
    maps = sorted((root / "upper_body/label_maps").iterdir())
    people = sorted((root / "upper_body/images").glob("*_0.jpg"))
    people[0].write_bytes(b"")
    maps[1].unlink()
    Image.open(maps[2]).convert("RGB").save(maps[2])
    return ["it is not a picture", "there is no such file", "it is a picture in colours"]


def test_bad_looks_are_named_and_nothing_is_half_written(copied, tmp_path):
    root = copied("dresscode")
    whys = spoil(root)
    report = converted("dresscode", root, tmp_path / "out", skip_bad=True)
    assert report.status == 2  # three of eight are too many to pass over
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    told = [json.loads(line)["why"] for line in (tmp_path / "out/left_out.jsonl").read_text().splitlines()]
    assert len(told) == 3
    assert all(any(why in one for one in told) for why in whys)
    assert "3 of 8 looks cannot be used, more than 5%" in report.render()


def test_what_was_mended_is_used_by_the_next_run(copied, tmp_path):
    root = copied("dresscode")
    person = sorted((root / "upper_body/images").glob("*_0.jpg"))[0]
    content = person.read_bytes()
    person.write_bytes(b"")
    assert converted("dresscode", root, tmp_path / "out").status == 2
    person.write_bytes(content)
    assert converted("dresscode", root, tmp_path / "out").status == 0
    assert len(read_manifest(tmp_path / "out" / "manifest.jsonl").items) == PEOPLE + 2
    assert (tmp_path / "out/left_out.jsonl").read_bytes() == b""


def many(published, root, count=500):
    """So many people of VITON-HD's layout: links to six painted ones."""
    source = published["viton-hd"]
    for number in range(count):
        for folder, suffix in (("image", "jpg"), ("cloth", "jpg"), ("image-parse-v3", "png")):
            (root / "train" / folder).mkdir(parents=True, exist_ok=True)
            os.link(
                source / f"train/{folder}/{number % 6:05d}_00.{suffix}",
                root / f"train/{folder}/{number:05d}_00.{suffix}",
            )
    names = [f"{number:05d}_00.jpg" for number in range(count)]
    (root / "train_pairs.txt").write_text("".join(f"{name} {name}\n" for name in names))
    return names


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def zero_byte(root, name):
    replace(root / "train/image" / name, b"")


def truncated(root, name):
    path = root / "train/image" / name
    replace(path, path.read_bytes()[:-400])


def bomb(root, name):
    path = root / "train/image" / name
    path.unlink()
    Image.new("1", (16_000, 16_000)).save(path, "png")


def wrong_extension(root, name):
    replace(root / "train/image" / name, b"a text that somebody called .jpg")


def missing_map(root, name):
    (root / "train/image-parse-v3" / name).with_suffix(".png").unlink()


def outside(root, name):
    pairs = root / "train_pairs.txt"
    pairs.write_text(pairs.read_text().replace(f"{name} {name}", f"../../../{name} {name}"))


def unreadable(root, name):
    (root / "train/image" / name).unlink()
    (root / "train/image" / name).mkdir()


FAULTS = {
    zero_byte: "it is not a picture",
    truncated: "it is damaged or incomplete",
    bomb: "more than 89,478,485 pixels",
    wrong_extension: "it is not a picture",
    missing_map: "there is no such file",
    outside: "leads out of the data's folder",
    unreadable: "it is a folder or a device",
}


def test_of_500_people_every_fault_is_named_and_nothing_is_half_written(published, tmp_path):
    """One percent of each fault: seven percent in all, which are too many to pass over."""
    root, out = tmp_path / "src", tmp_path / "out"
    names = many(published, root)
    spoiled = {name: fault for place, fault in enumerate(FAULTS) for name in names[place * 5 : place * 5 + 5]}
    for name, fault in spoiled.items():
        fault(root, name)
    report = converted("viton-hd", root, out, skip_bad=True)
    assert report.status == 2
    told = {line["id"]: line["why"] for line in map(json.loads, (out / "left_out.jsonl").read_text().splitlines())}
    assert told.keys() == {f"train-{name.removesuffix('.jpg')}" for name in spoiled}
    for name, fault in spoiled.items():
        assert FAULTS[fault] in told[f"train-{name.removesuffix('.jpg')}"], fault.__name__
    assert not (out / "manifest.jsonl").exists()
    assert not [path for path in out.rglob("*") if path.suffix == ".tmp"]


def test_few_faults_are_passed_over_when_asked(published, tmp_path):
    root, out = tmp_path / "src", tmp_path / "out"
    for name in many(published, root, 100)[:5]:
        zero_byte(root, name)
    assert converted("viton-hd", root, out).status == 2
    assert not (out / "manifest.jsonl").exists()
    assert converted("viton-hd", root, out, skip_bad=True).status == 0
    assert len(read_manifest(out / "manifest.jsonl").items) == 95
