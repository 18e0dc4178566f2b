# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads for the steps of a restart that wait a moment in the kernel: park, load, start.

Where the daemon watches at real-time priority they have it too, one below the watch: a vnode is
down until they are done, and an ordinary thread waits for whatever else the root runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from watchdog.realtime import PRIORITY

T = TypeVar("T")


def _step_up() -> None:
    """For the calling thread, when the process's first has the priority; no luck is no error."""
    try:
        if os.sched_getscheduler(os.getpid()) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO:
            policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(PRIORITY - 1))
    except OSError:
        pass


_threads = ThreadPoolExecutor(8, thread_name_prefix="urgent", initializer=_step_up)


async def run(work: Callable[[], T]) -> T:
    """Do `work` at once; vnodes in parallel."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
