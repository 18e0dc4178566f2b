# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads for the steps of a restart that take a while: loading, waiting for a CPU that is slow.

Where the daemon watches at real-time priority they have it too, one below the watch: a vnode is
down until they are done, and an ordinary thread waits for whatever else the root runs.

No ThreadPoolExecutor: to hand work over and its result back by one takes 0.8 ms longer under
emulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from watchdog.realtime import PRIORITY

T = TypeVar("T")
Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]

THREADS = 8
_jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
_threads: list[threading.Thread] = []


def _step_up() -> None:
    """For the calling thread, when the process's first has the priority; no luck is no error."""
    try:
        if os.sched_getscheduler(os.getpid()) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO:
            policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(PRIORITY - 1))
    except OSError:
        pass


def _serve() -> None:
    _step_up()
    while True:
        work, future = _jobs.get()
        result, error = None, None
        try:
            result = work()
        except BaseException as problem:  # whatever it is belongs to who waits for it
            error = problem
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            future.get_loop().call_soon_threadsafe(_settle, future, result, error)
        del work, future, result, error  # not kept alive until the next job


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


async def run(work: Callable[[], T]) -> T:
    """Do `work` at once; vnodes in parallel."""
    if not _threads:
        _threads.extend(
            threading.Thread(target=_serve, name=f"urgent_{n}", daemon=True) for n in range(THREADS)
        )
        for thread in _threads:
            thread.start()
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    _jobs.put((work, future))
    return await future
