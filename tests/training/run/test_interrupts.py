# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals as a wish to stop: which are caught, and which end the work at once."""

from __future__ import annotations

import os
import pty
import signal

import pytest
from comfyui_anydressing.training.run.folder import RunFolder
from comfyui_anydressing.training.run.interrupts import catch_signals
from support.loop_toy import Trouble, toy_config, train_toy
from support.runs import children_of, is_gone, same, steps_told, trained
from support.waiting import wait_until


def caught(*numbers):
    """What was received of these signals."""
    with catch_signals() as interrupts:
        for number in numbers:
            os.kill(os.getpid(), number)
        return interrupts.received


@pytest.fixture
def handlers():
    """Gives the process its handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_is_received_and_handlers_are_put_back(handlers, number):
    assert caught(number) is number
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_hangup_that_is_ignored_stays_ignored(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert caught(signal.SIGHUP) is None
    assert caught(signal.SIGHUP, signal.SIGTERM) is signal.SIGTERM


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGHUP, signal.SIGHUP),  # of the kernel and of the shell
        (signal.SIGTERM, signal.SIGHUP),  # of a system that shuts down
        (signal.SIGHUP, signal.SIGTERM),
    ],
)
def test_hangup_never_ends_the_work_at_once(handlers, numbers):
    assert caught(*numbers) is numbers[0]


def test_second_wish_of_a_person_ends_the_work_at_once(handlers):
    with pytest.raises(KeyboardInterrupt):
        caught(signal.SIGINT, signal.SIGHUP, signal.SIGINT)


def test_closed_terminal_saves(tmp_path, start, unbroken):
    config = toy_config(tmp_path / "run", "data.workers=2", "checkpoints.every=1000")
    screen, terminal = pty.openpty()
    child = start(config, Trouble(seconds=0.05), terminal=os.ttyname(terminal))
    os.close(terminal)
    wait_until(lambda: steps_told(config.folder) >= 3)
    helpers = children_of(child.pid)
    os.close(screen)
    assert child.wait(30) == 128 + signal.SIGHUP
    assert RunFolder.open(config.folder).latest() == steps_told(config.folder) < 20
    assert len(helpers) == 2
    assert all(map(is_gone, helpers))
    train_toy(config, resume=True)
    assert same(trained(config.folder), unbroken)
