# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of the toy: in processes of their own, alone or in pairs, and one that nothing disturbed."""

from __future__ import annotations

import socket
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from comfyui_anydressing.training.run import start as runs
from support import loop_toy as toy
from support.loop_toy import Trouble, toy_config, train_toy
from support.runs import trained

SCRIPT = Path(toy.__file__)

NO_TROUBLE = Trouble()


@pytest.fixture(scope="session")
def toys(fork_server):
    return fork_server(SCRIPT)


@pytest.fixture
def start(toys):
    """`start(config, trouble)` trains in a process with a session of its own.

    It ends as the command line does: 0, 128 + signal, or 1 when something is raised. terminal: where it is shown.
    """

    def start(config, trouble=NO_TROUBLE, *, resume=False, terminal=None, **environment):
        request = {"config": config.to_toml(), "trouble": asdict(trouble), "resume": resume, "terminal": terminal}
        return toys.start(environment, **request)

    return start


@pytest.fixture
def start_two(start):
    """`start_two(config, trouble)` trains in two processes that belong together."""

    def start_two(config, trouble=NO_TROUBLE, *, resume=False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        world = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [start(config, trouble, resume=resume, RANK=rank, LOCAL_RANK=rank, **world) for rank in (0, 1)]

    return start_two


@pytest.fixture
def unbroken(tmp_path):
    """The tensors after 20 steps without any disturbance."""
    outcome, _ = train_toy(toy_config(tmp_path / "unbroken"))
    assert (outcome.step, outcome.interrupted) == (20, None)
    return trained(tmp_path / "unbroken")


@pytest.fixture
def scaled(monkeypatch):
    """Runs scale their loss as with fp16: by PyTorch's scaler on the CPU, in an accelerator that would have one on a GPU."""
    real = runs.Accelerator

    def scaling(**options):
        accelerator = real(**options)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
        monkeypatch.setattr(accelerator, "autocast", torch.enable_grad)
        return accelerator

    monkeypatch.setattr(runs, "Accelerator", scaling)
