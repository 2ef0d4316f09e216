# SPDX-License-Identifier: GPL-3.0-or-later
"""A training run never loses a step that was whole, whatever goes wrong in the next one."""

from __future__ import annotations

import json
import signal
import time

import pytest
from comfyui_anydressing.training.run.folder import RunFolder
from comfyui_anydressing.training.run.state import State
from support.loop_toy import Trouble, toy_config, train_toy
from support.runs import said, same, state, steps_told, told, trained
from support.waiting import wait_until

RARELY = "checkpoints.every=1000"


def ended(config, trouble, **options):
    """The three lines with which a run ends."""
    with pytest.raises(ValueError, match="\nWhat to do: ") as refused:
        train_toy(config, trouble, **options)
    lines = str(refused.value).split("\n")
    assert len(lines) == 3
    return lines


def newest(config):
    return RunFolder.open(config.folder).latest()


# ---- an error in a step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["RuntimeError", "AssertionError", "ValueError", "AcceleratorError"])
def test_error_in_a_step_saves_the_steps_before_it(tmp_path, unbroken, error):
    config = toy_config(tmp_path / "run", RARELY)
    what, why, remedy = ended(config, Trouble(error=error, error_step=7))
    assert what == "Training broke off in step 7."
    assert why == f"{error}: the toy broke. All steps before it are saved, to step 7."
    trace = config.folder / "crash-7.txt"
    assert remedy == f"What to do: go on with --resume. The traceback stands in {str(trace)!r}."
    assert trace.read_text().startswith("Traceback")
    assert f"{error}: the toy broke" in trace.read_text()
    assert [event["step"] for event in told(config.folder, "stop")] == [7]
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


def test_error_says_three_lines_and_no_more(tmp_path, start):
    config = toy_config(tmp_path / "run", RARELY)
    child = start(config, Trouble(error_step=3))
    assert child.wait(30) == 1
    assert [line.partition(" ")[0] for line in child.output.splitlines()] == ["Training", "RuntimeError:", "What"]


def test_trace_never_replaces_an_older_one(tmp_path):
    config = toy_config(tmp_path / "run", RARELY)
    ended(config, Trouble(error_step=7))
    first = (config.folder / "crash-7.txt").read_text()
    remedy = ended(config, Trouble(error_step=7, error="AssertionError"), resume=True)[2]
    assert "crash-7-2.txt" in remedy
    assert (config.folder / "crash-7.txt").read_text() == first
    assert "AssertionError" in (config.folder / "crash-7-2.txt").read_text()


def test_error_in_the_first_step_has_nothing_to_save(tmp_path):
    config = toy_config(tmp_path / "run")
    assert "No step had been learned yet." in ended(config, Trouble(error_step=0))[1]
    assert newest(config) is None


def test_killed_worker_saves_the_steps_that_were_read(tmp_path, start, unbroken):
    config = toy_config(tmp_path / "run", RARELY, "data.workers=2")
    child = start(config, Trouble(killed_worker=7))
    assert child.wait(60) == 1
    what, why, _ = child.output.splitlines()
    saved = steps_told(config.folder)
    assert 3 <= saved <= 7
    assert what == f"Training broke off in step {saved}."
    assert why.startswith("RuntimeError: DataLoader worker")
    assert newest(config) == saved
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


def test_death_of_a_worker_never_interrupts_a_step(tmp_path, start):
    """It is found when its samples are asked for, and not in the middle of the optimizer's work."""
    config = toy_config(tmp_path / "run", RARELY, "data.workers=1")
    child = start(config, Trouble(killed_worker=3, seconds=0.2))
    assert child.wait(60) == 1
    trace = next(config.folder.glob("crash-*.txt")).read_text()
    assert "in backwards\n" in trace
    assert "signal_handling" not in trace


# ---- an error while the weights change ------------------------------------------------------------------------------


def test_error_before_the_weights_change_saves(tmp_path, unbroken):
    config = toy_config(tmp_path / "run", RARELY)
    assert ended(config, Trouble(error_step=7, at="optimizer"))[1].endswith("are saved, to step 7.")
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


