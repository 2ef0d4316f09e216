# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper-doll bench: its pictures are kept and refused rightly, and its figures know the truth from its opposite."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from comfyui_anydressing.training.base.model import load_base
from comfyui_anydressing.training.cli import main
from comfyui_anydressing.training.paper_doll.bench.measures import measure
from comfyui_anydressing.training.paper_doll.bench.pictures import FIRST, WAYS, anew_mask, outfit
from comfyui_anydressing.training.paper_doll.networks.parser import PARTS, Parser, save_parser
from comfyui_anydressing.training.paper_doll.networks.recogniser import Recogniser, save_recogniser
from PIL import Image

SIZE, SLOTS = (64, 48), ("upper", "lower")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A recogniser and a parser of random numbers, in files."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    save_recogniser(folder / "judge.safetensors", Recogniser([8, 12]))
    save_parser(folder / "parser.safetensors", Parser([6, 8]))
    return folder


@pytest.fixture(scope="module")
def evaluated(commands, small_base, networks, smoke_file, tmp_path_factory):
    """`evaluated(...)` runs the command on two outfits; it is run once with the defaults of this fixture."""
    out = tmp_path_factory.mktemp("bench") / "out"

    def run(*more):
        files = [word for name in ("judge", "parser") for word in (f"--{name}", networks / f"{name}.safetensors")]
        arguments = ("evaluate", smoke_file, "--base", small_base, "--out", out, *files, "--outfits", 2, "--steps", 1)
        return commands.run(*arguments, *more)

    status, output = run()
    assert status == 0, output
    return out, run, output


@pytest.fixture(scope="module")
def smoke_file(commands, small_base, small_data, tmp_path_factory):
    """An AnyDressing file of the preset `smoke`, after no step."""
    folder = tmp_path_factory.mktemp("file")
    tables = f'[base]\ncheckpoint = "{small_base}"\n[data]\nmanifest = "{small_data}"\n[preview]\nevery = 0\n'
    (folder / "config.toml").write_text(f'preset = "smoke"\nfolder = "{folder / "run"}"\nsteps = 1\n{tables}')
    for words in (("train", folder / "config.toml"), ("export", folder / "run", folder / "file.safetensors")):
        status, output = commands.run(*words)
        assert status == 0, output
    return folder / "file.safetensors"


def test_every_outfit_is_dressed_in_every_way(evaluated):
    out, _, _ = evaluated
    ways = {"masked", "shuffled", "only-upper", "only-lower", "free", "undressed"}
    maps = {f"{name}-attention-{slot}" for name in ("masked", "free") for slot in SLOTS}
    for seed in (FIRST, FIRST + 1):
        folder = out / "pictures" / str(seed)
        assert {path.stem for path in folder.glob("*.png")} == ways | maps
        assert json.loads((folder / "about.json").read_text())["slots"] == list(SLOTS)


def test_only_some_of_the_files_kinds_are_worn(evaluated, tmp_path):
    _, run, _ = evaluated
    status, output = run("--out", tmp_path / "upper", "--outfits", 1, "--slots", "upper")
    assert status == 0, output
    assert json.loads((tmp_path / "upper" / "figures.json").read_text())["about"]["slots"] == ["upper"]
    status, output = run("--out", tmp_path / "hat", "--outfits", 1, "--slots", "upper, hat")
    assert status == 1
    assert "--slots: 'hat' is no garment kind of this file." in output
    assert "trained for upper, lower" in output


def test_figures_have_intervals_and_are_told(evaluated):
    out, _, output = evaluated
    figures = json.loads((out / "figures.json").read_text())
    assert figures["about"]["outfits"] == 2
    mean = figures["figures"]["colour error, masked"]
    assert mean["low"] <= mean["value"] <= mean["high"]
    assert mean["count"] == 2
    assert "| colour error, floor (autoencoder) |" in (out / "figures.md").read_text()
    assert "colour error, masked" in output


def test_what_is_there_is_kept_and_other_settings_are_refused(evaluated):
    out, run, _ = evaluated
    before = {path: path.stat().st_mtime_ns for path in (out / "pictures").rglob("*.png")}
    assert run()[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "pictures").rglob("*.png")}
    status, output = run("--strength", "1.0")
    assert status == 1
    assert "holds other pictures" in output


def test_a_folder_without_pictures_is_refused(small_base, networks, tmp_path):
    with pytest.raises(ValueError, match="has nothing to measure"):
        measure(tmp_path, None, None, None)


