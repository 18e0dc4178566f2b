# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is told (sd_notify(3)); nothing happens where it has not asked."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from watchdog import log


def notify(message: str) -> None:
    """Send one message; a failure is logged."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        try:
            channel.sendto(message.encode(), address.replace("@", "\0", 1))
        except OSError as error:
            log.write("warning", "notify", what=error)


def watchdog_s() -> float:
    """The seconds within which systemd wants a sign of life (WatchdogSec), 0: never."""
    wanted, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not wanted.isdigit() or pid not in (None, str(os.getpid())):
        return 0.0
    return int(wanted) / 1e6


async def keep_alive(progress: Callable[[], int]) -> None:
    """Tell systemd for ever that we live: as long as `progress` changes."""
    limit = watchdog_s()
    before = -1
    while limit:
        now = progress()
        if now != before:
            notify("WATCHDOG=1")
        before = now
        await asyncio.sleep(limit / 3)
