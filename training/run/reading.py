# SPDX-License-Identifier: GPL-3.0-or-later
"""Micro-batches, read by worker processes beside the training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset

from .interrupts import SIGNALS
from .noise import Draw
from .task import TaskData


@contextmanager
def read_batches(data: TaskData, plan: Iterable[list[Draw]], workers: int) -> Iterator[Iterator[tuple[int, Any]]]:
    """Each micro-batch of a plan with its number of samples; a ValueError stands for one that cannot be read.

    The iterator raises RuntimeError, within some seconds, when a worker was killed.
    """
    with _quiet_death():
        batches: Any = iter(
            DataLoader(
                _MicroBatches(data),
                sampler=plan,  # type: ignore[arg-type]
                batch_size=None,
                collate_fn=_unchanged,
                num_workers=workers,
                worker_init_fn=_ignore_signals,
            )
        )
        with _quiet_death():  # again, since PyTorch has set its handler in between
            try:
                yield _living(batches)
            finally:
                if workers:
                    # Not left to the garbage collector: an exception may hold the iterator until Python ends, which
                    # would then wait for workers that ignore its SIGTERM.
                    batches._shutdown_workers()


def _living(batches: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """The batches; a worker that was killed while it handed one over is named as PyTorch names one killed before."""
    try:
        yield from batches
    except (ConnectionError, EOFError) as error:
        if "in DataLoader worker process" in str(error):  # a sample's own error
            raise
        raise RuntimeError("DataLoader worker exited unexpectedly while it handed over a batch") from error


@contextmanager
def _quiet_death() -> Iterator[None]:
    """Let the death of a worker be found where a batch is asked for.

    PyTorch would raise it in a signal's handler, wherever the main thread is: in the middle of the optimizer's step,
    which would leave weights that are half of one step and half of the next.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


class _MicroBatches(Dataset[Any]):
    """Micro-batches by their draws."""

    def __init__(self, data: TaskData) -> None:
        self._data = data

    def __getitem__(self, draws: Any) -> tuple[int, Any]:
        try:
            return len(draws), self._data.collate([self._data.sample(draw) for draw in draws])
        except ValueError as error:  # handed over as it is: the main process saves before it raises it
            return len(draws), error


def _unchanged(batch: Any) -> Any:
    return batch


def _ignore_signals(worker: int) -> None:
    """Whoever stops a run may signal all its processes at once; the main one acts on it and then ends its workers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
