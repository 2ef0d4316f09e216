# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that paints for `write_dataset`: seeds come in on standard input, lines of the manifest go out.

It is started as a file and finds the pack by its place, so that neither an installation nor the parent's main module is
needed. It ends when its input does, also when the parent was killed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import sys
from pathlib import Path

PACK = "comfyui_anydressing"


def paint_what_is_asked() -> None:
    """Paint the seeds on standard input with the settings in the first argument, JSON for `write_sample`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    here = Path(__file__).resolve().parent
    sys.path[:] = [
        path for path in sys.path if Path(path).resolve() != here
    ]  # or its files would hide packages of their names
    _load_pack(here.parents[2])
    dataset = importlib.import_module(f"{PACK}.training.paper_doll.world.dataset")

    import cv2

    cv2.setNumThreads(1)  # the processes are what runs in parallel
    settings = json.loads(sys.argv[1])
    for seed in sys.stdin:
        sys.stdout.write(json.dumps(dataset.write_sample(int(seed), **settings)) + "\n")
        sys.stdout.flush()


def _load_pack(folder: Path) -> None:
    """Import the checkout as a package, whatever its folder is called."""
    spec = importlib.util.spec_from_file_location(
        PACK, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    paint_what_is_asked()
