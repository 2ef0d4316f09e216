# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing evaluate` on the paper's benches, and the whole road from a data set as it is published to the survey."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from comfyui_anydressing.training.cli import main
from PIL import Image
from support.clips import write_clip
from support.evaluations import draw_garment

SIZE = ("--size", "64x48", "--steps", "2")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def parser(root):
    return root / "demo" / "paper_doll_parser.safetensors"


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory, commands):
    """Dolls in DressCode's own layout, both splits, and what is made of them."""
    folder = tmp_path_factory.mktemp("wardrobe")
    for split, count in (("train", 12), ("held_out", 6)):
        painted = ("--count", count, "--size", "64x48", "--split", split, "--layout", "dresscode")
        assert commands.run("data", "paper-doll", folder / "DressCode", *painted)[0] == 0
    made = ("--resolution", "64x48", "--captions", folder / "DressCode" / "captions.jsonl")
    status, told = commands.run("data", "dresscode", folder / "DressCode", folder / "made", *made)
    assert status == 0, told
    return folder


@pytest.fixture(scope="module")
def bench(wardrobe):
    """The options of a small bench of pairs."""
    data = ("--data", wardrobe / "made" / "manifest.jsonl", "--root", wardrobe / "DressCode")
    return ("--bench", "dressing-pair", *data, "--outfits", "2", *SIZE[2:])


def prompts(folder):
    (folder / "prompts.txt").write_text("a woman in a park\na man on a beach\n")
    return ("--prompts", folder / "prompts.txt")


@pytest.fixture(scope="module")
def trained(wardrobe, small_base, commands, tmp_path_factory):
    """Two smoke runs on the wardrobe: with GFE, and Base of Table 3."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "run.toml").write_text(
        f'preset = "smoke"\nfolder = "{folder / "gfe"}"\n[base]\ncheckpoint = "{small_base}"\n'
        f'[data]\nmanifest = "{wardrobe / "made" / "manifest.jsonl"}"\nroot = "{wardrobe / "DressCode"}"\n'
    )
    short = ("--set", "steps=4", "--set", "preview.every=0", "--set", "losses.localisation=0")
    status, told = commands.run("train", folder / "run.toml", *short)
    assert status == 0, told
    shared = ("--set", f"folder={json.dumps(str(folder / 'base'))}", "--set", "adapter.gfe=false")
    status, told = commands.run("train", folder / "run.toml", *short, *shared)
    assert status == 0, told
    return folder


def test_the_whole_road(wardrobe, trained, bench, small_base, clip, parser, commands, tmp_path):
    """DressCode's layout, data, train, export, evaluate, report, survey."""
    out, file = tmp_path / "out", tmp_path / "file.safetensors"
    status, told = commands.run("export", trained / "gfe", file)
    assert status == 0, told
    given = (*bench, *prompts(tmp_path), "--base", small_base, "--out", out)
    judges = ("--clip", clip, "--parser", parser)
    methods = (
        ("plain", *SIZE[:2]),
        ("none", *SIZE[:2]),
        (file, "--name", "ours", "--row", "igl"),
        (trained / "base", "--name", "Base"),
    )
    for method in methods:
        status, told = commands.run("evaluate", *method, *given)
        assert status == 0, told
        assert "Give --clip to measure them" in told
    rival = tmp_path / "rival"
    shutil.copytree(out / "dressing-pair" / "pictures" / "plain", rival)
    (rival / "0001-1.png").unlink()
    (rival / "0001-0.png").write_bytes(b"")
    status, told = commands.run(
        "evaluate", "--pictures", rival, "--name", "A & B <rival>", "--bench", "dressing-pair", "--out", out, *judges
    )
    assert status == 0, told
    assert "1 of 4 pictures are missing: 0001-1." in told
    assert "A & B <rival>: 0001-0 cannot be used, " in told
    figures = json.loads((out / "figures.json").read_text())["benches"]["dressing-pair"]
    assert (figures["items"], figures["outfits"]) == (4, 2)
    assert list(figures["methods"]) == ["plain", "A & B <rival>", "reference", "Base", "ours"]
    assert {one["pictures"] for one in figures["methods"].values()} == {2, 4}
    beside = json.loads((out / "dressing-pair" / "pictures" / "ours" / "0000-0.json").read_text())
    assert beside["prompt"] == "a woman in a park"
    assert (beside["steps"], beside["guidance"], beside["strength"]) == (2, 6.0, 0.7)  # but for the steps, the paper's
    assert figures["methods"]["Base"]["row of Table 3"] == "base"  # by its switches
    assert figures["data"].startswith("made (")
    page = (out / "report.html").read_text()
    assert "A &amp; B &lt;rival&gt;" in page
    assert "<rival>" not in page
    assert "not comparable" in page
    assert "0.296" in page  # printed
    assert len((out / "items.csv").read_text().splitlines()) == 1 + 4 * 4 + 2
    assert commands.run("survey", "build", out, tmp_path / "survey.html", "--sets", "2")[0] == 0
    assert len(json.loads((tmp_path / "survey.key.json").read_text())["sets"]) == 2


