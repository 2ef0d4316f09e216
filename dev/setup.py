# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds what `make demo`, `make ui` and `make test` need: .venv with everything in it, and a ComfyUI.

`python3 -m dev.setup` is run by the system's own Python, so it uses the standard library alone. A second run finds nothing to
do, in well under a second. `--tools`, for `make quick`, leaves ComfyUI out.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .comfyui import CHECKOUT, OLDEST, PINNED, STORE, ComfyUIMissingError, fetch, find, find_or_fetch, is_comfyui

VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
COMMAND = VENV / "bin" / "anydressing"
STAMP = VENV / "anydressing-setup"  # written last: without it, or with another content, the environment is not complete
TOOLS_STAMP = VENV / "anydressing-tools"  # the same for one without ComfyUI

OLDEST_PYTHON = (3, 10)
PINNED_PYTHON = (3, 11)  # constraints.txt names versions that older Pythons cannot have
# Built for each other; ComfyUI imports all three.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
INPUTS = ("pyproject.toml", "requirements.txt", "constraints.txt", "dev/setup.py")
# For `sh`, because a path may hold spaces, and then for Python. An editable install would leave files in the checkout and
# a hook in every Python that starts here.
LAUNCHER = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import importlib.util
import sys

folder = {checkout!r}
spec = importlib.util.spec_from_file_location(
    "comfyui_anydressing", folder + "/__init__.py", submodule_search_locations=[folder]
)
sys.modules["comfyui_anydressing"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["comfyui_anydressing"])

from comfyui_anydressing.training.cli import main

if __name__ == "__main__":
    sys.exit(main())
"""
NETWORK = "Is the network there? Run the same command again: what is downloaded already is kept."


class SetupError(RuntimeError):
    """A step did not work; the message says which and what to do."""


def main(arguments: Sequence[str] = ()) -> int:
    """Build what is missing; with `--tools`, all but ComfyUI. Returns the exit status."""
    try:
        check_python()
        if "--tools" in arguments:
            set_up_tools()
        else:
            set_up()
    except (SetupError, ComfyUIMissingError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again: what is downloaded already is kept.", file=sys.stderr)
        return 130
    return 0


def check_python() -> None:
    """Raise SetupError when this Python is too old."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"This is Python {dotted(sys.version_info[:2])}, but AnyDressing needs {dotted(OLDEST_PYTHON)} or newer.\n"
            "Name a newer one, for example: make demo PYTHON=python3.12"
        )


def set_up() -> None:
    """Build .venv and fetch ComfyUI, unless the stamp says that just this has been built."""
    if is_set_up():
        return
    started = time.monotonic()
    print("Setting up. The first time: some 3 GB of downloads, 6 GB on the disk, 2 to 15 minutes.", flush=True)
    STAMP.unlink(missing_ok=True)
    make_venv()
    comfyui = get_comfyui()
    install(comfyui)
    write_command()
    check_imports()
    STAMP.write_text(stamp_for(comfyui), encoding="utf-8")
    print(f"Set up in {time.monotonic() - started:.0f} s.\n", flush=True)


def set_up_tools() -> None:
    """Build .venv without ComfyUI, unless it is there, with or without one."""
    if is_set_up() or is_stamped(TOOLS_STAMP, None):
        return
    print(
        "Setting up the tools. The first time: some 3 GB of downloads, 5 GB on the disk, 2 to 10 minutes.", flush=True
    )
    make_venv()
    install(None)
    write_command()
    TOOLS_STAMP.write_text(stamp_for(None), encoding="utf-8")


def is_set_up() -> bool:
    """Say whether nothing has changed since the last complete set-up."""
    comfyui = find() or STORE / PINNED.version
    return all(map(is_comfyui, (comfyui, STORE / OLDEST.version))) and is_stamped(STAMP, comfyui)


def is_stamped(stamp: Path, comfyui: Path | None) -> bool:
    """Say whether .venv is complete by this stamp, and nothing that decides its content has changed since."""
    files = all(file.exists() for file in (PYTHON, COMMAND, stamp))
    return files and stamp.read_text(encoding="utf-8") == stamp_for(comfyui)


