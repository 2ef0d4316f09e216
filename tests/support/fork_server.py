# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that are forked from one which has imported everything and computed nothing.

Importing takes longer than training here, and a fork of the tests' own process would inherit their thread pools and locks.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path


def serve(run):
    """Call `run(request)` in a process and session of its own for each line of the standard input, all at once.

    request: from JSON; `folder` is where the process tells its `pid`, `output` and, at its end, `status`, which is
    what `run` returned, 1 when it raised; `environment` is set first; `terminal` is where its output goes instead.
    """
    for line in sys.stdin:
        if os.fork() == 0:
            _watch(run, json.loads(line))


def _watch(run, request):
    folder = Path(request["folder"])
    child = os.fork()
    if child == 0:
        _be(run, request)
    _tell(folder / "pid", child)
    _tell(folder / "status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _tell(path, number):
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(str(number))
    unfinished.rename(path)


def _be(run, request):
    status = 1  # what Python returns for an exception that nobody caught
    try:
        os.setsid()
        terminal = request.get("terminal")  # the first one that a session opens, to read as well, is its own
        output = os.open(terminal or f"{request['folder']}/output", os.O_RDWR | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((nothing, output, output)):
            os.dup2(file, number)
        os.environ.update(request["environment"])
        status = run(request)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
