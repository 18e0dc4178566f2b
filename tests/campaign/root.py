# SPDX-License-Identifier: GPL-2.0-or-later
"""The root in a campaign: what a fault must not harm, and what must not grow."""

from __future__ import annotations

import mmap
import os
import re
import zlib
from pathlib import Path
from typing import Any

from adeos import abi
from adeos.bridge import RootBridge
from adeos.kmb import KmbMachine
from crashdump.incident import PENDING
from crashdump.store import IncidentStore
from tests.campaign import vnodes
from watchdog import paths

OWN_CANARY = 8 << 20
BAD_LOG = re.compile(r"WARNING|BUG|Oops|stall|lockup|corrupt|Bad page|general protection|NMI: ")


class Root:
    """Canaries in memory that no vnode is given and in our own, kernel log and daemon."""

    def __init__(self, machine: KmbMachine, bridge: RootBridge, store: IncidentStore) -> None:
        self.machine, self.bridge, self.store = machine, bridge, store
        self.canary = self._plant()
        self.own = bytearray(os.urandom(OWN_CANARY))
        self.own_sum = zlib.crc32(self.own)
        self.log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.log, 0, os.SEEK_END)
        self.pid = self.daemon()

    def daemon(self) -> int:
        """Its pid, 0 = none."""
        head = self.bridge.head()
        return head.pid if head is not None else 0

    def _plant(self) -> mmap.mmap:
        ranges = [one for one in self.machine.info().range if one.size]
        last = max(ranges, key=lambda one: one.base)
        place = abi.Range(last.end, vnodes.CANARY)
        assert place.end in _reserved_ends(), f"the canary at {place} is not in reserved memory"
        overwrite(place, 0xA5)
        with Path("/dev/mem").open("rb", buffering=0) as file:
            view = mmap.mmap(file.fileno(), place.size, access=mmap.ACCESS_READ, offset=place.base)
        self.canary_sum = zlib.crc32(view)
        return view

    def harm(self) -> list[str]:
        """What a fault has done to the root."""
        harm = []
        if zlib.crc32(self.canary) != self.canary_sum:
            harm.append("the canary in free memory changed")
        if zlib.crc32(self.own) != self.own_sum:
            harm.append("the canary in the root's own memory changed")
        if self.daemon() != self.pid:
            harm.append(f"the daemon is process {self.daemon()}, was {self.pid}")
            self.pid = self.daemon()
        harm += [f"kernel log: {line}" for line in self._new_log() if BAD_LOG.search(line)]
        return harm

    def _new_log(self) -> list[str]:
        lines = []
        while True:
            try:
                record = os.read(self.log, 8192).decode("utf-8", "replace")
            except BlockingIOError:
                return lines
            except BrokenPipeError:
                continue  # overwritten before it was read
            lines.append(record.partition(";")[2].splitlines()[0][:200])

    def figures(self) -> dict[str, Any]:
        """What must not grow, of the daemon and of the root."""
        proc = Path("/proc") / str(self.pid)
        pages = int((proc / "statm").read_text().split()[1])
        processes = [p for p in Path("/proc").iterdir() if p.name.isdigit()]
        files = [_link(file) for file in (proc / "fd").iterdir()]
        held = len(Path("/proc/locks").read_text().splitlines())
        disk = os.statvfs(paths.state_dir())
        return {
            "files": sum(name != "/dev/kmb" for name in files),
            "views": files.count("/dev/kmb"),
            "rss_mib": round(pages * 4096 / (1 << 20), 1),
            "processes": sum(1 for p in processes if _words(p)),
            "locks": held,
            "run": sorted(p.name for p in paths.run_dir().iterdir()),
            "free_mib": disk.f_bavail * disk.f_bsize >> 20,
            "pending": len(self.store.list(dumps=PENDING)),
        }


def overwrite(place: abi.Range, value: int) -> None:
    """Write past the daemon, which alone may write through /dev/kmb."""
    start = place.base & ~0xFFF
    with Path("/dev/mem").open("r+b", buffering=0) as file:
        size = (place.end - start + 0xFFF) & ~0xFFF
        with mmap.mmap(file.fileno(), size, offset=start) as view:
            view[place.base - start : place.end - start] = bytes([value]) * place.size


def _reserved_ends() -> set[int]:
    """Where each piece of memory ends that the root's kernel leaves alone."""
    pieces = [line.split(" : ") for line in Path("/proc/iomem").read_text().splitlines()]
    return {int(at.split("-")[1], 16) + 1 for at, what in pieces if what == "Reserved"}


def _link(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:
        return ""


def _words(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
