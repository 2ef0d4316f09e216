# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run tells: lines of JSON for programs, lines or a table for people."""

from __future__ import annotations

import io
import json
import re
import sys
import types

import pytest
from comfyui_anydressing.training.run.display import LiveTable, PlainLines, Smooth, open_display
from comfyui_anydressing.training.run.events import EventLog, RunLog, read_events, require_tensorboard
from rich.console import Console

READINGS = {"loss": 0.25, "ldm": 0.125, "gradient of ldm": 3.0, "samples/s": 8.0, "s/step": 2.0, "memory GiB": 11.5}


def console(terminal, width=100):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=20, legacy_windows=False)


def text(console):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


# ---- events.jsonl ---------------------------------------------------------------------------------------------------


def log(folder, *events):
    written = EventLog(folder)
    for event in events:
        written.write(event, step=1, items=["Größe 38", 'a "quote"\n'])
    written.close()


def lines(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def test_every_line_is_json_and_a_second_run_appends(tmp_path):
    log(tmp_path, "start", "step")
    log(tmp_path, "start")
    assert [line["event"] for line in lines(tmp_path)] == ["start", "step", "start"]
    assert lines(tmp_path)[0]["items"] == ["Größe 38", 'a "quote"\n']
    assert read_events(tmp_path) == lines(tmp_path)
    assert 1.7e9 < lines(tmp_path)[0]["time"] < 1e10


@pytest.mark.parametrize("rest", ['{"event": "st', '{"event": "step", "time": 1}', "\0\0\0", "{"])
@pytest.mark.parametrize("whole", [0, 2])
def test_line_that_a_crash_cut_off_is_left_out_and_removed(tmp_path, whole, rest):
    log(tmp_path, *whole * ["start"])
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(rest)
    if not rest.endswith("}"):
        assert len(read_events(tmp_path)) == whole
    log(tmp_path, "stop")
    assert [line["event"] for line in lines(tmp_path)] == [*whole * ["start"], "stop"]


def test_what_is_not_a_number_is_null(tmp_path):
    written = EventLog(tmp_path)
    written.write("step", loss=float("nan"), grad=float("inf"), rate=0.5)
    written.close()
    line = lines(tmp_path)[0]
    assert (line["loss"], line["grad"], line["rate"]) == (None, None, 0.5)


def test_event_can_be_read_at_once(tmp_path):
    written = EventLog(tmp_path)
    written.write("start", step=0)
    assert read_events(tmp_path)[0]["event"] == "start"
    written.close()


# ---- people ---------------------------------------------------------------------------------------------------------


def test_terminal_gets_a_table_and_a_file_gets_lines():
    assert isinstance(open_display(console(False)), PlainLines)
    table = open_display(console(True))
    table.close()
    assert isinstance(table, LiveTable)


def shown(display, folder):
    """Five steps of a hundred, with notes, through a report."""
    report = RunLog(folder, display, curves=False)
    display.work("building the cache", 3, 3)
    display.start(40, 100)
    display.note("checkpoint", 40)
    display.note("skipped", 2)
    for step in range(41, 46):
        report.step(step, READINGS)
    display.say("A word [not markup].")
    report.close()
    display.close()


def test_lines_tell_what_a_person_wants_to_know(tmp_path):
    screen = console(False)
    shown(open_display(screen, every=0), tmp_path)
    values = "loss 0.25  ldm 0.125  samples/s 8  memory GiB 11.5  checkpoint 40  skipped 2"
    assert text(screen).splitlines() == [
        "building the cache  3/3",
        *(
            f"step {step}/100  {values}  0:{(200 - 2 * step) // 60:02}:{(200 - 2 * step) % 60:02} left"
            for step in range(41, 46)
        ),
        "A word [not markup].",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_learning_rate_and_memory_are_shown_as_they_are(terminal):
    screen = console(terminal)
    display = open_display(screen, every=0)
    display.start(0, 3)
    for step, (rate, memory) in enumerate([(5e-5, 8.0), (2e-5, 8.0), (3.08e-7, 11.5)], start=1):
        display.step(step, {"loss": 0.5, "rate": rate, "memory GiB": memory, "s/step": 1.0})
    display.close()
    last = text(screen)[-600:]
    assert "rate 3.08e-07" in last
    assert "memory GiB 11.5" in last


def test_lines_come_seldom_but_the_last_step_always_has_one():
    screen = console(False)
    display = open_display(screen, every=1000)
    display.start(0, 50)
    for step in range(1, 51):
        display.step(step, READINGS)
    assert [line.split()[1] for line in text(screen).splitlines()] == ["1/50", "50/50"]


@pytest.mark.parametrize("width", [60, 100, 160])
def test_table_tells_what_a_person_wants_to_know(tmp_path, width):
    screen = console(True, width)
    shown(open_display(screen), tmp_path)
    seen = text(screen)
    last = seen[seen.rindex("building the cache") :]
    for figure in ("45/100", "0:01:50 left", "loss 0.25", "ldm 0.125", "samples/s 8", "memory GiB 11.5"):
        assert figure in last
    assert "checkpoint 40" in last
    assert "skipped 2" in last
    assert "gradient of" not in seen
    assert "s/step" not in seen
    assert "A word [not markup]." in seen


def test_readings_that_are_hidden_are_in_the_events_and_the_curves(tmp_path, monkeypatch):
    curves = []

    class Writer:
        def __init__(self, folder):
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name, value, step):
            curves.append((name, value, step))

        def close(self):
            curves.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", types.SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.ModuleType("tensorboard"))
    report = RunLog(tmp_path, open_display(console(False)), curves=True)
    report.step(7, READINGS)
    report.close()
    assert lines(tmp_path)[0] == {"event": "step", "time": lines(tmp_path)[0]["time"], "step": 7, **READINGS}
    assert curves == [*((name, value, 7) for name, value in READINGS.items()), "closed"]


@pytest.mark.parametrize("moment", ["made", "written", "closed"])
def test_curves_that_fail_are_told_once_and_left(tmp_path, monkeypatch, moment):
    class Writer:
        def __init__(self, folder):
            self.fail("made")

        def add_scalar(self, name, value, step):
            self.fail("written")

        def close(self):
            self.fail("closed")

        def fail(self, when):
            if when == moment:
                raise OSError(28, "No space left on device")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", types.SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.ModuleType("tensorboard"))
    screen = console(False)
    report = RunLog(tmp_path, open_display(screen), curves=True)
    for step in (1, 2):
        report.step(step, READINGS)
    report.close()
    assert text(screen).count("The curves for TensorBoard end here: [Errno 28] No space left on device.") == 1
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert report.trouble is None


def test_silent_process_writes_nothing(tmp_path):
    report = RunLog(None, open_display(console(False)), curves=True)
    report.event("start")
    report.step(1, READINGS)
    report.close()
    assert list(tmp_path.iterdir()) == []


def test_missing_tensorboard_is_refused(monkeypatch):
    monkeypatch.setattr("comfyui_anydressing.training.run.events.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"cannot be followed\.\nIt is not installed\.\nWhat to do: pip install"):
        require_tensorboard()


def test_smoothing_is_a_running_mean():
    smooth = Smooth()
    assert smooth.add({"loss": 1.0})["loss"] == 1.0
    assert smooth.add({"loss": 2.0})["loss"] == pytest.approx(1.05)
    assert smooth.add({"new": 5.0}) == {"loss": pytest.approx(1.05), "new": 5.0}