def stamp_for(comfyui: Path | None) -> str:
    """Return a fingerprint of all that decides what a complete set-up contains."""
    files = [CHECKOUT / name for name in INPUTS] + ([] if comfyui is None else [comfyui / "requirements.txt"])
    digest = hashlib.sha256(f"{sys.version_info[:2]} {comfyui}".encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def make_venv() -> None:
    """Make .venv with this Python, unless a sound one is there, and put uv in it."""
    step(1, f"Making .venv with Python {dotted(sys.version_info[:3])}")
    if not is_sound(PYTHON):
        shutil.rmtree(VENV, ignore_errors=True)
        run(
            [sys.executable, "-m", "venv", VENV],
            "Python could not make a virtual environment.",
            "On Debian and Ubuntu its venv module is a package of its own: apt-get install python3-venv",
        )
    pip = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    run([*pip, "-c", constraints_file(), "uv"], "uv, which installs the rest, could not be downloaded.", NETWORK)


def is_sound(python: Path) -> bool:
    """Say whether an environment's Python runs, is of our version and has pip: an interrupted run may have left half of one."""
    code = f"import sys, pip; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return python.exists() and subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0


def get_comfyui() -> Path:
    """Return the developer's ComfyUI, or a fetched one; fetch the oldest supported release too, for the tests."""
    step(2, "Finding or fetching ComfyUI")
    comfyui = find_or_fetch(PINNED, python=str(PYTHON))
    fetch(OLDEST, python=str(PYTHON))
    print(f"      {comfyui}", flush=True)
    return comfyui


def install(comfyui: Path | None) -> None:
    """Install everything with uv: ComfyUI's requirements where there is one, the pack's, the trainer's and the tests'."""
    theirs = "" if comfyui is None else "ComfyUI's requirements, "
    step(3, f"Installing torch, {theirs}the trainer's and the tests' tools")
    trainer = ("--extra", "train") if sys.version_info >= PINNED_PYTHON else ()  # it needs 3.11, the nodes do not
    requirements = [
        *(() if comfyui is None else ("-r", comfyui / "requirements.txt")),
        *("-r", CHECKOUT / "requirements.txt"),
        *("-r", CHECKOUT / "pyproject.toml", *trainer, "--extra", "dev"),
        *("-c", constraints_file(comfyui)),
    ]
    uv = [VENV / "bin" / "uv", "pip", "install", "--python", PYTHON]
    run([*uv, *TORCH, *requirements], "Not everything could be installed; uv's own words are above.", NETWORK)


def write_command() -> None:
    """Write `.venv/bin/anydressing`, the trainer's command, which runs the checkout's code."""
    COMMAND.write_text(LAUNCHER.format(python=PYTHON, checkout=str(CHECKOUT)), encoding="utf-8")
    COMMAND.chmod(0o755)


def check_imports() -> None:
    """Try the packages that break most easily, rather than let ComfyUI fail later."""
    step(4, "Checking that it works")
    code = "import torch, torchvision, torchaudio, aiohttp, safetensors, numpy"
    run(
        [PYTHON, "-c", code],
        "The installed packages do not work together; Python's own words are above.",
        "Delete .venv and run the same command again.",
    )


def constraints_file(comfyui: Path | None = None) -> Path:
    """Return the file of pinned versions to install with.

    A developer's own ComfyUI asks for versions of its own: those that it names are not pinned by us.
    On Python 3.10 nothing is pinned, since the pinned versions need 3.11.
    """
    lines = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if sys.version_info < PINNED_PYTHON:
        lines = []
    if comfyui and comfyui != STORE / PINNED.version:
        named = named_by(comfyui / "requirements.txt")
        lines = [line for line in lines if not line.startswith(("#", "comfy")) and package_name(line) not in named]
    file = VENV / "anydressing-constraints.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def named_by(requirements: Path) -> set[str]:
    """Return the packages for which a requirements file asks for certain versions."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return {package_name(line) for line in lines if re.search(r"[=<>~]", line.partition("#")[0])}


def package_name(requirement: str) -> str:
    """Return the name in a line such as `SQLAlchemy>=2.0.0`, as package indexes compare names."""
    match = re.match(r"\s*([\w.-]+)", requirement)
    return re.sub(r"[-_.]+", "-", match.group(1)).lower() if match else ""


def step(number: int, what: str) -> None:
    """Tell the person at the terminal what happens now."""
    print(f"[{number}/4] {what}", flush=True)


def run(command: list[str | Path], what_failed: str, what_to_do: str) -> None:
    """Run a program whose output the person sees; raise SetupError with our own words when it fails."""
    patient = {"UV_HTTP_TIMEOUT": "120", **os.environ}
    if subprocess.run([str(word) for word in command], check=False, cwd=CHECKOUT, env=patient).returncode:
        raise SetupError(f"{what_failed}\n{what_to_do}")


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
