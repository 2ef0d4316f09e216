# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds what `make demo`, `make ui` and `make test` need: .venv with everything in it, and a ComfyUI.

Run by the system's own Python, so it uses the standard library alone. A second run finds nothing to do in well under a second.
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

CHECKOUT = Path(__file__).resolve().parents[1]
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "anydressing-setup"  # written last: without it, or with another content, the environment is not complete

OLDEST_PYTHON = (3, 10)
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")  # ComfyUI imports all three, built for each other
INPUTS = ("pyproject.toml", "requirements.txt", "constraints.txt", "dev/setup.py")
STEPS = 4


class SetupFailed(RuntimeError):
    """A step did not work; the message says which and what to do."""


def main() -> int:
    """Build what is missing. Returns the exit status."""
    try:
        check_python()
        set_up()
    except SetupFailed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again: what is downloaded already is kept.", file=sys.stderr)
        return 130
    return 0


def check_python() -> None:
    """Raise SetupFailed when this Python is too old."""
    if sys.version_info < OLDEST_PYTHON:
        have, need = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST_PYTHON))
        raise SetupFailed(
            f"This is Python {have}, but AnyDressing needs {need} or newer.\n"
            "Name a newer one, for example: make demo PYTHON=python3.12"
        )


def set_up() -> None:
    """Build .venv and fetch ComfyUI, unless the stamp says that just this was built already."""
    if STAMP.exists() and PYTHON.exists():
        comfyui = Path(STAMP.read_text(encoding="utf-8").partition("\n")[2])
        if stamp_for(comfyui) == STAMP.read_text(encoding="utf-8"):
            return
    started = time.monotonic()
    print("Setting up AnyDressing's development environment: once, some 3 GB of downloads, 2 to 15 minutes.")
    STAMP.unlink(missing_ok=True)
    make_venv()
    comfyui = get_comfyui()
    install(comfyui)
    finish(comfyui)
    print(f"Set up in {time.monotonic() - started:.0f} s.\n", flush=True)


def step(number: int, what: str) -> None:
    """Tell the person at the terminal what happens now."""
    print(f"[{number}/{STEPS}] {what}", flush=True)


def make_venv() -> None:
    """Make .venv with this Python, and put uv in it."""
    step(1, f"Making .venv with Python {sys.version.split()[0]}, and uv in it")
    if not works(PYTHON):
        shutil.rmtree(VENV, ignore_errors=True)
        run(
            [sys.executable, "-m", "venv", str(VENV)],
            "Python could not make a virtual environment.",
            "On Debian and Ubuntu its venv module is a package of its own: apt-get install python3-venv",
        )
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "uv"]
    run(pip, "uv, which installs the rest, could not be downloaded.")


def works(python: Path) -> bool:
    """Say whether a virtual environment's Python starts and has pip; an interrupted run may have left half of one."""
    command = [str(python), "-c", "import pip"]
    return python.exists() and subprocess.run(command, check=False, capture_output=True).returncode == 0


def get_comfyui() -> Path:
    """Return the developer's ComfyUI, or fetch one; also fetch the oldest that the tests run on."""
    step(2, "Finding or fetching ComfyUI")
    code = "from dev.comfyui import *; fetch(OLDEST); print(find_or_fetch(PINNED))"
    answer = run([str(PYTHON), "-c", READ_ERRORS.format(code=code)], "There is no ComfyUI to work with.", output=True)
    comfyui = Path(answer.splitlines()[-1])
    print(f"      {comfyui}")
    return comfyui