def test_half_of_a_step_is_never_saved(tmp_path, unbroken):
    config = toy_config(tmp_path / "run", "checkpoints.every=5")
    why = ended(config, Trouble(error_step=7, at="halfway"))[1]
    assert "half of a step is in memory and was not saved. The last good checkpoint: it is step 5." in why
    assert RunFolder.open(config.folder).steps() == [5]
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


def test_half_of_an_average_is_never_saved(tmp_path, monkeypatch):
    def follow(state):
        if state.step == 2:
            raise RuntimeError("no average")

    monkeypatch.setattr(State, "_follow", follow)
    config = toy_config(tmp_path / "run")
    assert ended(config, Trouble())[1].endswith("was not saved. The last good checkpoint: there is none.")
    assert newest(config) is None


def test_preview_that_cannot_put_the_weights_back_ends_the_run(tmp_path, monkeypatch):
    put, calls = State._put, []

    def fragile(state, values):
        calls.append(len(values))
        if len(calls) == 4:
            raise RuntimeError("no weights")
        put(state, values)

    monkeypatch.setattr(State, "_put", fragile)
    config = toy_config(tmp_path / "run", "preview.every=4", "checkpoints.every=3")
    assert ended(config, Trouble())[1].endswith("was not saved. The last good checkpoint: it is step 3.")


def test_device_that_cannot_be_read_is_said(tmp_path, unbroken):
    config = toy_config(tmp_path / "run", "checkpoints.every=5")
    trouble = Trouble(error="AcceleratorError", error_step=7, at="dead device")
    assert ended(config, trouble)[1] == (
        "AcceleratorError: the toy broke. The last whole step, 7, could not be saved: CUDA error: an illegal memory "
        "access was encountered Search for it. The last good checkpoint: it is step 5."
    )
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


def test_error_of_the_display_saves_the_step_that_it_did_not_show(tmp_path, unbroken):
    config = toy_config(tmp_path / "run", RARELY)
    assert ended(config, Trouble(error_step=7, at="display"))[1].endswith("are saved, to step 8.")
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)


@pytest.mark.parametrize(("at", "process"), [("loss", 1), ("optimizer", 0)])
def test_error_of_one_process_ends_both_saved(tmp_path, start_two, process, at):
    pair = toy_config(tmp_path / "pair", RARELY)
    children = start_two(pair, Trouble(error_step=3, at=at, process=process))
    assert [child.wait(60) for child in children] == [1, 1]
    assert children[process].output.startswith("Training broke off in step 3.\nRuntimeError: the toy broke.")
    assert children[1 - process].output.startswith("Another process failed in step ")
    assert newest(pair) == (4 if (process, at) == (1, "optimizer") else 3)  # the main process had taken it


def test_error_of_the_main_display_ends_both_saved(tmp_path, start_two):
    pair = toy_config(tmp_path / "pair", RARELY)
    children = start_two(pair, Trouble(error_step=3, at="display", process=0))
    assert [child.wait(60) for child in children] == [1, 1]
    assert newest(pair) == 4


@pytest.mark.parametrize("process", [0, 1])
def test_process_that_is_killed_takes_no_step_of_the_other_with_it(tmp_path, start_two, process):
    pair = toy_config(tmp_path / "pair", "checkpoints.every=1000")
    children = start_two(pair, Trouble(seconds=0.05))
    wait_until(lambda: steps_told(pair.folder) >= 3)
    children[process].kill()
    assert children[1 - process].wait(60) == 1
    what, why, _ = children[1 - process].output.splitlines()
    assert what.startswith("Training broke off in step ")
    assert ("All steps before it are saved" in why) == (process == 1)
    assert newest(pair) == (steps_told(pair.folder) if process else None)  # the main process saves


# ---- out of memory --------------------------------------------------------------------------------------------------

ALONE = ("data.batch=1", "data.accumulate=4", RARELY)


@pytest.fixture
def alone(tmp_path):
    """The tensors after 20 steps of single samples."""
    train_toy(toy_config(tmp_path / "alone", *ALONE))
    return trained(tmp_path / "alone")


@pytest.mark.parametrize("error", ["OutOfMemoryError", "MemoryError"])
def test_single_sample_is_tried_again_once(tmp_path, alone, error):
    config = toy_config(tmp_path / "run", *ALONE)
    text = said(config, Trouble(error=error, error_step=7, times=1))
    assert "Out of memory: trying step 7 once more." in text
    assert [(event["step"], event["micro_batch"]) for event in told(config.folder, "out of memory")] == [(7, 1)]
    assert same(trained(config.folder), alone)


