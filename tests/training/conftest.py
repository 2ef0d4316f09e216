# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny SD1.5-type U-Net in diffusers, and AnyDressing files for it; a whole tiny base model, data and the command.

diffusers and transformers are imported by those fixtures alone that need them: it takes longer than the fast tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from comfyui_anydressing.anydressing_core.sites import UNetShape
from comfyui_anydressing.training.paper_doll.world import write_dataset
from support import infos

SHAPE = UNetShape((16, 32), (1, 1), (True, True), mid_attention=True, heads=4, cross_attention_dim=24)


@pytest.fixture
def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**SHAPE.to_diffusers(), norm_num_groups=8).eval().requires_grad_(False)


@pytest.fixture
def make_info():
    return partial(infos.make_info, SHAPE)


@pytest.fixture
def make_model(unet, make_info):
    """A DressingModel whose LoRAs are not zero, so that they show."""
    from comfyui_anydressing.training.model.adapter import Adapter
    from comfyui_anydressing.training.model.dressing import DressingModel

    def make(**changes):
        torch.manual_seed(1)
        adapter = Adapter(make_info(**changes), unet)
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                if name.endswith(("up.weight", "null_key", "null_bias")):
                    parameter.normal_(std=0.3)
        return DressingModel(unet, adapter)

    return make


# ---- the command, run as a process ----------------------------------------------------------------------------------

ENTRY = Path(__file__).parents[1] / "support" / "command_entry.py"


class Process:
    """A process of a `ForkServer`. folder: where its output and its end are told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def pid(self) -> int:
        return int(self._told("pid"))

    @property
    def output(self) -> str:
        return (self._folder / "output").read_text()

    @property
    def running(self) -> bool:
        return not (self._folder / "status").exists()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless the process has ended by itself."""
        pid = self.pid
        if self.running:
            os.kill(pid, number)

    def wait(self, patience: float = 300) -> int:
        """The exit status, negative when a signal ended it."""
        return int(self._told("status", patience))

    def _told(self, name: str, patience: float = 300) -> str:
        path, end = self._folder / name, time.monotonic() + patience
        while not path.exists():
            assert time.monotonic() < end, f"no {name}: {self.output}"
            time.sleep(0.01)
        return path.read_text()


class ForkServer:
    """Starts processes that are forked from `script --serve` (see fork_server.py), with one thread each."""

    def __init__(self, script: Path, folder: Path) -> None:
        self._folder, self._count = folder, 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
        self._server = subprocess.Popen(
            [sys.executable, script, "--serve"], stdin=subprocess.PIPE, text=True, env=environment
        )

    def start(self, environment: dict[str, object], **request: object) -> Process:
        """Start a process. request: what it is to do, as JSON."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        (folder / "output").touch()
        request |= {"folder": str(folder), "environment": {name: str(value) for name, value in environment.items()}}
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return Process(folder)

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()


class Commands:
    """Starts `anydressing` in processes of their own."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server

    def start(
        self, *arguments: object, cwd: Path | str = ".", quota: int | None = None, **environment: object
    ) -> Process:
        """Start the command in the folder `cwd`. quota: bytes of checkpoints after which its disk is full."""
        words = [str(argument) for argument in arguments]
        return self._server.start(environment, arguments=words, cwd=str(cwd), quota=quota)

    def run(self, *arguments: object, patience: float = 300, **options: object) -> tuple[int, str]:
        """Run the command to its end: (exit status, all it said)."""
        command = self.start(*arguments, **options)
        return command.wait(patience), command.output


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    """`fork_server(script)` is a ForkServer that ends with the tests."""
    servers = []

    def serve(script: Path) -> ForkServer:
        servers.append(ForkServer(script, tmp_path_factory.mktemp(script.stem)))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def small_base(tmp_path_factory):
    """A base model in a diffusers folder, full of random numbers (seed 0); its tokenizer knows single bytes alone."""
    from diffusers import AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("base") / "small"
    shape = UNetShape((32, 64), (1, 1), (True, True), mid_attention=True, heads=8, cross_attention_dim=64)
    words = {"vocab_size": 49408, "hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1}
    torch.manual_seed(0)
    UNet2DConditionModel(**shape.to_diffusers()).save_pretrained(folder / "unet")
    vae = AutoencoderTiny()
    vae.decoder.layers[-1].weight.data *= 8  # pictures that are not grey all over
    vae.save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(**words, intermediate_size=96)).save_pretrained(folder / "text_encoder")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDPMScheduler(**schedule).save_pretrained(folder / "scheduler")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    ends = {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (tokenizer / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)} | ends))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """The manifest of twelve people to train on, some with a hat, and two that are held out, 64 x 48."""
    folder = tmp_path_factory.mktemp("data") / "dolls"
    write_dataset(folder, 12, size=(64, 48), hats=0.5)
    return write_dataset(folder, 2, size=(64, 48), split="held_out", hats=0.5)


@pytest.fixture(scope="session")
def commands(fork_server):
    """Starts `anydressing` in processes that are forked from one that has imported everything already."""
    return Commands(fork_server(ENTRY))
