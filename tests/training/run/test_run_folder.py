# SPDX-License-Identifier: GPL-3.0-or-later
"""The run folder: what was saved is what is loaded, and no crash, full disk or second process loses a checkpoint.

Crashes are real: a forked child is ended by SIGKILL. A full and a read-only disk are a small tmpfs where one can be
mounted (root on Linux), else the system calls are made to fail.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from comfyui_anydressing.training.run import lock as run_lock
from comfyui_anydressing.training.run.folder import Keep, RunFolder
from support.waiting import wait_until

CONFIG = 'preset = "smoke"\n'
DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", CONFIG)


def tensors(step, values=1000):
    """Two groups that tell the step they were saved at."""
    moments = {"exp_avg": torch.full((4, 3), step, dtype=torch.float32), "step": torch.tensor(float(step))}
    return {"trainable": {"up.weight": torch.arange(values) + step}, "optimizer": moments}


def save(run, *steps, keep=None, values=1000):
    with run.lock():
        for step in steps:
            run.save(step, tensors(step, values), {"seen": 4 * step}, keep)


def is_whole(run, step, values=1000):
    groups, state = run.load(step)
    expected = tensors(step, values)
    assert groups.keys() == expected.keys()
    equal = [torch.equal(groups[group][name], value) for group in expected for name, value in expected[group].items()]
    return all(equal) and state == {"seen": 4 * step}


def checkpoint(run, step):
    return run.path / "checkpoints" / f"step-{step:08d}"


def leftovers(run):
    return [entry.name for entry in (run.path / "checkpoints").iterdir() if entry.name.startswith(".")]


def flip_one_byte(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def fork(work):
    """Run `work` in a forked child; returns its pid. The child ends with status 0, or 1 when something is raised."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        torch.set_num_threads(1)  # a forked child must not touch the parent's thread pool
        work()
        status = 0
    finally:
        os._exit(status)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# Saving and loading


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_saved_is_what_is_loaded(run, dtype):
    numbers = torch.randint(0, 256, (4, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    bits = (numbers & 1).bool() if dtype == "bool" else numbers.view(getattr(torch, dtype))  # NaNs of every kind too
    group = {
        "matrix": bits,
        "transposed": bits.T,
        "row": bits[1],  # shares its memory with the matrix
        "expanded": bits[:1].expand(5, -1),
        "scalar": bits[0, 0],
        "empty": bits[:0],
        "parameter": torch.nn.Parameter(bits, requires_grad=False),
    }
    with run.lock():
        run.save(7, {"trainable": group, "none": {}}, {})
    loaded = run.load(7)[0]
    assert loaded["none"] == {}
    assert loaded["trainable"].keys() == group.keys()
    for name, value in group.items():
        again = loaded["trainable"][name]
        assert (again.dtype, again.shape) == (value.dtype, value.shape)
        assert torch.equal(as_bytes(again), as_bytes(value))


def as_bytes(tensor):
    return tensor.detach().reshape(-1).view(torch.uint8)


def test_state_is_kept_exactly(run):
    state = {"lr": 0.1 + 0.2, "seed": 2**63 - 1, "quarantined": ["Größe 38.png"], "best": None, "loss": float("inf")}
    with run.lock():
        run.save(1, {}, state)
    assert run.load(1) == ({}, state)


def test_loaded_tensors_can_be_trained_on(run):
    save(run, 3)
    run.load(3)[0]["optimizer"]["exp_avg"].add_(1)
    assert is_whole(run, 3)


def test_a_run_with_a_checkpoint_is_never_replaced(run):
    assert RunFolder.open(run.path).config == CONFIG
    save(run, 1)
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder.create(run.path, "other = 1\n")
    (run.path / "config.toml").unlink()
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder.create(run.path, "other = 1\n")


def test_a_run_without_a_checkpoint_is_begun_anew(tmp_path):
    RunFolder.create(tmp_path / "run", CONFIG)
    RunFolder.create(tmp_path / "run", "other = 1\n")
    assert RunFolder.open(tmp_path / "run").config == "other = 1\n"


def test_creation_that_was_cut_short_can_be_repeated(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert RunFolder.create(tmp_path / "run", CONFIG).config == CONFIG


def test_any_other_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run folder\.\nIt should hold config\.toml .*\nWhat to do: "):
        RunFolder.open(tmp_path)


def test_file_in_the_way_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=r"cannot be made\.\n.*\nWhat to do: "):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_new_run_has_no_checkpoint(run):
    assert run.steps() == []
    assert run.latest() is None


def test_missing_step_is_refused_and_the_present_ones_named(run):
    save(run, 100, 200)
    with pytest.raises(ValueError, match=r"step-00000300 cannot be used.*\n.*\n.*here are: 100, 200\."):
        run.load(300)


def test_what_was_trained_is_the_average_where_there_is_one(run):
    model, average = {"weight": torch.zeros(2)}, {"weight": torch.ones(2)}
    with run.lock():
        run.save(5, {"model": model}, {})
        run.save(10, {"model": model, "average": average}, {})
    assert [(step, trained["weight"].tolist()) for step, trained in (run.trained(5), run.trained())] == [
        (5, [0, 0]),
        (10, [1, 1]),
    ]


@pytest.mark.parametrize("name", ["optimizer.safetensors", "state.json", "model.safetensors"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: flip_one_byte(path, 0)])
def test_what_was_trained_needs_its_own_file_alone(run, name, damage):
    groups = {"model": {"weight": torch.zeros(2)}, "optimizer": {"mean": torch.zeros(2)}}
    with run.lock():
        run.save(10, {**groups, "average": {"weight": torch.ones(2)}}, {})
    damage(checkpoint(run, 10) / name)
    for step, trained in (run.trained(), run.trained(10)):
        assert (step, trained["weight"].tolist()) == (10, [1, 1])
    with pytest.raises(ValueError, match="has only damaged checkpoints"):
        run.latest()  # to go on takes all of it


def test_damaged_weights_are_passed_over_with_a_word(run, caplog):
    with run.lock():
        for step in (10, 20):
            run.save(step, {"model": {"weight": torch.full((2,), float(step))}}, {})
    flip_one_byte(checkpoint(run, 20) / "model.safetensors", 3)
    step, trained = run.trained()
    assert (step, trained["weight"].tolist()) == (10, [10, 10])
    assert "step-00000020 is damaged" in caplog.text
    with pytest.raises(ValueError, match=r"step-00000020 cannot be used\.(?s:.*)here are: 10, 20\."):
        run.trained(20)


def test_a_run_that_ended_before_its_first_checkpoint_has_trained_nothing(run):
    with pytest.raises(ValueError, match="has trained nothing"):
        run.trained()


def test_saving_takes_the_lock(run):
    with pytest.raises(AssertionError):
        run.save(1, {}, {})
    with run.lock():
        pass
    with pytest.raises(AssertionError, match="under the lock"):
        run.save(1, {}, {})


def test_everything_is_on_disk_before_it_is_published_and_published_before_anything_is_pruned(run, monkeypatch):
    events, real_sync, real_rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda file: (events.append(os.fstat(file).st_ino), real_sync(file))[1])

    def rename(source, target, **others):
        events.append(f"{os.fspath(source)} -> {os.fspath(target)}")
        real_rename(source, target, **others)

    monkeypatch.setattr(os, "rename", rename)
    save(run, 1, 2)
    events.clear()
    save(run, 3, keep=Keep(last=2))
    new, folder, pid = checkpoint(run, 3), run.path / "checkpoints", os.getpid()
    files = ["trainable.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
    assert events == [
        *((new / name).stat().st_ino for name in files),
        new.stat().st_ino,
        f"{folder}/.tmp-3-{pid} -> {new}",
        folder.stat().st_ino,
        f"{checkpoint(run, 1)} -> {folder}/.del-1-{pid}",
    ]


# Damage


@pytest.mark.parametrize("name", ["trainable.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("at", [0.0, 0.5, 0.95])
def test_one_wrong_bit_falls_back_to_the_checkpoint_before_and_says_so(run, caplog, name, at):
    save(run, 100, 200)
    path = checkpoint(run, 200) / name
    flip_one_byte(path, int(at * path.stat().st_size))
    with caplog.at_level(logging.WARNING):
        assert run.latest() == 100
    assert "step-00000200 is damaged" in caplog.text
    assert "Using step-00000100 instead." in caplog.text
    assert is_whole(run, 100)
    with pytest.raises(ValueError, match=r"step-00000200 cannot be used\.\n.+\nWhat to do: "):
        run.load(200)


@pytest.mark.parametrize("length", [0, 1, 60, 200])
def test_cut_manifest_falls_back(run, caplog, length):
    save(run, 100, 200)
    os.truncate(checkpoint(run, 200) / "manifest.json", length)
    assert run.latest() == 100
    assert "manifest.json is missing or incomplete" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"step": 200},
        {"step": 200, "files": {}},
        {"step": 200, "files": {"state.json": 3}},
        {"step": 200, "files": {"state.json": {"size": "many", "sha256": ""}}},
        {"step": 200, "files": {"../step-00000100/state.json": {"size": 1, "sha256": ""}}},
    ],
)
def test_senseless_manifest_falls_back(run, content):
    save(run, 100, 200)
    (checkpoint(run, 200) / "manifest.json").write_text(json.dumps(content))
    assert run.latest() == 100


def test_cut_and_missing_files_fall_back_past_each_other(run, caplog):
    save(run, 100, 200, 300, 400)
    os.truncate(checkpoint(run, 400) / "optimizer.safetensors", 50)
    (checkpoint(run, 300) / "state.json").unlink()
    shutil.rmtree(checkpoint(run, 200))
    shutil.copytree(checkpoint(run, 100), checkpoint(run, 200))  # whole, but not of this step
    assert run.latest() == 100
    assert "optimizer.safetensors has 50 bytes instead of" in caplog.text
    assert "state.json cannot be read (No such file or directory)" in caplog.text
    assert "manifest.json does not describe this checkpoint" in caplog.text


def test_run_with_only_damaged_checkpoints_never_begins_anew(run):
    save(run, 100)
    flip_one_byte(checkpoint(run, 100) / "state.json", 0)
    with pytest.raises(ValueError, match=r"has only damaged checkpoints\.\n.*state\.json.*\nWhat to do: "):
        run.latest()


def test_partial_folder_is_no_checkpoint(run):
    save(run, 100)
    for name in (".tmp-200-1", ".del-200-1", "step-200", "step-00000200.bak"):
        shutil.copytree(checkpoint(run, 100), run.path / "checkpoints" / name)
    assert run.steps() == [100]
    assert run.latest() == 100


def test_damaged_checkpoint_is_replaced_when_the_run_comes_to_it_again(run):
    save(run, 100, 200)
    flip_one_byte(checkpoint(run, 200) / "state.json", 0)
    save(run, 200)
    assert run.latest() == 200
    assert is_whole(run, 200)
    assert leftovers(run) == []


def test_good_checkpoint_is_not_written_again(run):
    save(run, 100)
    before = checkpoint(run, 100).stat().st_mtime_ns
    save(run, 100)
    assert checkpoint(run, 100).stat().st_mtime_ns == before


# Pruning


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (None, [1, 2, 3, 4, 5, 6, 7]),
        (Keep(last=2), [6, 7]),
        (Keep(last=3), [5, 6, 7]),
        (Keep(last=2, every=3), [3, 6, 7]),
        (Keep(last=10, every=3), [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_pruning_keeps_what_it_says(run, keep, kept):
    save(run, *range(1, 8), keep=keep)
    assert run.steps() == kept
    assert all(is_whole(run, step) for step in kept)
    assert leftovers(run) == []


def test_pruning_does_not_count_damaged_checkpoints_ahead_of_the_run(run):
    save(run, 100, 200, 300)
    flip_one_byte(checkpoint(run, 300) / "state.json", 0)
    assert run.latest() == 200
    save(run, 250, keep=Keep(last=2))
    assert run.steps() == [200, 250, 300]


@pytest.mark.parametrize("wrong", [{"last": 1}, {"every": 0}])
def test_keeping_too_little_is_refused(wrong):
    with pytest.raises(ValueError, match=r"\n.*\nWhat to do: "):
        Keep(**wrong)


def test_failed_pruning_does_not_stop_a_run(run, monkeypatch, caplog):
    save(run, 1, 2)
    real_rename = os.rename

    def rename(source, target, **others):
        if ".del-" in str(target):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real_rename(source, target, **others)

    monkeypatch.setattr(os, "rename", rename)
    save(run, 3, keep=Keep(last=2))
    assert run.steps() == [1, 2, 3]
    assert "step-00000001 could not be pruned: Permission denied." in caplog.text


# Kill -9


def test_killed_at_any_file_operation_nothing_but_the_running_save_is_lost(tmp_path):
    moment, published = 0, False
    while True:
        run = RunFolder.create(tmp_path / str(moment), CONFIG)
        save(run, 1, 2)
        _, status = os.waitpid(fork(lambda run=run, moment=moment: save_until_operation(run, moment)), 0)
        if not os.WIFSIGNALED(status):
            break
        there = run.steps()
        published |= 3 in there  # once published, it is so at every later moment
        assert there in (([1, 2, 3], [2, 3]) if published else ([1, 2],))
        assert all(is_whole(run, step) for step in there)
        assert run.latest() == there[-1]
        save(run, 3, keep=Keep(last=2))
        assert run.steps() == [2, 3]
        assert leftovers(run) == []
        moment += 1
    assert os.WEXITSTATUS(status) == 0
    assert published
    assert moment > 15


def save_until_operation(run, last):
    """Save step 3, and end this process by SIGKILL before file operation number `last`."""
    operations, real_sync = 0, os.fsync

    def before_operation(name, _arguments):
        nonlocal operations
        if name in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fsync"):
            if operations == last:
                os.kill(os.getpid(), signal.SIGKILL)
            operations += 1

    os.fsync = lambda file: (before_operation("fsync", ()), real_sync(file))[1]
    with run.lock():
        sys.addaudithook(before_operation)
        run.save(3, tensors(3), {"seen": 12}, Keep(last=2))


def test_ten_kills_at_random_moments_lose_nothing(run):
    values, mid_save, chance = 100_000, 0, random.Random(0)

    def train():
        with run.lock():
            step = run.latest() or 0
            assert step == 0 or is_whole(run, step, values)
            while True:
                step += 1
                run.save(step, tensors(step, values), {"seen": 4 * step}, Keep(last=2))

    for _ in range(10):
        before = run.steps()
        pid = fork(train)
        wait_until(lambda before=before: run.steps()[-1:] > before[-1:])  # its own first checkpoint
        time.sleep(chance.uniform(0, 0.05))
        seen = run.steps()
        kill(pid)
        after = run.steps()
        mid_save += any(name.startswith(".tmp-") for name in leftovers(run))
        assert after[-1] >= seen[-1]
        assert len(after) >= min(2, len(seen))
        assert all(is_whole(run, step, values) for step in after)
    assert mid_save >= 1


def test_leftovers_of_dead_processes_are_swept_and_those_of_living_ones_kept(run):
    dead = fork(lambda: None)
    os.waitpid(dead, 0)
    living = fork(lambda: time.sleep(60))
    try:
        folder = run.path / "checkpoints"
        for pid in (dead, living, os.getpid()):  # our number too: in a container every start may have the same
            for kind in ("tmp", "del"):
                (folder / f".{kind}-5-{pid}").mkdir()
                (folder / f".{kind}-5-{pid}" / "state.json").write_text("{}")
        with run.lock():
            assert sorted(leftovers(run)) == [f".del-5-{living}", f".tmp-5-{living}"]
    finally:
        kill(living)


# Two processes


@contextmanager
def process_with_lock(run, then=lambda: None):
    """A child that holds the lock, does `then` and waits to be killed."""
    ours, its = os.pipe()

    def hold():
        with run.lock():
            then()
            os.write(its, b"!")
            time.sleep(60)

    pid = fork(hold)
    try:
        os.close(its)
        assert os.read(ours, 1) == b"!"
        yield pid
    finally:
        os.close(ours)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_second_process_is_refused_until_the_first_is_killed(run):
    with process_with_lock(run) as pid:
        expected = rf"run folder is in use by pid {pid} on host {platform.node()}\.\n.*\nWhat to do: "
        with pytest.raises(ValueError, match=expected), run.lock():
            pass
        with pytest.raises(ValueError, match=expected):
            RunFolder.create(run.path, CONFIG)
    save(run, 1)
    assert is_whole(run, 1)


def test_reading_needs_no_lock(run):
    save(run, 1)
    with process_with_lock(run):
        assert RunFolder.open(run.path).latest() == 1


def test_data_worker_that_outlives_its_killed_trainer_does_not_keep_the_folder(run):
    ours, its = os.pipe()
    with process_with_lock(run, lambda: os.write(its, b"%d" % fork(lambda: time.sleep(60)))):
        worker = int(os.read(ours, 20))
    try:
        os.kill(worker, 0)
        with run.lock():
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(ours)
        os.close(its)


# Full and read-only disks

DISK = 8 << 20


class MountedDisk:
    """A tmpfs of 8 MB."""

    def __init__(self, folder):
        self.folder = folder

    def leave(self, free):
        """Fill it up to so many bytes."""
        filler = self.folder / "filler"
        filler.unlink(missing_ok=True)
        filler.write_bytes(bytes(shutil.disk_usage(self.folder).free - free))

    def make_read_only(self):
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)

    def unmount(self):
        subprocess.run(["umount", self.folder], check=True)


class PretendedDisk:
    """The same seen from our code, for users who may not mount: the system calls answer as on such a disk."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch, self.free = folder, monkeypatch, DISK
        real_usage, real_sync = shutil.disk_usage, os.fsync

        def sync(file):
            if os.fstat(file).st_size > self.free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real_sync(file)

        monkeypatch.setattr(shutil, "disk_usage", lambda path: real_usage(path)._replace(free=self.free))
        monkeypatch.setattr(os, "fsync", sync)

    def leave(self, free):
        self.free = free

    def make_read_only(self):
        def refuse(*_arguments, **_others):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.monkeypatch.setattr(os, "mkdir", refuse)
        self.monkeypatch.setattr(run_lock, "FileIO", refuse)

    def unmount(self):
        pass


def mounted(folder):
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
    return shutil.which("mount") and subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture(params=["mounted", "pretended"])
def disk(request, tmp_path, monkeypatch):
    """Both kinds where one can be mounted, else the pretended one twice."""
    folder = tmp_path / "disk"
    folder.mkdir()
    real = request.param == "mounted" and mounted(folder)
    disk = MountedDisk(folder) if real else PretendedDisk(folder, monkeypatch)
    yield disk
    disk.unmount()


MEGABYTE = 1 << 17  # int64 values


def test_full_disk_is_refused_before_anything_is_touched(disk):
    run = RunFolder.create(disk.folder / "run", CONFIG)
    save(run, 1, values=MEGABYTE)
    disk.leave(1_500_000)  # enough for one, not for two
    before = checkpoint(run, 1).parent.stat().st_mtime_ns
    with pytest.raises(OSError, match="step-00000002 could not be saved") as refused:
        save(run, 2, values=MEGABYTE)
    what, why, remedy = str(refused.value).split("\n")
    assert repr(str(run.path / "checkpoints")) in what
    free = shutil.disk_usage(disk.folder).free
    assert re.fullmatch(rf"No space left on device: 2,\d+,\d+ bytes are needed \(twice its size\), {free:,} .*", why)
    assert remedy.startswith("What to do: free some space")
    assert refused.value.__cause__.errno == errno.ENOSPC
    assert checkpoint(run, 1).parent.stat().st_mtime_ns == before
    disk.leave(4_000_000)
    save(run, 2, values=MEGABYTE)
    assert run.latest() == 2
    assert is_whole(run, 2, MEGABYTE)


def test_disk_that_fills_up_during_a_save_keeps_the_last_checkpoint(disk, monkeypatch):
    run = RunFolder.create(disk.folder / "run", CONFIG)
    save(run, 1, values=MEGABYTE)
    disk.leave(500_000)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "refuse_full_disk", lambda *_: None)  # it looked, and then another program wrote
        with pytest.raises(OSError, match=r"could not be saved.*\nNo space .* saved: step-0{7}1\.\nWhat to do: "):
            save(run, 2, values=MEGABYTE, keep=Keep(last=2))
    assert leftovers(run) == []
    assert run.latest() == 1
    assert is_whole(run, 1, MEGABYTE)
    disk.leave(4_000_000)
    save(run, 2, values=MEGABYTE)
    assert is_whole(run, 2, MEGABYTE)


def test_read_only_folder_is_refused_before_the_first_step(disk):
    run = RunFolder.create(disk.folder / "run", CONFIG)
    save(run, 1)
    disk.make_read_only()
    with pytest.raises(OSError, match=r"cannot be locked\.\nRead-only file system\.\nWhat to do: "), run.lock():
        pass
    with pytest.raises(OSError, match=r"cannot be made\.\nRead-only file system\.\nWhat to do: "):
        RunFolder.create(disk.folder / "other", CONFIG)
    assert run.latest() == 1
    assert is_whole(run, 1)


@pytest.mark.parametrize("operation", ["mkdir", "fsync", "rename"])
def test_disk_that_fails_during_a_run_keeps_the_last_checkpoint(run, monkeypatch, operation):
    save(run, 1)

    def refuse(*_arguments, **_others):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with run.lock():
        monkeypatch.setattr(os, operation, refuse)
        with pytest.raises(OSError, match=r"could not be saved.*\nRead-only file system: .*\nWhat to do: "):
            run.save(2, tensors(2), {"seen": 8}, Keep(last=2))
    assert run.latest() == 1
    assert is_whole(run, 1)
    assert leftovers(run) == []


def test_file_size_limit_keeps_the_last_checkpoint(run):
    """`ulimit -f` and quotas: the write itself fails."""
    save(run, 1)

    def save_within_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with run.lock(), pytest.raises(OSError, match=r"could not be saved.*\nFile too large: .*\nWhat to do: "):
            run.save(2, tensors(2, MEGABYTE), {"seen": 8}, Keep(last=2))

    _, status = os.waitpid(fork(save_within_limit), 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert run.latest() == 1
    assert is_whole(run, 1)
    assert leftovers(run) == []


def test_folder_removed_during_the_run_is_said(run):
    save(run, 1)
    with run.lock():
        shutil.rmtree(run.path)
        with pytest.raises(OSError, match=r"No such file or directory: .*the folder is gone\.\nWhat to do: "):
            run.save(2, tensors(2), {})


def test_interrupted_save_leaves_nothing_behind(run, monkeypatch):
    save(run, 1)
    monkeypatch.setattr(os, "fsync", lambda _file: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(run, 2)
    assert leftovers(run) == []
    assert run.latest() == 1
