# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU alone, by a script over QMP: it waits for the panic, dumps the memory, resets the guest."""

from __future__ import annotations

import time
from pathlib import Path

from bench.peers.guest import CPU, PATIENCE_S, WORDS, check_elf, crash, figures, modules
from bench.peers.table import Take
from bench.rsp_guest import READY, running

NAME = "QEMU `dump-guest-memory`, then `system_reset`"


def measure(place: Path, mebibytes: int) -> Take:
    """One panic of a new guest; `place` is an empty directory."""
    dump = place / "dump"
    more = ["-cpu", CPU, "-device", "pvpanic", "-action", "panic=pause,reboot=reset"]
    with running(
        place,
        bare=True,
        cpus=1,
        patience=PATIENCE_S,
        append=WORDS,
        memory=mebibytes << 20,
        extra=modules(["pvpanic-mmio"]),
        more=more,
    ) as guest:
        fault = crash(guest.console)
        guest.event("GUEST_PANICKED")
        guest.qmp("dump-guest-memory", paging=False, protocol=f"file:{dump}")
        safe = time.time()
        guest.qmp("system_reset")
        guest.qmp("cont")
        guest.console.expect(READY, PATIENCE_S)
        now = time.time()
    check_elf(dump, mebibytes << 20)
    return figures(fault, safe, now, dump)
