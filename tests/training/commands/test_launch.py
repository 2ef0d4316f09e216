# SPDX-License-Identifier: GPL-3.0-or-later
"""What launchers start: a launch that was asked for several processes and started one is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_anydressing.training.hardware import launched_alone


def environments_of(launcher, tmp_path):
    """What a launcher gives the processes that it starts."""
    script, told = tmp_path / "tell.py", tmp_path / "told"
    told.mkdir()
    script.write_text(
        f"import json, os, pathlib\npathlib.Path({str(told)!r}, str(os.getpid())).write_text(json.dumps(dict(os.environ)))"
    )
    program = [Path(sys.executable).with_name(launcher[0]), *launcher[1:], script]
    plain = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "MASTER_PORT")}
    subprocess.run(program, check=True, capture_output=True, env=plain)
    return [json.loads(path.read_text()) for path in told.iterdir()]


def test_a_launch_of_several_that_started_one_is_seen(tmp_path):
    (only,) = environments_of(["accelerate", "launch", "--cpu", "--num_processes", "2"], tmp_path)
    assert launched_alone(only)


@pytest.mark.parametrize(
    ("launcher", "processes"),
    [
        (["accelerate", "launch", "--cpu", "--num_processes", "1"], 1),
        (["torchrun", "--nproc_per_node", "2", "--master_port", "0"], 2),
    ],
    ids=["one", "torchrun"],
)
def test_a_launch_that_started_what_it_was_asked_for_is_not(tmp_path, launcher, processes):
    started = environments_of(launcher, tmp_path)
    assert len(started) == processes
    assert not any(map(launched_alone, started))


def test_a_process_that_nobody_launched_is_not():
    assert not launched_alone({"MASTER_PORT": "29500"})
    assert not launched_alone({})