def test_single_sample_that_fails_twice_ends_the_run_saved(tmp_path, alone):
    config = toy_config(tmp_path / "run", *ALONE)
    what, why, _ = ended(config, Trouble(error="OutOfMemoryError", error_step=7, times=2))
    assert what == "Training ran out of memory at step 7."
    assert why == "A batch of 1 does not fit. All steps before it are saved, to step 7."
    train_toy(config, resume=True)
    assert same(trained(config.folder), alone)


def test_halved_batch_is_tried_again_and_saved(tmp_path):
    config = toy_config(tmp_path / "run", RARELY)
    why = ended(config, Trouble(error="OutOfMemoryError", error_step=7, times=3))[1]
    assert why == "A batch of 1 does not fit, and it was halved before. All steps before it are saved, to step 7."
    assert newest(config) == 7


@pytest.mark.parametrize("step", [0, 7])
def test_moments_that_do_not_fit_are_tried_again(tmp_path, unbroken, step):
    config = toy_config(tmp_path / "run", RARELY)
    train_toy(config, Trouble(error="OutOfMemoryError", error_step=step, at="optimizer", times=1))
    assert [event["micro_batch"] for event in told(config.folder, "out of memory")] == [2]
    assert same(trained(config.folder), unbroken)


def test_moments_that_never_fit_end_the_run_saved(tmp_path):
    config = toy_config(tmp_path / "run", RARELY)
    why = ended(config, Trouble(error="OutOfMemoryError", error_step=7, at="optimizer"))[1]
    assert why == "What the optimizer keeps does not fit. All steps before it are saved, to step 7."
    assert newest(config) == 7


def test_memory_that_ends_halfway_is_no_reason_to_go_on(tmp_path):
    config = toy_config(tmp_path / "run", "checkpoints.every=5")
    why = ended(config, Trouble(error="OutOfMemoryError", error_step=7, at="halfway"))[1]
    assert why.startswith("OutOfMemoryError: the toy broke. ")
    assert newest(config) == 5


def test_memory_of_one_process_is_tried_again_in_both(tmp_path, start_two):
    settings = ("data.batch=1", "data.accumulate=1", "steps=6")
    pair = toy_config(tmp_path / "pair", *settings)
    trouble = Trouble(error="OutOfMemoryError", error_step=3, times=1, process=1)
    assert [child.wait(60) for child in start_two(pair, trouble)] == [0, 0]
    assert steps_told(pair.folder) == 6


# ---- steps that are skipped -----------------------------------------------------------------------------------------


def test_no_checkpoint_is_written_while_steps_are_skipped(tmp_path):
    config = toy_config(tmp_path / "run", "checkpoints.every=2", "checkpoints.keep_last=20")
    train_toy(config, Trouble(bad_loss=(3, 4, 5)))
    assert RunFolder.open(config.folder).steps() == [2, 7, 8, 10, 12, 14, 16, 18, 20]


def test_signal_while_steps_are_skipped_saves_the_last_whole_one(tmp_path, start):
    trouble = {"bad_loss": tuple(range(5, 15))}
    config = toy_config(tmp_path / "run", RARELY, "policies.bad_steps=20")
    train_toy(toy_config(tmp_path / "whole", RARELY, "policies.bad_steps=20"), Trouble(**trouble))
    child = start(config, Trouble(seconds=0.1, **trouble))
    wait_until(lambda: steps_told(config.folder) >= 5)
    time.sleep(0.5)
    child.kill(signal.SIGTERM)
    assert child.wait() == 128 + signal.SIGTERM
    assert state(config.folder)["step"] == newest(config) == 5
    train_toy(config, Trouble(**trouble), resume=True)
    assert same(trained(config.folder), trained(tmp_path / "whole"))


def test_last_steps_that_were_skipped_are_not_in_the_checkpoint(tmp_path):
    config = toy_config(tmp_path / "run")
    assert "The last 2 steps were skipped: what is saved is step 18." in said(config, Trouble(bad_loss=(18, 19)))
    assert RunFolder.open(config.folder).steps() == [10, 18]