def test_base_of_table_3_reads_all_garments_at_once_and_makes_no_file(
    trained, bench, small_base, commands, tmp_path, capsys
):
    assert main(["export", str(trained / "base"), str(tmp_path / "base.safetensors")]) == 1
    assert "makes no AnyDressing file" in capsys.readouterr().err
    given = (*bench, *prompts(tmp_path), "--base", small_base, "--out", tmp_path / "out")
    for name in ("base", "gfe"):
        status, told = commands.run("evaluate", trained / name, *given)
        assert status == 0, told
    base, gfe = (tmp_path / "out" / "dressing-pair" / "pictures" / name / "0000-0.png" for name in ("base", "gfe"))
    assert base.read_bytes() != gfe.read_bytes()


def test_a_killed_evaluation_goes_on_and_makes_the_same_pictures(bench, small_base, clip, commands, tmp_path):
    given = (*bench, *prompts(tmp_path), *SIZE[:2], "--base", small_base, "--clip", clip)
    assert commands.run("evaluate", "none", *given, "--out", tmp_path / "whole")[0] == 0
    started = commands.start("evaluate", "none", *given, "--out", tmp_path / "killed")
    folder, end = tmp_path / "killed" / "dressing-pair" / "pictures" / "reference", time.monotonic() + 120
    while started.running and not list(folder.glob("*.png")) and time.monotonic() < end:
        time.sleep(0.005)
    started.kill()
    started.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.png") if path.with_suffix(".json").is_file()}
    (folder / ".0001-1.png.0123.tmp").write_bytes(b"")  # as a kill in the middle of a write leaves it
    status, told = commands.run("evaluate", "none", *given, "--out", tmp_path / "killed")
    assert status == 0, told
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    whole = tmp_path / "whole" / "dressing-pair" / "pictures" / "reference"
    for path in whole.glob("*.png"):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert not [path for path in (tmp_path / "killed").rglob("*") if path.name.endswith(".tmp")]


def test_of_two_processes_the_last_writes_the_report(bench, small_base, clip, commands, tmp_path):
    given = (*bench, *prompts(tmp_path), *SIZE[:2], "--base", small_base, "--clip", clip, "--out", tmp_path / "out")
    status, told = commands.run("evaluate", "plain", *given, RANK=1, WORLD_SIZE=2)
    assert status == 0, told
    pictures = tmp_path / "out" / "dressing-pair" / "pictures" / "plain"
    assert {path.stem for path in pictures.glob("*.png")} == {"0000-1", "0001-1"}
    status, told = commands.run("evaluate", "plain", *given, RANK=0, WORLD_SIZE=2)
    assert status == 0, told
    assert len(list(pictures.glob("*.png"))) == 4
    assert (tmp_path / "out" / "report.html").is_file()


def refused(capsys, *words):
    assert main([str(word) for word in words]) == 1
    told = capsys.readouterr().err
    assert "What to do: " in told
    return told


