# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/training.md and docs/train-sd15.md, walked from the first command to the last, with fewer people and steps."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_anydressing.anydressing_core.checkpoint import read_info
from comfyui_anydressing.training.paper_doll.world import write_dataset
from comfyui_anydressing.training.paper_doll.world.published import write_published

from dev.random_checkpoint import SD15

DOCS = Path(__file__).parents[3] / "docs"
PAGE, SD15_PAGE = DOCS / "training.md", DOCS / "train-sd15.md"
FEWER = {"200": "12", "8": "2"}  # people
FP32 = 'memory.precision="fp32"'  # bf16 takes many times as long on CPUs that only imitate it
SHORTER = ("steps=2", "data.batch=2", "preview.every=2", "preview.people=1", "preview.steps=1", FP32)
ENTRY = Path(__file__).parents[2] / "support" / "command_entry.py"


def blocks(language, page=PAGE):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def command_lines(page=PAGE):
    return [line for block in blocks("", page) for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    """An empty place beside the pack's demo, with the page's configuration."""
    folder = tmp_path_factory.mktemp("first steps")
    (folder / "demo").symlink_to(root / "demo")
    (config,) = blocks("toml")
    (folder / "dolls.toml").write_text(config)
    return folder


def shortened(words):
    if words[0] == "train":
        return [*words, *(word for setting in SHORTER for word in ("--set", setting))]
    if words[0] == "sample":
        return [*words, "--steps", "1"]
    if "--count" in words:
        place = words.index("--count") + 1
        return [*words[:place], FEWER[words[place]], *words[place + 1 :]]
    return words


@pytest.mark.timeout(1800)  # a slow CPU takes five minutes for the training run alone
def test_every_command_runs_as_written(commands, folder):
    ran = []
    for line in command_lines():
        program, *words = shlex.split(line)
        if program == "anydressing":
            status, output = commands.run(*shortened(words), cwd=folder, patience=900)
            assert status == 0, f"{line}\n{output}"
        elif program == "accelerate":
            assert words[:2] == ["launch", "$(which anydressing)"]
            launch = [Path(sys.executable).with_name("accelerate"), "launch", "--cpu", ENTRY, *shortened(words[2:])]
            result = subprocess.run(
                launch,
                cwd=folder,
                check=False,
                capture_output=True,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
        else:
            assert line == 'pip install ".[train]"'  # the environment of these tests has it
        ran.append(" ".join([program, *words[:1]]))
    assert ran.count("anydressing train") == 2
    assert {"anydressing doctor", "anydressing data", "anydressing export", "anydressing sample"} <= set(ran)
    assert read_info(folder / "my_first.safetensors").slots == ("upper", "lower")
    assert read_info(folder / "with_hats.safetensors").slots == ("upper", "lower", "hat")
    assert list((folder / "pictures").glob("*.png"))
    assert (folder / "dolls" / "sheet.html").exists()


# ---- SD1.5, on a reduced checkpoint ---------------------------------------------------------------------------------

SMALL = (
    *("data.batch=2", "data.accumulate=1", "data.workers=0", "preview.people=1", "preview.steps=1", "steps=2"),
    *(FP32, "adapter.rank=4"),
)


@pytest.fixture(scope="module")
def rented(root, random_models, comfyui_path, tmp_path_factory):
    """A machine as the page wants it: what it says one must bring is there, small and random, under the page's names."""
    from support.clips import write_clip

    folder = tmp_path_factory.mktemp("rented")
    (folder / "sd15.safetensors").symlink_to(random_models / SD15)
    (folder / "tokenizer").symlink_to(comfyui_path / "comfy" / "sd1_tokenizer")
    (folder / "vgg16.safetensors").symlink_to(root / "demo" / "paper_doll_recogniser_loss.safetensors")
    (folder / "parser").symlink_to(root / "demo" / "paper_doll_parser.safetensors")
    (folder / "clip").mkdir()
    write_clip(folder / "clip")
    for split, count in (("train", 8), ("held_out", 6)):
        write_published(folder / "DressCode", count, "dresscode", size=(192, 144), split=split, hats=0)
    dolls = write_dataset(folder / "dolls", 3, seed=50, size=(192, 144), hats=0).parent
    for number in (50, 51, 52):
        for kind, name in (("people", "img/train-{}"), ("upper", "g/train-{}_upper"), ("lower", "g/train-{}_lower")):
            (folder / "photographs" / kind).mkdir(parents=True, exist_ok=True)
            picture = dolls / f"{name.format(f'{number:07d}')}.png"
            (folder / "photographs" / kind / f"{number}.png").write_bytes(picture.read_bytes())
    (config,) = blocks("toml", SD15_PAGE)
    (folder / "sd15.toml").write_text(config.replace("[data]", "[data]\nresolution = [64, 48]"))
    (folder / "prompts.txt").write_text("a woman in a park")
    return folder


def reduced(words):
    """The words of a command, and what makes it small."""
    if words[0] == "train":
        return [*words, *(word for setting in SMALL for word in ("--set", setting))]
    if words[0] in ("sample", "evaluate") and "--base" in words:
        items = ["--prompts", "prompts.txt", "--outfits", "2"] if words[0] == "evaluate" and "--data" in words else []
        size = ["--size", "64x48"] if words[1] in ("plain", "none") else []
        return [*words, "--steps", "1", *items, *size]
    return words


@pytest.mark.timeout(1800)
def test_the_road_of_sd15_runs_as_written(commands, rented):
    ran = []
    for line in command_lines(SD15_PAGE):
        program, *words = shlex.split(line)
        if program == "anydressing":
            status, output = commands.run(*reduced(words), cwd=rented, patience=900)
            assert status == 0, f"{line}\n{output}"
        else:
            assert line == 'pip install ".[train]"'
        ran.append(" ".join([program, *words[:1]]))
    assert {"anydressing data", "anydressing train", "anydressing export", "anydressing evaluate"} <= set(ran)
    assert read_info(rented / "my_wardrobe.safetensors").dataset_licence == "DressCode: academic, non-commercial"
    assert read_info(rented / "my_own.safetensors").steps == 4
    assert len(list((rented / "pictures").glob("*.png"))) == 4
    assert (rented / "runs" / "figures" / "report.html").is_file()


@pytest.mark.parametrize(
    ("missing", "told"),
    [("vgg16.safetensors", "'vgg16.safetensors' was not found"), ("tokenizer", "CLIP's tokenizer was not found")],
)
def test_what_nobody_brought_is_said_before_the_first_step(commands, rented, missing, told, tmp_path):
    for path in rented.iterdir():
        if path.name != missing and path.name != "runs":
            (tmp_path / path.name).symlink_to(path)
    status, output = commands.run("train", "sd15.toml", cwd=tmp_path)
    assert status == 1
    assert told in output
    assert "What to do: " in output
    assert not (tmp_path / "runs").exists()
    if missing == "vgg16.safetensors":
        assert "losses.texture = 0" in output
        status, output = commands.run(*reduced(["train", "sd15.toml"]), "--set", "losses.texture=0", cwd=tmp_path)
        assert status == 0, output