def test_run_without_one_good_step_does_not_finish(tmp_path):
    config = toy_config(tmp_path / "run", "steps=5", "checkpoints.every=1")
    what, why, _ = ended(config, Trouble(bad_loss=tuple(range(5))))
    assert (what, why.partition(":")[0]) == ("Training has learned nothing.", "Not one step succeeded")
    assert RunFolder.open(config.folder).steps() == []


def test_run_that_never_succeeds_says_so(tmp_path):
    config = toy_config(tmp_path / "run", "checkpoints.every=1", "policies.bad_steps=3")
    why, remedy = ended(config, Trouble(bad_gradient=(0, 1, 2)))[1:]
    assert why == "Not one step succeeded: 3 steps in a row had no finite loss or gradient."
    assert remedy.startswith("What to do: look at the samples")
    assert "resume" not in remedy


FAST = ("optimizer.learning_rate=1e20", "optimizer.warmup=0", "policies.bad_steps=3")


def test_checkpoint_that_no_step_was_taken_from_is_not_called_good(tmp_path):
    """At such a rate the first step's weights are absurd, and everything after it is infinite."""
    config = toy_config(tmp_path / "run", *FAST, "checkpoints.every=1", "optimizer.average=0.0")
    why, remedy = ended(config, Trouble())[1:]
    assert why.startswith("3 steps in a row")
    assert remedy.endswith("; from this one's only checkpoint, step 1, no step succeeded.")


def test_last_good_checkpoint_lies_before_the_bad_stretch(tmp_path):
    config = toy_config(tmp_path / "run", "checkpoints.every=1", "checkpoints.keep_last=2", "policies.bad_steps=3")
    remedy = ended(config, Trouble(bad_loss=(7, 8, 9)))[2]
    assert remedy.endswith("step 6, after removing step 7, from which no step succeeded.")
    assert RunFolder.open(config.folder).steps() == [6, 7]


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    infinite = ("optimizer.learning_rate=3e37", "optimizer.warmup=0", "optimizer.average=0.0", "checkpoints.every=1")
    config = toy_config(tmp_path / "run", *infinite)
    what, why, _ = ended(config, Trouble())
    assert what == "The weights of step 1 were not saved."
    assert "learning rate is too high" in why
    assert RunFolder.open(config.folder).steps() == []


# ---- the scale of fp16 ----------------------------------------------------------------------------------------------


def test_scale_that_was_lowered_since_is_not_saved_with_the_last_whole_step(tmp_path, scaled):
    bad = {"bad_gradient": (2, 3, 9)}
    train_toy(toy_config(tmp_path / "whole", RARELY), Trouble(**bad))
    config = toy_config(tmp_path / "run", RARELY)
    ended(config, Trouble(error_step=4, **bad))
    assert (newest(config), state(config.folder)["scaler"]["scale"]) == (2, 4.0)
    train_toy(config, Trouble(**bad), resume=True)
    assert same(trained(config.folder), trained(tmp_path / "whole"))
    assert state(config.folder) == state(tmp_path / "whole")


def test_step_that_is_tried_again_does_not_change_the_scale(tmp_path, scaled):
    train_toy(toy_config(tmp_path / "whole", RARELY))
    config = toy_config(tmp_path / "run", RARELY)
    train_toy(config, Trouble(error="OutOfMemoryError", error_step=7, at="optimizer", times=1))
    assert same(trained(config.folder), trained(tmp_path / "whole"))
    assert state(config.folder) == state(tmp_path / "whole")


# ---- what a run tells -----------------------------------------------------------------------------------------------


def test_lines_that_the_disk_does_not_take_are_lost_and_no_more(tmp_path, unbroken):
    config = toy_config(tmp_path / "run")
    text = said(config, Trouble(full_log=4))
    assert text.count("cannot be written: No space left on device. Lines are lost; training goes on.") == 1
    lines = (config.folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, *range(7, 21)]
    assert same(trained(config.folder), unbroken)


def test_log_that_cannot_be_opened_stops_nothing(tmp_path, unbroken):
    config = toy_config(tmp_path / "run")
    (config.folder / "events.jsonl").mkdir(parents=True)
    assert said(config).count("cannot be written: Is a directory.") == 1
    assert same(trained(config.folder), unbroken)