def test_what_cannot_be_compared_is_refused(bench, trained, small_base, wardrobe, capsys, tmp_path):
    given = (*bench, *prompts(tmp_path), "--base", small_base, "--out", tmp_path / "out")
    assert main([str(word) for word in ("evaluate", "plain", *given, *SIZE[:2])]) == 0
    capsys.readouterr()
    told = refused(capsys, "evaluate", "plain", *given, *SIZE[:2], "--guidance", "3")
    assert "'plain' has other pictures there" in told
    told = refused(capsys, "evaluate", "plain", *given, *SIZE[:2], "--outfits", "1")
    assert "holds other items" in told
    (tmp_path / "empty").mkdir()
    told = refused(
        capsys, "evaluate", "--pictures", tmp_path / "empty", "--bench", "dressing-pair", "--out", tmp_path / "out"
    )
    assert "has no picture of this bench" in told
    assert not (tmp_path / "out" / "dressing-pair" / "methods" / "empty.json").exists()
    assert "0000-0.png" in told
    hats = {"id": "a", "prompt": "x", "garments": [{"slot": "scarf", "image": "a.png"}]}
    (tmp_path / "own.jsonl").write_text(json.dumps(hats))
    draw_garment(tmp_path / "a.png", (200, 30, 30))
    own = ("--bench", "pairs", "--data", tmp_path / "own.jsonl", "--out", tmp_path / "out")
    told = refused(capsys, "evaluate", trained / "gfe", *own, "--base", small_base)
    assert "Garment kind 'scarf' is not known to this file" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("plain",), "lacks something"),
        (("plain", "--bench", "single"), "needs the --base of FILE"),
        (("plain", "--bench", "single", "--base", "b", "--pictures", "p"), "was given FILE and --pictures"),
        (("--bench", "single"), "has no items yet"),
        (("--bench", "single", "--head", "h"), "--head was given without --clip"),
        (("--bench", "single", "--clip", "c"), "The CLIP 'c' is not there"),
        (("--bench", "single", "--data", "nowhere.jsonl"), "is not a file"),
    ],
)
def test_what_is_missing_is_said(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told in refused(capsys, "evaluate", *words, "--out", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


def test_an_items_seed_alone_decides_its_noise(bench, small_base, tmp_path):
    given = (*bench, *prompts(tmp_path), "--base", small_base, "--out", tmp_path / "out")
    assert main([str(word) for word in ("evaluate", "plain", *given, *SIZE[:2], "--seed", "7")]) == 0
    again = ("--bench", "dressing-pair", "--base", small_base, "--out", tmp_path / "out", *SIZE)
    assert main([str(word) for word in ("evaluate", "plain", "--name", "again", *again)]) == 0
    plain, other = (tmp_path / "out" / "dressing-pair" / "pictures" / name for name in ("plain", "again"))
    for path in plain.glob("*.png"):
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_a_picture_that_was_deleted_is_made_again(bench, small_base, tmp_path):
    given = (*bench, *prompts(tmp_path), "--base", small_base, "--out", tmp_path / "out", *SIZE[:2])
    assert main([str(word) for word in ("evaluate", "plain", *given)]) == 0
    path = tmp_path / "out" / "dressing-pair" / "pictures" / "plain" / "0000-0.png"
    before = path.read_bytes()
    path.unlink()
    assert main([str(word) for word in ("evaluate", "plain", *given)]) == 0
    assert path.read_bytes() == before


def test_a_rivals_pictures_may_be_named_by_any_id(small_base, clip, tmp_path, capsys):
    item = {"id": "étoile 1", "prompt": "x", "garments": [{"slot": "upper", "image": "a.png"}]}
    (tmp_path / "own.jsonl").write_text(json.dumps(item))
    picture = Image.new("RGB", (48, 64), "white")
    picture.paste("red", (12, 12, 36, 52))
    picture.save(tmp_path / "a.png")
    (tmp_path / "rival").mkdir()
    picture.save(tmp_path / "rival" / "étoile 1.png")
    own = ("--bench", "pairs", "--data", tmp_path / "own.jsonl", "--out", tmp_path / "out", "--clip", clip)
    assert main([str(word) for word in ("evaluate", "--pictures", tmp_path / "rival", *own)]) == 0
    assert "missing" not in capsys.readouterr().out


def test_a_garment_that_cannot_be_worn_is_named_before_anything_is_laid_down(small_base, tmp_path, capsys):
    item = {"id": "a", "prompt": "x", "garments": [{"slot": "upper", "image": "a.png"}]}
    (tmp_path / "own.jsonl").write_text(json.dumps(item))
    Image.new("RGBA", (48, 64)).save(tmp_path / "a.png")
    own = ("--bench", "pairs", "--data", tmp_path / "own.jsonl", "--out", tmp_path / "out")
    told = refused(capsys, "evaluate", "plain", *own, "--base", small_base)
    assert "a.png' cannot be worn" in told
    assert not (tmp_path / "out" / "pairs" / "items.jsonl").exists()
