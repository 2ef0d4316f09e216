# SPDX-License-Identifier: GPL-3.0-or-later
"""ruff and pyright have nothing to say."""

from __future__ import annotations

import subprocess
import sys


def run(root, *command):
    return subprocess.run([sys.executable, "-m", *command], cwd=root, check=False, capture_output=True, text=True)


def test_ruff_finds_nothing(root):
    result = run(root, "ruff", "check", "--no-cache", ".")
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_would_format_nothing(root):
    result = run(root, "ruff", "format", "--no-cache", "--check", ".")
    assert result.returncode == 0, result.stdout + result.stderr


def test_pyright_finds_nothing(root, require):
    # pyright's Python package fetches the checker itself from the npm registry the first time.
    there = run(root, "pyright", "--version")
    require(there.returncode == 0, f"pyright could not be fetched: {there.stderr.strip()[-300:]}")
    result = run(root, "pyright")
    assert result.returncode == 0, result.stdout + result.stderr
