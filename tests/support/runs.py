# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the loop read of a run: its checkpoints, its events, its words, its processes."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from comfyui_anydressing.training.run.events import read_events
from comfyui_anydressing.training.run.folder import RunFolder
from rich.console import Console

from .loop_toy import train_toy


def trained(folder, step=None):
    """All tensors of a checkpoint, by `group/name`."""
    run = RunFolder.open(folder)
    groups = run.load(run.latest() if step is None else step)[0]
    return {f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()}


def state(folder):
    run = RunFolder.open(folder)
    return run.load(run.latest())[1]


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def told(folder, event):
    return [each for each in read_events(folder) if each["event"] == event]


def said(config, *arguments, **options):
    """What a person reads who looks at the run."""
    text = io.StringIO()
    train_toy(config, *arguments, console=Console(file=text, width=200, force_terminal=False), **options)
    return text.getvalue()


def steps_told(folder):
    return len(told(folder, "step")) if (folder / "events.jsonl").exists() else 0


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid):
    """No process has this number, or only a dead one that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
