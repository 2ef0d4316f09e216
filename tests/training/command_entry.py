# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing` from the checkout: `python command_entry.py ARGUMENTS`, or `--serve` for many in forked processes."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("cli", "runs", "dressing_task", "sample_command", "export", "paper_doll")


def load_checkout():
    """Import the checkout as `comfyui_anydressing`, as tests/conftest.py does, and return its command."""
    name = "comfyui_anydressing"
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.training.cli").main


def serve(main):
    """Run a command for each line of the standard input, all at once."""
    for module in NEEDED:
        importlib.import_module(f"comfyui_anydressing.training.{module}")
    for line in sys.stdin:
        if os.fork() == 0:
            watch(main, json.loads(line))


def watch(main, request):
    """Run one command in a process of its own, and tell its number and how it ended."""
    folder = Path(request["folder"])
    child = os.fork()
    if child == 0:
        command(main, request)
    tell(folder / "pid", child)
    tell(folder / "status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def tell(path, number):
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(str(number))
    unfinished.rename(path)


def command(main, request):
    output = os.open(f"{request['folder']}/output", os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, output, output)):
        os.dup2(file, number)
    os.environ.update(request["environment"])
    if request["quota"] is not None:
        limit_disk(request["quota"])
    status = 1  # what Python returns for an exception that nobody caught
    try:
        status = main(request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def limit_disk(quota):
    """Let the disk take so many bytes of checkpoints; then it is full, in the middle of a file."""
    run_folder = importlib.import_module("comfyui_anydressing.training.run_folder")
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
    run = load_checkout()
    if sys.argv[1:] == ["--serve"]:
        serve(run)
    else:
        sys.exit(run())
