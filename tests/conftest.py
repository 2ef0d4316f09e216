# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the checkout as ComfyUI does, and tells every tier what to do when its tool is missing."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SPEC = importlib.util.spec_from_file_location("checkout", ROOT / "tests" / "support" / "checkout.py")
checkout = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(checkout)
checkout.load_package()
checkout.load_package("dev", ROOT / "dev")
checkout.load_package("support", ROOT / "tests" / "support")


def missing(reason: str) -> None:
    """Skip the test on a user's machine; fail it in CI, where a skipped tier would be a hole nobody sees."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} In CI this is a failure, not a skip.", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def require():
    """`require(found, reason)` returns what was found, or does what `missing` says."""

    def check(found, reason: str):
        if not found:
            missing(reason)
        return found

    return check


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The ComfyUI that the tests run on: the one `make test` found or fetched."""
    from dev.comfyui import PINNED, ComfyUIMissingError, find_or_fetch

    try:
        return find_or_fetch(PINNED)
    except ComfyUIMissingError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def random_models(comfyui_path) -> Path:
    """A models folder with the reduced random checkpoint, ControlNet and style LoRA; built once, then kept."""
    from dev.random_checkpoint import build_in_subprocess

    return build_in_subprocess(comfyui_path)


@pytest.fixture(scope="module")
def one_thread():
    """Networks as small as those of the tests only lose by sharing the work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
