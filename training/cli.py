# SPDX-License-Identifier: GPL-3.0-or-later
"""The `anydressing` command."""

from __future__ import annotations

import argparse

# The checkout is usually not installed, so installed metadata cannot tell it. tests/test_packaging.py compares it with pyproject.toml.
VERSION = "0.1.0"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; `arguments` are those of the process when None. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="anydressing",
        description="AnyDressing's training suite. This version has no commands yet: the trainer is being built.",
    )
    parser.add_argument("--version", action="version", version=f"anydressing {VERSION}")
    parser.parse_args(arguments)
    parser.print_help()
    return 0
