# SPDX-License-Identifier: GPL-3.0-or-later
"""What kill -9 costs a training run: nothing but the steps since its last checkpoint. Other mishaps cost not even these.

`python -m benchmarks.kill` trains a small network, ends it by SIGKILL at random moments, many of them in the middle of
a save, and lets the next process resume. After every kill each published checkpoint must verify, and none may be
missing; a run that comes to its end must equal the uninterrupted one to the bit. When it ends before all kills are done,
another one begins. Then `mishaps.py` does the like by the real loop, with all else that may go wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from comfyui_anydressing.training.run.folder import Keep, RunFolder
from comfyui_anydressing.training.run.noise import noise_seed
from torch import Tensor, nn

from . import mishaps

STEPS = 400
SAVE_EVERY = 5
KEEP = Keep(last=2, every=100)
SEED = 7


@dataclass
class Tally:
    """What happened so far."""

    kills: int = 0
    mid_save: int = 0
    runs: int = 0
    lost_checkpoints: int = 0
    damaged_checkpoints: int = 0
    different_runs: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing was lost."""
        return self.lost_checkpoints == self.damaged_checkpoints == self.different_runs == 0


def train(run: RunFolder) -> None:
    """Go on from the newest checkpoint to the last step. All chance comes from `noise_seed`."""
    with run.lock():
        torch.manual_seed(SEED)
        model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Dropout(0.1), nn.Linear(512, 256))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        start = run.latest() or 0
        if start:
            tensors, _ = run.load(start)
            model.load_state_dict(tensors["trainable"])
            _set_moments(optimizer, model, tensors["optimizer"])
        for step in range(start + 1, STEPS + 1):
            noise = torch.Generator().manual_seed(noise_seed(SEED, step, 0, "noise"))
            torch.manual_seed(noise_seed(SEED, step, 0, "dropout"))
            target = torch.randn(32, 256, generator=noise)
            loss = (model(target) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % SAVE_EVERY == 0:
                tensors = {"trainable": model.state_dict(), "optimizer": _moments(optimizer, model)}
                run.save(step, tensors, {"loss": loss.item()}, KEEP)


def _moments(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    named = model.named_parameters()
    return {f"{name}.{key}": value for name, weight in named for key, value in optimizer.state[weight].items()}


def _set_moments(optimizer: torch.optim.Optimizer, model: nn.Module, moments: dict[str, Tensor]) -> None:
    for name, weight in model.named_parameters():
        optimizer.state[weight] = {key: moments[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}


def start_child(run: RunFolder) -> int:
    """Train in a forked child, which is there at once because torch is loaded already; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        train(run)
        status = 0
    finally:
        os._exit(status)


def unfinished(run: RunFolder) -> bool:
    """Whether a save is under way, or was when its process died."""
    return any(name.startswith(".tmp-") for name in os.listdir(run.path / "checkpoints"))  # noqa: PTH208 (quicker)


def has_ended(pid: int) -> bool:
    """Whether a child has come to its end. Raises RuntimeError when it failed."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended and os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError("a training process failed; its error is printed above")
    return bool(ended)


def wait_for_moment(run: RunFolder, pid: int, chance: random.Random, aimed: bool, save_seconds: float) -> bool:
    """Wait until the child shall be killed: a little into one of its saves when aimed, else at any moment.

    False when it has ended before.
    """
    until = time.monotonic() + chance.uniform(0.02, 0.4)
    while time.monotonic() < until or (aimed and not unfinished(run)):
        if has_ended(pid):
            return False
        time.sleep(0.0003)
    if aimed:
        time.sleep(chance.uniform(0, save_seconds))
    return not has_ended(pid)


def kill(run: RunFolder, pid: int, tally: Tally) -> None:
    """End a child and count what that has taken."""
    seen = run.steps()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    tally.kills += 1
    tally.mid_save += unfinished(run)
    steps = run.steps()
    if steps[-1:] < seen[-1:] or len(steps) < min(2, len(seen)):
        tally.lost_checkpoints += 1
    for step in steps:
        try:
            run.load(step)
        except ValueError as error:
            print(error)
            tally.damaged_checkpoints += 1


def is_equal(run: RunFolder, reference: RunFolder) -> bool:
    """Whether two finished runs have the same tensors and the same state, to the bit."""
    (tensors, state), (expected, expected_state) = run.load(STEPS), reference.load(STEPS)
    return state == expected_state and all(
        tensors[group].keys() == named.keys()
        and all(torch.equal(tensors[group][name], value) for name, value in named.items())
        for group, named in expected.items()
    )


def campaign(folder: Path, kills: int, mid_save: int, seed: int) -> Tally:
    """Kill at least so many times, at least `mid_save` of them in the middle of a save."""
    reference = RunFolder.create(folder / "uninterrupted", "")
    begin = time.monotonic()
    train(reference)
    seconds = time.monotonic() - begin
    save_seconds = seconds / (STEPS / SAVE_EVERY) / 2
    print(f"Uninterrupted: {STEPS} steps, a checkpoint every {SAVE_EVERY}, {seconds:.1f} s.")
    tally, chance = Tally(), random.Random(seed)
    while tally.kills < kills or tally.mid_save < mid_save:
        tally.runs += 1
        run = RunFolder.create(folder / f"killed-{tally.runs}", "")
        while STEPS not in run.steps():
            pid = start_child(run)
            left, aimed_left = kills - tally.kills, mid_save - tally.mid_save
            if left <= 0 and aimed_left <= 0:
                while not has_ended(pid):
                    time.sleep(0.01)
            elif wait_for_moment(run, pid, chance, chance.random() * max(left, 1) < aimed_left, save_seconds):
                kill(run, pid, tally)
        tally.different_runs += not is_equal(run, reference)
    return tally


def main() -> int:
    """Run the campaign and print what was lost; the exit status is 1 when anything was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="how many, of which 5 in 12 in the middle of a save")
    parser.add_argument("--mishaps", type=int, default=8, help="how many of every other kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a forked child must not touch its parent's thread pool
    torch.use_deterministic_algorithms(True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="anydressing-kill-") as folder:
        tally = campaign(Path(folder), arguments.kills, -(-arguments.kills * 5 // 12), arguments.seed)
        others = mishaps.campaign(Path(folder), arguments.mishaps, arguments.seed)
    print(f"Kills: {tally.kills}, {tally.mid_save} of them in the middle of a save; {time.monotonic() - begin:.1f} s.")
    print(f"Runs brought to their end: {tally.runs}, different from the uninterrupted one: {tally.different_runs}.")
    print(f"Checkpoints lost: {tally.lost_checkpoints}, damaged: {tally.damaged_checkpoints}.")
    print(mishaps.table(others))
    return 0 if tally.good and others.good else 1


if __name__ == "__main__":
    sys.exit(main())