def test_a_recogniser_in_the_parsers_place_is_refused(smoke_file, small_base, networks, tmp_path, capsys):
    judge = str(networks / "judge.safetensors")
    words = ["evaluate", str(smoke_file), "--base", str(small_base), "--out", str(tmp_path)]
    assert main([*words, "--judge", judge, "--parser", judge]) == 1
    assert "is not a parser" in capsys.readouterr().err


def test_the_part_that_is_made_anew_covers_the_garments_and_a_margin():
    mask = np.zeros((64, 48), bool)
    mask[24:32, 16:24] = True  # one cell
    cells = anew_mask([mask, np.zeros_like(mask)])[0]
    assert cells.shape == (8, 6)
    assert cells[2:5, 1:4].all()
    assert int(cells.sum()) == 9


class Known(Parser):
    """A parser that is told the answer for each picture it will be shown."""

    def __init__(self):
        super().__init__([4])
        self.answers = {}

    def parse(self, image):
        return self.answers[(image * 255).round().byte().permute(1, 2, 0).numpy().tobytes()]


@pytest.fixture
def constructed(small_base, tmp_path):
    """`constructed(choose)` measures pictures that `choose(way, outfit)` makes, with the true parts for a parser."""
    base = load_base(small_base)
    torch.manual_seed(0)
    judge, parser = Recogniser([8, 12]).eval(), Known()

    def build(choose):
        for seed in range(FIRST, FIRST + 4):
            one, folder = outfit(seed, SLOTS, SIZE), tmp_path / str(seed)
            folder.mkdir(exist_ok=True)
            masks = {slot: torch.from_numpy(one.truth.garments[slot].mask) for slot in SLOTS}
            nothing = torch.zeros(SIZE, dtype=torch.bool)
            parts = {part: masks.get(part, nothing) for part in PARTS}
            parser.answers[one.truth.person.tobytes()] = parts
            for way in ("masked", "shuffled", "only-upper", "only-lower", "free", "undressed"):
                picture = choose(way, one)
                parser.answers[picture.tobytes()] = parts
                Image.fromarray(picture).save(folder / f"{way}.png")
            for way in ("masked", "free"):
                for slot in SLOTS:
                    attention = Image.fromarray((masks[slot].numpy() * 255).astype(np.uint8))
                    attention.save(folder / f"{way}-attention-{slot}.png")
            (folder / "about.json").write_text(json.dumps({"slots": SLOTS, "size": SIZE, "ways": WAYS}))
        return {name: mean.value for name, mean in measure(tmp_path, base, judge, parser).figures.items()}

    return build


def test_the_truth_scores_as_the_truth(constructed):
    figures = constructed(lambda way, one: one.others["upper"].person if way == "shuffled" else one.truth.person)
    for name in ("masked", "only upper", "only lower"):
        assert figures[f"colour error, {name}"] == 0
        assert figures[f"DISTS, {name}"] == pytest.approx(0, abs=1e-6)
    assert figures["colour error, shuffled"] > 10
    assert figures["DISTS, shuffled"] > 0.02
    assert figures["attention IoU, masked"] == figures["attention IoU, free"] == 1
    assert figures["parser IoU, held-out renders"] == 1
    assert figures["leakage, free"] == 0
    assert figures["garments found, free"] == 1
    for way in ("masked", "free"):
        assert figures[f"palette error, {way}"] < 0.7 * figures[f"palette error, {way}, of somebody else's"]
        assert figures[f"DISTS to flat-lay, {way}"] < figures[f"DISTS to flat-lay, {way}, of somebody else's"]
        assert figures[f"palette error, {way}"] == figures["palette error, true picture"]


def test_other_garments_are_not_taken_for_her_own(constructed):
    """Free has no true picture: somebody else's garments must be nearer to their own flat-lays than to hers."""

    def choose(way, one):
        garment = one.others["upper"].garments["upper"]
        everywhere = np.broadcast_to(garment.flat_lay[garment.mask].mean(axis=0), (*SIZE, 3))
        return everywhere.astype(np.uint8) if way == "free" else one.truth.person

    figures = constructed(choose)
    assert figures["palette error, free"] > 2 * figures["palette error, true picture"]
    assert figures["DISTS to flat-lay, free"] > figures["DISTS to flat-lay, true picture"]


def test_leaking_and_fading_are_seen(constructed):
    def choose(way, one):
        picture = one.truth.person
        if way == "masked":
            return (picture * 0.7).astype(np.uint8)
        if way == "undressed":
            return np.roll(picture, 5, axis=1)
        return picture

    figures = constructed(choose)
    assert figures["colour error, masked"] > 5
    assert figures["leakage, free"] > 0.005
