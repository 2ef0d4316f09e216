# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loop: nothing that happens to a run changes what it learns.

The processes that are killed, signalled and joined are real: those of a fork server, and one pair under torchrun.
"""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from comfyui_anydressing.training.run import events as events_module
from comfyui_anydressing.training.run.folder import RunFolder
from comfyui_anydressing.training.run.noise import draws_of_step
from rich.console import Console
from support import loop_toy as toy
from support.loop_toy import Trouble, toy_config, train_toy
from support.runs import children_of, is_gone, said, same, state, steps_told, told, trained
from support.waiting import wait_until

SCRIPT = Path(toy.__file__)
WHOLE = ("data.batch=8", "data.accumulate=1")


def assert_close(left, right):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=1e-6, rtol=0, msg=lambda text, name=name: name + text)


# ---- a run that is cut in two ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_run_ends_as_an_unbroken_one(tmp_path, start, unbroken, workers):
    config = toy_config(tmp_path / "run", f"data.workers={workers}")
    child = start(config, Trouble(seconds=0.02))
    checkpoint = config.folder / "checkpoints" / "step-00000010"
    wait_until(checkpoint.exists)
    helpers = children_of(child.pid)
    time.sleep(random.uniform(0, 0.2))
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert RunFolder.open(config.folder).latest() == 10
    assert train_toy(config, resume=True)[0].step == 20
    assert same(trained(config.folder), unbroken)
    assert len(helpers) == workers
    wait_until(lambda: all(map(is_gone, helpers)), patience=20)


def test_toy_learns_by_chance_average_and_schedule(tmp_path, unbroken):
    assert {name.partition("/")[0] for name in unbroken} == {"model", "optimizer", "average"}
    assert not torch.equal(unbroken["average/0.weight"], unbroken["model/0.weight"])
    assert not any("3.weight" in name for name in unbroken)  # it is frozen
    rates = [event["rate"] for event in told(tmp_path / "unbroken", "step")]
    config = toy_config(tmp_path)
    assert rates == pytest.approx([config.optimizer.rate(step, 20) for step in range(20)], rel=1e-5)
    train_toy(toy_config(tmp_path / "other", "seed=1"))
    assert not same(trained(tmp_path / "other"), unbroken)


def test_rate_rises_over_the_warmup_and_falls_as_a_cosine(tmp_path):
    rate = toy_config(tmp_path, "optimizer.learning_rate=1.0").optimizer.rate
    assert [rate(step, 20) for step in (0, 1, 2)] == pytest.approx(
        [0.25 * 1, 0.5 * 0.993844, 0.75 * 0.975528], rel=1e-5
    )
    assert rate(10, 20) == pytest.approx(0.5)
    assert 0 < rate(19, 20) < 0.007
    constant = toy_config(tmp_path, "optimizer.schedule='constant'", "optimizer.warmup=0").optimizer
    assert {constant.rate(step, 20) for step in range(20)} == {0.01}


# ---- the size of a batch --------------------------------------------------------------------------------------------


def test_batch_accumulation_and_halving_give_the_same_result(tmp_path):
    train_toy(toy_config(tmp_path / "whole", *WHOLE))
    train_toy(toy_config(tmp_path / "accumulated", "data.batch=4", "data.accumulate=2"))
    _, halved = train_toy(toy_config(tmp_path / "halved", *WHOLE), Trouble(largest=4))
    assert halved.seen == [8] + 40 * [4]
    for other in ("accumulated", "halved"):
        assert_close(trained(tmp_path / other), trained(tmp_path / "whole"))


def test_odd_batch_is_halved_into_unequal_parts(tmp_path):
    train_toy(toy_config(tmp_path / "whole", "data.batch=5", "data.accumulate=1"))
    _, halved = train_toy(toy_config(tmp_path / "halved", "data.batch=5", "data.accumulate=1"), Trouble(largest=4))
    assert halved.seen == [5] + 20 * [3, 2]
    assert_close(trained(tmp_path / "halved"), trained(tmp_path / "whole"))


def test_halving_is_told_and_kept_through_a_resume(tmp_path):
    plain = "optimizer.schedule='constant'"
    trouble = Trouble(largest=4)
    text = said(toy_config(tmp_path / "run", *WHOLE, plain, "steps=5"), trouble)
    assert "Out of memory: going on with 4 samples at once" in text
    assert [(event["step"], event["micro_batch"]) for event in told(tmp_path / "run", "out of memory")] == [(0, 4)]
    assert state(tmp_path / "run")["micro_batch"] == 4
    _, task = train_toy(toy_config(tmp_path / "run", *WHOLE, plain, "steps=10"), trouble, resume=True)
    assert set(task.seen) == {4}
    with pytest.raises(ValueError, match=r"step 10\.\nA batch of 4 .* halved before\. .*\nWhat to do: lower data\.res"):
        train_toy(toy_config(tmp_path / "run", *WHOLE, plain, "steps=15"), Trouble(largest=3), resume=True)


def test_one_sample_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"A batch of 1 does not fit\. No step .*\nWhat to do: lower data\.res"):
        train_toy(toy_config(tmp_path / "run", "data.batch=1"), Trouble(largest=0))


# ---- what is not a number -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_bad_step_changes_nothing_and_is_told(tmp_path, what):
    config = toy_config(tmp_path / "run", "checkpoints.every=1", "checkpoints.keep_last=20", "preview.every=1")
    text = io.StringIO()
    console = Console(file=text, width=200, force_terminal=False)
    _, task = train_toy(config, Trouble(**{f"bad_{what}": (3, 4, 7)}), console=console)
    text, shown = text.getvalue(), dict(task.previews)
    assert shown[3] == shown[4] == shown[5] != shown[6]
    assert shown[7] == shown[8] != shown[9]
    skips = told(config.folder, "skip")
    assert [skip["step"] for skip in skips] == [3, 4, 7]
    assert skips[0]["reason"] == f"{what} is not a number"
    assert skips[0]["items"] == [f"person {draw.item}" for draw in draws_of_step(0, 3, toy.ITEMS, 4)]
    assert f"Step 7 skipped: the {what} is not a number." in text
    assert text.rstrip().splitlines()[-1].count("skipped 3") == 1
    assert all(torch.isfinite(tensor).all() for tensor in trained(config.folder).values())


def test_loss_that_stays_broken_ends_the_run(tmp_path):
    config = toy_config(tmp_path / "run", "policies.bad_steps=3", "checkpoints.every=4")
    with pytest.raises(ValueError, match=r"stopped at step 7\.\n3 steps in a row .*\nWhat to do: .* step 4\."):
        train_toy(config, Trouble(bad_loss=(5, 6, 7)))
    assert RunFolder.open(config.folder).steps() == [4]


def test_good_step_resets_the_count(tmp_path):
    config = toy_config(tmp_path / "run", "policies.bad_steps=3")
    assert train_toy(config, Trouble(bad_loss=(1, 2, 4, 5), bad_gradient=(7,)))[0].step == 20


def test_count_of_bad_steps_outlives_a_resume(tmp_path):
    plain = ("optimizer.schedule='constant'", "policies.bad_steps=3")
    train_toy(toy_config(tmp_path / "run", *plain, "steps=5"), Trouble(bad_loss=(3, 4)))
    assert RunFolder.open(tmp_path / "run").steps() == [3]
    with pytest.raises(ValueError, match="stopped at step 5"):
        train_toy(toy_config(tmp_path / "run", *plain, "steps=9"), Trouble(bad_loss=(3, 4, 5)), resume=True)


# ---- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGHUP, 2), (signal.SIGTERM, 0)])
def test_signal_to_all_processes_finishes_the_step_and_saves(tmp_path, start, unbroken, number, workers):
    config = toy_config(tmp_path / "run", f"data.workers={workers}", "checkpoints.every=1000")
    child = start(config, Trouble(seconds=0.05))
    wait_until(lambda: steps_told(config.folder) >= 3)
    helpers = children_of(child.pid)
    os.killpg(child.pid, number)
    assert child.wait() == 128 + number
    saved = RunFolder.open(config.folder).latest()
    assert 3 <= saved < 20
    assert saved == steps_told(config.folder)
    assert told(config.folder, "stop")[0]["signal"] == number.name
    assert child.output == ""
    assert len(helpers) == workers
    assert all(map(is_gone, helpers))
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


def test_second_signal_stops_at_once(tmp_path, start):
    config = toy_config(tmp_path / "run", "data.workers=2")
    child = start(config, Trouble(seconds=1000))
    wait_until(lambda: (config.folder / "events.jsonl").exists() and len(children_of(child.pid)) == 2)
    helpers = children_of(child.pid)
    time.sleep(0.2)
    os.killpg(child.pid, signal.SIGINT)
    time.sleep(0.2)
    assert child.running  # it finishes its step
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(10) == 1
    assert child.output.rstrip().endswith("KeyboardInterrupt")
    assert all(map(is_gone, helpers))
    assert RunFolder.open(config.folder).steps() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_that_cannot_be_read_end_the_run_with_all_it_learned(tmp_path, start, unbroken, workers):
    config = toy_config(tmp_path / "run", f"data.workers={workers}", "checkpoints.every=1000")
    child = start(config, Trouble(bad_sample=7))
    assert child.wait(30) == 1
    assert child.output == "a picture is gone\n"
    assert RunFolder.open(config.folder).latest() == 7
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


def test_signal_ends_a_preview_and_trains_no_further(tmp_path, start):
    config = toy_config(tmp_path / "run", "preview.every=5")
    child = start(config, Trouble(preview_steps=40))
    wait_until(lambda: steps_told(config.folder) >= 5)
    time.sleep(0.3)
    began = time.monotonic()
    child.kill(signal.SIGTERM)
    assert child.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1.5  # the preview takes 2 s
    assert RunFolder.open(config.folder).latest() == 5
    assert [event["step"] for event in told(config.folder, "preview stopped")] == [5]


# ---- several processes ----------------------------------------------------------------------------------------------


def test_launched_pair_trains_as_one_process_does(tmp_path):
    whole = toy_config(tmp_path / "whole", "data.batch=4", "steps=6")
    train_toy(whole)
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2"
    command = [sys.executable, *launch.split(), str(SCRIPT), str(tmp_path / "pair"), "steps=6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}  # no matter
    result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert told(tmp_path / "pair", "start")[0]["samples_a_step"] == 8
    assert_close(trained(tmp_path / "pair"), trained(whole.folder))


def test_pair_trains_as_one_process_does_and_only_the_main_one_writes(tmp_path, start_two):
    whole = toy_config(tmp_path / "whole", "data.batch=4")
    train_toy(whole)
    pair = toy_config(tmp_path / "pair", "data.workers=1", "preview.every=10")
    assert [child.wait() for child in start_two(pair)] == [0, 0]
    assert_close(trained(pair.folder), trained(whole.folder))
    assert steps_told(pair.folder) == 20
    assert [event["loss"] for event in told(pair.folder, "step")] == pytest.approx(
        [event["loss"] for event in told(whole.folder, "step")], rel=1e-4
    )
    assert [event["step"] for event in told(pair.folder, "preview")] == [0, 10, 20]
    assert [event["step"] for event in told(pair.folder, "checkpoint")] == [10, 20, 20]


@pytest.mark.parametrize("process", [0, 1])
def test_trouble_of_one_process_is_met_by_both(tmp_path, start_two, process):
    """Out of memory, a bad loss and a bad gradient."""
    settings = ("data.batch=4", "data.accumulate=1", "steps=8")
    pair = toy_config(tmp_path / "pair", *settings)
    trouble = {"bad_loss": (3,), "bad_gradient": (5,)}
    assert [child.wait() for child in start_two(pair, Trouble(largest=2, process=process, **trouble))] == [0, 0]
    whole = toy_config(tmp_path / "whole", *settings[1:], "data.batch=8")
    train_toy(whole, Trouble(**trouble))
    assert_close(trained(pair.folder), trained(whole.folder))
    assert [event["micro_batch"] for event in told(pair.folder, "out of memory")] == [2]
    assert state(pair.folder)["micro_batch"] == 2
    skips = told(pair.folder, "skip")
    assert [(skip["step"], len(skip["items"])) for skip in skips] == [(3, 8), (5, 8)]


def test_signal_to_one_process_stops_both(tmp_path, start_two):
    pair = toy_config(tmp_path / "pair")
    children = start_two(pair, Trouble(seconds=0.05))
    wait_until(lambda: steps_told(pair.folder) >= 3)
    children[0].kill(signal.SIGTERM)
    assert [child.wait() for child in children] == 2 * [128 + signal.SIGTERM]
    assert RunFolder.open(pair.folder).latest() == steps_told(pair.folder) < 20
    assert [child.output for child in children] == ["", ""]


def test_samples_that_one_process_cannot_read_end_both(tmp_path, start_two):
    pair = toy_config(tmp_path / "pair")
    children = start_two(pair, Trouble(bad_sample=3, process=1))
    assert [child.wait() for child in children] == [1, 1]
    assert children[0].output == (
        "Another process failed in step 3.\nIt says what went wrong. All steps before it are saved, to step 3.\n"
        "What to do: go on with --resume.\n"
    )
    assert children[1].output == "a picture is gone\n"
    assert RunFolder.open(pair.folder).latest() == 3


def test_full_disk_of_the_main_process_ends_both(tmp_path, start_two):
    children = start_two(toy_config(tmp_path / "pair"), Trouble(full_disk=True, process=0))
    assert [child.wait() for child in children] == [1, 1]
    assert "No space left" in children[0].output
    assert children[1].output == "The main process could not write a checkpoint.\n"


# ---- what may change before a resume --------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path):
    """A run of 5 steps at a constant rate, and its settings."""
    settings = ("optimizer.schedule='constant'", "steps=5")
    train_toy(toy_config(tmp_path / "run", *settings))
    return tmp_path / "run", settings


@pytest.mark.parametrize("change", ["optimizer.learning_rate=0.1", "seed=1", "optimizer.schedule='cosine'"])
def test_other_settings_are_refused_by_name(begun, change):
    folder, settings = begun
    name = change.partition("=")[0]
    with pytest.raises(ValueError, match=rf"cannot go on.*\nIt began with another {name}.*\nWhat to do: "):
        train_toy(toy_config(folder, *settings, change), resume=True)


def test_other_data_is_refused(begun):
    folder, settings = begun
    with pytest.raises(ValueError, match=r"cannot go on with this data\.\n.*\nWhat to do: "):
        train_toy(toy_config(folder, *settings), resume=True, digest="other points")


def test_other_effective_batch_is_refused(begun, start_two):
    folder, settings = begun
    children = start_two(toy_config(folder, *settings), resume=True)
    assert [child.wait() for child in children] == [1, 1]
    assert "A step had 4 samples (batch x accumulate x devices), now 8." in children[0].output


def test_steps_previews_checkpoints_and_place_may_change(begun, tmp_path):
    folder, settings = begun
    moved = folder.rename(tmp_path / "moved")
    free = ("steps=12", "preview.every=4", "checkpoints.every=3", "data.workers=1", "policies.bad_steps=2")
    config = toy_config(moved, *settings, *free)
    assert train_toy(config, resume=True)[0].step == 12
    assert RunFolder.open(moved).config == config.to_toml()
    train_toy(toy_config(tmp_path / "unbroken", *settings, "steps=12"))
    assert same(trained(moved), trained(tmp_path / "unbroken"))


def test_steps_of_a_cosine_are_bound(tmp_path):
    train_toy(toy_config(tmp_path / "run", "steps=5"))
    with pytest.raises(ValueError, match="It began with another steps"):
        train_toy(toy_config(tmp_path / "run", "steps=6"), resume=True)


def test_finished_run_stays_as_it_is(tmp_path):
    config = toy_config(tmp_path / "run")
    train_toy(config)
    before = trained(config.folder)
    outcome, task = train_toy(config, resume=True)
    assert (outcome.step, outcome.interrupted, task.seen) == (20, None, [])
    assert same(trained(config.folder), before)


# ---- previews and the disk ------------------------------------------------------------------------------------------


def test_previews_show_the_average_and_change_nothing(tmp_path, unbroken):
    config = toy_config(tmp_path / "run", "preview.every=10")
    _, task = train_toy(config)
    assert [step for step, _ in task.previews] == [0, 10, 20]
    for step in (10, 20):
        assert dict(task.previews)[step] == trained(config.folder, step)["average/0.weight"][0, 0]
    assert same(trained(config.folder), unbroken)


def test_previews_without_an_average_show_the_weights(tmp_path):
    _, task = train_toy(toy_config(tmp_path / "run", "preview.every=20", "optimizer.average=0.0"))
    weights = trained(tmp_path / "run")
    assert dict(task.previews)[20] == weights["model/0.weight"][0, 0]
    assert not any(name.startswith("average") for name in weights)


def test_failing_preview_never_stops_a_run(tmp_path, unbroken):
    config = toy_config(tmp_path / "run", "preview.every=10")
    text = said(config, Trouble(bad_preview=True))
    assert "The preview of step 10 failed: no canvas. Training goes on." in text
    assert [event["step"] for event in told(config.folder, "preview failed")] == [0, 10, 20]
    assert same(trained(config.folder), unbroken)


def test_full_disk_comes_out_as_it_is_and_earlier_checkpoints_stay(tmp_path, unbroken, monkeypatch):
    config = toy_config(tmp_path / "run", "checkpoints.every=5")
    save = RunFolder.save

    def full(run, step, *arguments):
        if step > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(run, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", full)
        with pytest.raises(OSError, match="No space left") as caught:
            train_toy(config)
    assert caught.value.errno == errno.ENOSPC
    assert RunFolder.open(config.folder).latest() == 10
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


# ---- precision and tensorboard --------------------------------------------------------------------------------------


def test_bf16_runs_and_trains_fp32_weights(tmp_path, unbroken):
    train_toy(toy_config(tmp_path / "run", "memory.precision='bf16'"))
    weights = trained(tmp_path / "run")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert not same(weights, unbroken)
    torch.testing.assert_close(weights["model/0.weight"], unbroken["model/0.weight"], atol=0.1, rtol=0)


def test_fp16_without_a_gpu_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'"fp16" needs a CUDA device\.\n.*\nWhat to do: '):
        train_toy(toy_config(tmp_path / "run", "memory.precision='fp16'"))


def test_scale_of_fp16_falls_before_a_bad_gradient_counts(tmp_path, scaled):
    config = toy_config(tmp_path / "run", "preview.every=1", "policies.bad_steps=3")
    _, task = train_toy(config, Trouble(bad_gradient=(2, 3, 4, 5, 8), bad_loss=(7,)))
    skips = told(config.folder, "skip")
    assert [(skip["step"], skip["scale_lowered"]) for skip in skips] == [
        (2, True),  # 4 -> 2
        (3, True),  # 2 -> 1
        (4, False),
        (5, False),
        (7, False),
        (8, False),
    ]
    shown = dict(task.previews)
    assert shown[2] == shown[3] == shown[4] == shown[5] == shown[6] != shown[7] == shown[8] == shown[9]
    assert state(config.folder)["scaler"]["scale"] == 0.125


def test_missing_tensorboard_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(events_module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"tensorboard = true cannot be followed\.\n.*\nWhat to do: pip install"):
        train_toy(toy_config(tmp_path / "run", "tensorboard=true"))
    assert not (tmp_path / "run").exists()


def test_only_one_process_trains_in_a_folder(tmp_path, start):
    config = toy_config(tmp_path / "run")
    child = start(config, Trouble(seconds=0.2))
    wait_until(lambda: steps_told(config.folder) >= 1)
    with pytest.raises(ValueError, match="in use by pid"):
        train_toy(config, resume=True)
    child.kill()
    child.wait()
