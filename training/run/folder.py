# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a training run: its config and its checkpoints, whole after a crash at any moment.

    run/config.toml                             the resolved configuration, written once
    run/checkpoints/step-00000400/*.safetensors named groups of tensors
                                  state.json    numbers and strings
                                  manifest.json size and sha256 of the files above, written last

A checkpoint is written under a temporary name, brought to disk, then renamed: what is called `step-*` is complete. Only
then are older ones pruned. No random state needs keeping, because all chance follows from `noise.noise_seed`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ...anydressing_core.atomic_write import sync_folder, write_atomically, write_synced
from ...anydressing_core.refusals import disk_refusal, refusal
from ..places import require_there
from ..text_files import read_text
from .lock import is_running, locked

CONFIG = "config.toml"
CHECKPOINTS = "checkpoints"
STATE = "state.json"
MANIFEST = "manifest.json"
WEIGHTS = ("average.safetensors", "model.safetensors")
"""The files that may hold what is exported, what is preferred first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keep:
    """Which checkpoints outlive the next one: the `last` newest, and those whose step is a multiple of `every`.

    Raises ValueError for fewer than two: when the newest is damaged, a run goes on from the one before.
    """

    last: int = 3
    every: int | None = None

    def __post_init__(self) -> None:
        if self.last < 2:
            why = "When the newest checkpoint is damaged, a run goes on from the one before."
            raise refusal(f"keep_last = {self.last}", "is too few", why, "keep at least 2.")
        if self.every is not None and self.every < 1:
            why = "It is a number of steps."
            raise refusal(f"keep_every = {self.every}", "is impossible", why, "choose 1 or more, or leave it out.")

    def outlives(self, step: int, steps: list[int]) -> bool:
        """Whether a checkpoint stays. steps: of all checkpoints up to the one just saved, ascending."""
        return step in steps[-self.last :] or (self.every is not None and step % self.every == 0)


class RunFolder:
    """A run folder on disk; whoever writes checkpoints holds its `lock`, reading needs none."""

    def __init__(self, path: Path) -> None:
        """Use `create` or `open`, which check the folder."""
        self.path = path
        self._lock_file: FileIO | None = None

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: str) -> RunFolder:
        """Make a run folder. Raises ValueError when it already holds a run, OSError when the disk refuses.

        A run without a checkpoint has nothing to lose, and is begun anew.
        """
        run = cls(Path(path).absolute())
        try:
            run._checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            name = f"The run folder {str(run.path)!r}"
            raise disk_refusal(error, name, "cannot be made", "choose another folder.") from error
        with run.lock():
            if run.steps():
                why = "A run never replaces another, be it shorter."
                remedy = "go on with it by --resume, or begin in another folder, as with --set folder=runs/another."
                raise refusal(f"Folder {str(run.path)!r}", "already holds a run", why, remedy)
            write_atomically(run.path / CONFIG, config.encode())
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Open an existing run folder. Raises ValueError for any other folder."""
        run = cls(
            require_there(path, "The run's folder", "choose the folder that `anydressing train` made.").absolute()
        )
        if not ((run.path / CONFIG).is_file() and run._checkpoints.is_dir()):
            why = f"It should hold {CONFIG} and the folder {CHECKPOINTS}."
            remedy = "choose the folder that `anydressing train` made."
            raise refusal(f"Folder {str(run.path)!r}", "is not a run folder", why, remedy)
        return run

    @property
    def config(self) -> str:
        """The text of config.toml, which somebody may have edited. Raises ValueError when it is not UTF-8."""
        return read_text(self.path / CONFIG)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process and first clear away what killed processes left half done.

        The lock ends with the process, also by kill -9; forked children do not share it. Raises as `locked`.
        """
        with locked(self.path / ".lock") as self._lock_file:
            self._sweep()
            yield

    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending, damaged ones included."""
        found = (re.fullmatch(r"step-(\d{8,})", entry.name) for entry in self._checkpoints.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: Keep | None = None
    ) -> None:
        """Write a checkpoint that survives a power cut after the return, then prune older ones.

        tensors: group -> name -> tensor, on any device; values are kept to the bit, strides and aliasing are not.
        state: what JSON can hold; tuples come back as lists. keep: nothing is pruned when None.
        A good checkpoint of this step is left as it is: training is exact, so it would be written again unchanged.
        Raises OSError when the disk is full or refuses; earlier checkpoints are then untouched.
        """
        assert self._lock_file is not None
        assert not self._lock_file.closed, "checkpoints are written under the lock, by the process that took it"
        assert all(re.fullmatch(r"\w+", group) for group in tensors)
        state_bytes = json.dumps(state, indent=1).encode()
        size = sum(map(_serialized_size, tensors.values())) + len(state_bytes)
        try:
            if not self._checkpoint(step).exists() or self._damage(step) is not None:
                self.refuse_full_disk(2 * size)
                self._write_and_publish(step, tensors, state_bytes)
        except OSError as error:
            raise self._not_saved(step, 2 * size, error) from error
        if keep is not None:
            self._prune(step, keep)

    def latest(self, before: float = math.inf) -> int | None:
        """The step of the newest checkpoint whose every byte verifies; None when nothing was ever saved.

        before: only those of smaller steps count. Damaged ones are passed over with a warning. Raises ValueError when
        all are damaged: a run never silently begins anew.
        """
        return self._newest(before, weights_alone=False)

    def _newest(self, before: float = math.inf, *, weights_alone: bool) -> int | None:
        damaged: dict[int, str] = {}
        for step in (step for step in reversed(self.steps()) if step < before):
            damage = self._damage(step, weights_alone=weights_alone)
            if damage is None:
                for other, reason in damaged.items():
                    logger.warning("%s is damaged: %s Using %s instead.", _name(other), reason, _name(step))
                return step
            damaged[step] = damage
        if damaged:
            newest, reason = next(iter(damaged.items()))
            why = f"The newest, {_name(newest)}: {reason}"
            remedy = "restore the folder from a backup, or begin a new run in another folder."
            raise refusal(f"Run {str(self.path)!r}", "has only damaged checkpoints", why, remedy)
        return None

    def load(self, step: int) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Read a checkpoint onto the CPU, verified before it is parsed: (tensors, state) as `save` took them.

        Raises ValueError when it is missing or damaged.
        """
        files = self._read(step, weights_alone=False)
        state = json.loads(files.pop(STATE))
        return {Path(name).stem: safetensors.torch.load(data) for name, data in files.items()}, state

    def trained(self, step: int | None = None) -> tuple[int, dict[str, Tensor]]:
        """The step and the weights of a checkpoint, the newest when None: the averaged ones where the loop averages.

        What a checkpoint holds beside them, for a run that goes on, is not read and may be damaged. Raises ValueError
        when there is no checkpoint yet, or not that one.
        """
        step = self._newest(weights_alone=True) if step is None else step
        if step is None:
            why = "It ended before its first checkpoint."
            raise refusal(f"The run in {str(self.path)!r}", "has trained nothing", why, "resume it first.")
        (content,) = self._read(step, weights_alone=True).values()
        return step, safetensors.torch.load(content)

    def _read(self, step: int, *, weights_alone: bool) -> dict[str, bytes]:
        try:
            return dict(self._verified_files(step, weights_alone=weights_alone))
        except _DamagedError as damage:
            known = ", ".join(map(str, self.steps())) or "none"
            remedy = f"choose another step; here are: {known}."
            raise refusal(f"Checkpoint {_name(step)}", "cannot be used", str(damage), remedy) from damage

    @property
    def _checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def _checkpoint(self, step: int) -> Path:
        return self._checkpoints / _name(step)

    def _unfinished(self, kind: str, step: int) -> Path:
        """Where this process writes (`tmp`) or deletes (`del`); a leftover of that name is of an earlier process."""
        path = self._checkpoints / f".{kind}-{step}-{os.getpid()}"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def _sweep(self) -> None:
        for entry in self._checkpoints.iterdir():
            match = re.fullmatch(r"\.(?:tmp|del)-\d+-(\d+)", entry.name)
            if match and not is_running(int(match[1])):
                shutil.rmtree(entry, ignore_errors=True)

    def _write_and_publish(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: bytes) -> None:
        temporary, target = self._unfinished("tmp", step), self._checkpoint(step)
        try:
            _write(temporary, step, tensors, state)
            if target.exists():  # a damaged one
                self._delete(target, step)
            temporary.rename(target)
            sync_folder(self._checkpoints)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _prune(self, saved: int, keep: Keep) -> None:
        # What is newer than the step just saved is damaged, or the run would have gone on from there: it counts for
        # nothing here and is replaced when the run comes to it.
        steps = [step for step in self.steps() if step <= saved]
        for step in steps:
            if not keep.outlives(step, steps):
                try:
                    self._delete(self._checkpoint(step), step)
                except OSError as error:
                    logger.warning("%s could not be pruned: %s.", _name(step), error.strerror)

    def _delete(self, checkpoint: Path, step: int) -> None:
        """Rename first: a checkpoint must never look whole when half of it is gone."""
        doomed = self._unfinished("del", step)
        checkpoint.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # the next start sweeps what remains

    def _damage(self, step: int, *, weights_alone: bool = False) -> str | None:
        try:
            for _ in self._verified_files(step, weights_alone=weights_alone):
                pass
        except _DamagedError as damage:
            return str(damage)
        return None

    def _verified_files(self, step: int, *, weights_alone: bool) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of every file, each read once and compared with the manifest.

        weights_alone: only of the one that holds the weights, averaged where there are such.
        """
        folder = self._checkpoint(step)
        files = _read_manifest(folder / MANIFEST, step)
        weights = next((name for name in WEIGHTS if name in files), None)
        if weights_alone and weights is None:
            raise _DamagedError(f"{MANIFEST} names no weights.")
        for name, (size, sha256) in files.items():
            if weights_alone and name != weights:
                continue
            try:
                found = (folder / name).stat().st_size
                if found != size:
                    raise _DamagedError(f"{name} has {found:,} bytes instead of {size:,}.")
                content = (folder / name).read_bytes()
            except OSError as error:
                raise _DamagedError(f"{name} cannot be read ({error.strerror}).") from error
            if hashlib.sha256(content).hexdigest() != sha256:
                raise _DamagedError(f"{name} is not what was written; its sha256 differs.")
            yield name, content

    def refuse_full_disk(self, needed: int) -> None:
        if shutil.disk_usage(self._checkpoints).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _not_saved(self, step: int, needed: int, error: OSError) -> OSError:
        try:
            free = f"{shutil.disk_usage(self._checkpoints).free:,} bytes are free"
        except OSError:
            free = "the folder is gone"
        why = f"{error.strerror}: {needed:,} bytes are needed (twice its size), {free}.{self._newest_before(step)}"
        remedy = "free some space or make the folder writable, then resume. Earlier checkpoints are unchanged."
        problem = f"could not be saved in {str(self._checkpoints)!r}"
        return disk_refusal(error, _name(step), problem, remedy, why)

    def _newest_before(self, step: int) -> str:
        try:
            earlier = [each for each in self.steps() if each < step]
        except OSError:
            return ""
        return f" The newest that is saved: {_name(earlier[-1])}." if earlier else " None is saved so far."


class _DamagedError(ValueError):
    """Says in one sentence what is wrong with a checkpoint."""


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _read_manifest(path: Path, step: int) -> dict[str, tuple[int, str]]:
    """The size and sha256 of every file, by name."""
    try:
        content: Any = json.loads(path.read_bytes())
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in content["files"].items()}
        described = content["step"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _DamagedError(f"{path.name} is missing or incomplete.") from error
    if described != step or STATE not in files or any(Path(name).name != name for name in files):
        raise _DamagedError(f"{path.name} does not describe this checkpoint.")
    return files


def _write(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: bytes) -> None:
    """Write all files of a checkpoint, each on disk before the manifest that vouches for it."""
    folder.mkdir()
    files: dict[str, dict[str, int | str]] = {}

    def write(name: str, content: bytes) -> None:
        write_synced(folder / name, content)
        files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    for group, named in tensors.items():
        write(f"{group}.safetensors", safetensors.torch.save({name: _copy(named[name]) for name in named}))
    write(STATE, state)
    write_synced(folder / MANIFEST, json.dumps({"step": step, "files": files}, indent=1).encode())
    sync_folder(folder)


def _copy(tensor: Tensor) -> Tensor:
    # A copy, because safetensors refuses tensors that overlap in memory; to us they are equal values, no more.
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _serialized_size(tensors: Mapping[str, Tensor]) -> int:
    """The bytes of the values and, generously, of the header."""
    return sum(tensor.numel() * tensor.element_size() + len(name) + 200 for name, tensor in tensors.items())
