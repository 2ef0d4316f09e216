# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the checkout as ComfyUI does: under a name of our choice, without putting its parent on sys.path.

With the checkout itself on sys.path, ComfyUI's `import nodes` would find ours.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACK = "comfyui_anydressing"


def load_package(name: str = PACK, folder: Path = ROOT) -> None:
    """Import `folder` as the package `name`."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
