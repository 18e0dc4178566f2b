# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes this process fit to watch: real-time priority, locked memory, no surprise collections.

All of it is best effort: what the system does not permit is named, and the
watch then simply doubts itself more often.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys

PRIORITY = 20
SWITCH_S = 0.001
"""How long a thread that computes may keep the watch from the GIL."""
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # include/uapi/asm-generic/mman.h


def enter(*, realtime: bool) -> list[str]:
    """Prepare the calling thread and process; returns what was not permitted."""
    missing: list[str] = []
    if not realtime:
        return missing
    gc.collect()
    gc.freeze()
    gc.disable()  # collect() is called between ticks instead
    sys.setswitchinterval(SWITCH_S)
    try:
        # Threads and processes made later do bulk work: they fall back to normal priority.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(PRIORITY))
    except OSError as error:
        missing.append(f"real-time priority ({error.strerror})")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        missing.append(f"locked memory ({os.strerror(ctypes.get_errno())})")
    return missing


def collect() -> None:
    """Collect the young generations; called where a pause does not hurt."""
    gc.collect(1)
