# SPDX-License-Identifier: GPL-2.0-or-later
"""One thread for work that may wait: it runs only when nobody else wants the CPU."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def _step_back() -> None:
    """For the calling thread only; no luck is no error."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        pass


_thread = ThreadPoolExecutor(1, thread_name_prefix="background", initializer=_step_back)


async def run(work: Callable[[], None]) -> None:
    """Do `work` (which releases the interpreter's lock where it takes long) some time."""
    await asyncio.get_running_loop().run_in_executor(_thread, work)
