# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing` from the checkout: `python command_entry.py ARGUMENTS`, or `--serve` for many in forked processes."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("cli", "run.start", "dressing.task", "commands.sample", "dressing.export", "paper_doll.world")


def load_checkout():
    """Import the checkout as `comfyui_anydressing`, as tests/conftest.py does, and return its command."""
    name = "comfyui_anydressing"
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.training.cli").main


def run_command(request):
    """Run the command with `arguments` in `cwd`, on a disk that takes `quota` bytes of checkpoints, None for all."""
    os.chdir(request["cwd"])
    if request["quota"] is not None:
        limit_disk(request["quota"])
    return main(request["arguments"])


def limit_disk(quota):
    """Let the disk take so many bytes of checkpoints; then it is full, in the middle of a file."""
    run_folder = importlib.import_module("comfyui_anydressing.training.run.folder")
    write = run_folder.write_synced

    def limited(path, content):
        nonlocal quota
        quota -= len(content)
        if quota < 0:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    run_folder.write_synced = limited


if __name__ == "__main__":
    main = load_checkout()
    if sys.argv[1:] == ["--serve"]:
        from fork_server import serve

        for module in NEEDED:
            importlib.import_module(f"comfyui_anydressing.training.{module}")
        serve(run_command)
    else:
        sys.exit(main())
