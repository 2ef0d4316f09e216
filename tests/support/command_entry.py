# SPDX-License-Identifier: GPL-3.0-or-later
"""`anydressing` from the checkout: `python command_entry.py ARGUMENTS`, or `--serve` for many in forked processes."""

from __future__ import annotations

import errno
import importlib
import os
import sys

from checkout import PACK, load_package

NEEDED = ("cli", "run.start", "dressing.task", "commands.sample", "dressing.export", "paper_doll.world")


def run_command(request):
    """Run the command with `arguments` in `cwd`, on a disk that takes `quota` bytes of checkpoints, None for all."""
    os.chdir(request["cwd"])
    if request["quota"] is not None:
        limit_disk(request["quota"])
    return main(request["arguments"])


def limit_disk(quota):
    """Let the disk take so many bytes of checkpoints; then it is full, in the middle of a file."""
    run_folder = importlib.import_module(f"{PACK}.training.run.folder")
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
    load_package()  # as tests/conftest.py does
    main = importlib.import_module(f"{PACK}.training.cli").main
    if sys.argv[1:] == ["--serve"]:
        from fork_server import serve

        for module in NEEDED:
            importlib.import_module(f"{PACK}.training.{module}")
        importlib.import_module("torch._dynamo")  # the first optimizer of a process would, for seconds
        serve(run_command)
    else:
        sys.exit(main())
