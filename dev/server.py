# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a real ComfyUI with this checkout as its only node pack, in folders of its own, and stops it again."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from .client import ComfyClient, Follower, Prompt, Result
from .comfyui import CHECKOUT, STORE

BASE = STORE / "base"  # the demo's folders, kept from run to run
PACK = "ComfyUI-AnyDressing"
START_LIMIT = 300.0  # seconds; 20 on a quiet machine

# Without the first a dialog covers the canvas; with the last the frontend checks every workflow against its own schema.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Locale": "en", "Comfy.Validation.Workflows": True}


class ServerDiedError(ConnectionError):
    """ComfyUI stopped by itself; the message ends with the last lines of its log."""


class ComfyServer(ComfyClient):
    """A ComfyUI server for the time of a `with` block, reached on 127.0.0.1 alone.

    comfyui: ComfyUI's folder. base: its private folders for input, output, user and custom nodes, made when missing.
    models: a models folder to read besides `base / "models"`. packs: folders of further custom nodes. flags: further flags of
    ComfyUI's main.py.
    """

    def __init__(
        self,
        comfyui: Path,
        base: Path,
        *,
        models: Path | None = None,
        packs: Sequence[Path] = (),
        flags: Sequence[str] = (),
        say: Callable[[str], None] = print,
    ):
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}")
        self.comfyui, self.base, self.port, self.say = comfyui, base.absolute(), port, say
        self.models, self.packs, self.flags = models, (CHECKOUT, *packs), flags
        self.log = self.base / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyServer:
        prepare_base(self.base, self.models, self.packs)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.comfyui, env=environment(), stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process, while it runs."""
        assert self._process
        return self._process.pid

    def command(self) -> list[str]:
        """Return the command line that starts the server."""
        cpu = [] if has_accelerator() else ["--cpu"]
        # A database in a file: 0.16.3 logs a traceback when it is in memory, and the log must stay clean to be read.
        database = f"sqlite:///{self.base / 'user' / 'comfyui.db'}"
        options = {
            "--listen": "127.0.0.1",
            "--port": self.port,
            "--base-directory": self.base,
            "--user-directory": self.base / "user",
            "--database-url": database,
            "--extra-model-paths-config": self.base / "extra_model_paths.yaml",
        }
        pairs = [str(word) for pair in options.items() for word in pair]
        return [sys.executable, "main.py", *pairs, "--disable-api-nodes", "--disable-auto-launch", *cpu, *self.flags]

    def run(self, prompt: Prompt, follow: Follower | None = None, timeout: float = 900) -> Result:
        """Run a prompt as ComfyClient does; when the server dies over it, the error tells its last words."""
        try:
            return super().run(prompt, follow, timeout)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise ServerDiedError(f"{error}\n{self.last_words()}") from error

    def is_running(self) -> bool:
        """Say whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def log_text(self) -> str:
        """Return all that the server has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def log_problems(self) -> list[str]:
        """Return the lines of the log that tell of a failure; ComfyUI goes on when a pack cannot be imported."""
        return re.findall(r".*(?:Traceback|Cannot import|IMPORT FAILED).*", self.log_text())

    def last_words(self, lines: int = 30) -> str:
        """Return the end of the log and where the rest is."""
        tail = "\n".join(self.log_text().splitlines()[-lines:])
        return f"The last lines of {self.log}:\n{tail}"

    def stop(self) -> None:
        """Stop the server and all that it started, and nothing else."""
        process = self._process
        if process is None or not self.is_running():
            return
        for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
            os.killpg(process.pid, number)  # the server leads a process group of its own
            try:
                process.wait(patience)
                return
            except subprocess.TimeoutExpired:
                continue

    def _wait_until_up(self) -> None:
        started = told = time.monotonic()
        while not self.is_up():
            now = time.monotonic()
            if not self.is_running():
                raise ServerDiedError(f"ComfyUI stopped while starting.\n{self.last_words()}")
            if now - started > START_LIMIT:
                raise ServerDiedError(f"ComfyUI does not answer after {START_LIMIT:.0f} s.\n{self.last_words()}")
            if now - told > 5:
                told = now
                self.say(f"  ComfyUI is starting ({now - started:.0f} s)")
            time.sleep(0.25)


def prepare_base(base: Path, models: Path | None, packs: Sequence[Path] = (CHECKOUT,)) -> None:
    """Make the server's folders, link packs, this checkout among them, into custom_nodes, and name the further models."""
    for folder in ("custom_nodes", "models", "input", "output", "temp", "user/default"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for pack in packs:
        link = base / "custom_nodes" / (PACK if pack == CHECKOUT else pack.name)
        if link.is_symlink() and link.resolve() != pack.resolve():
            link.unlink()  # the checkout has moved
        if not link.exists():
            link.symlink_to(pack, target_is_directory=True)
    settings = base / "user" / "default" / "comfy.settings.json"
    if not settings.exists():
        settings.write_text(json.dumps(SETTINGS), encoding="utf-8")
    # JSON is YAML, which spares us a parser.
    paths = json.dumps(extra_model_paths(models), indent=1)
    (base / "extra_model_paths.yaml").write_text(paths, encoding="utf-8")


def extra_model_paths(models: Path | None) -> dict[str, Any]:
    """Return ComfyUI's description of a further models folder, which it reads from a file."""
    if models is None:
        return {}
    kinds = {folder.name: folder.name for folder in models.iterdir() if folder.is_dir()}
    return {"anydressing": {"base_path": str(models.absolute()), **kinds}}


def environment() -> dict[str, str]:
    """Return our environment without what would change ComfyUI: a foreign module path, downloads of models."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


def stop_politely() -> None:
    """Let a closed terminal or a `kill` end this process the way Ctrl-C does, so that the server does not outlive it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


@functools.cache
def has_accelerator() -> bool:
    """Say whether torch finds a GPU; without one ComfyUI must be told --cpu, or its memory manager fails."""
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
