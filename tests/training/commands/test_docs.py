# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/training.md, walked from its first command to its last, with fewer people and steps."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_anydressing.anydressing_core.checkpoint import read_info

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
FEWER = {"200": "12", "8": "2"}  # people
SHORTER = ("steps=2", "data.batch=2", "preview.every=2", "preview.people=1", "preview.steps=1")
ENTRY = Path(__file__).parents[2] / "support" / "command_entry.py"


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def command_lines():
    return [line for block in blocks("") for line in block.splitlines()]


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
