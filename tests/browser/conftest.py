# SPDX-License-Identifier: GPL-3.0-or-later
"""A real browser."""

from __future__ import annotations

import pytest

from dev.frontend import ChromiumMissingError, find_chromium


@pytest.fixture(scope="session")
def chromium(require):
    """Where Chromium is."""
    try:
        return find_chromium()
    except ChromiumMissingError as error:
        require(False, str(error))
