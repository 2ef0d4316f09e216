# SPDX-License-Identifier: GPL-3.0-or-later
"""What the method costs and what it is worth; it writes the pages that say so. Run from the checkout: `python -m benchmarks.flops`.

Nothing here is shipped to artists.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = "comfyui_anydressing"


def _load_checkout() -> None:
    """Import the checkout under the name that pip, the tests and the benchmarks know it by."""
    folder = Path(__file__).parents[1]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


if PACKAGE not in sys.modules:  # the tests have loaded it
    _load_checkout()
