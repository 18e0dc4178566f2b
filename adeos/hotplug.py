# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs and memory blocks of the running root, taken offline and put back: sysfs, nothing else.

A block can go offline when all in it is free or can be moved; only trying tells.  The kernel tries
for ever where a page stays in use, so each attempt is a process of its own that can be killed.
Limits: who took what is kept by the caller.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from adeos.errors import MachineMissing

BLOCK_S = 20.0
"""How long one block may take: 128 MiB go in 0.1 s, in 14 s where an emulated root is starved."""
POLL_S = 0.05
MOVABLE = "Movable"
# The first 16 MiB are what old devices need, and no zone has that block for itself.
_UNFIT = ("none", "DMA", "Device")


class Block(NamedTuple):
    """A memory block that is online; `zone` is the one it would go back to."""

    number: int
    zone: str


def write_in_time(path: Path, word: str, limit_s: float) -> str:
    """Write a word to a file of sysfs; why it failed, or ""."""
    command = ["timeout", "-s", "KILL", str(limit_s)]  # also when we are killed ourselves
    command += ["/bin/sh", "-c", 'echo "$1" >"$2"', "sh", word, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode in (-9, 128 + 9):
        return f"not done in {limit_s:g} s"
    return (done.stderr.strip().rpartition(": ")[2] or "failed") if done.returncode else ""


class Hotplug:
    """The devices below `root`; `write` as write_in_time."""

    def __init__(
        self,
        root: Path = Path("/"),
        write: Callable[[Path, str, float], str] = write_in_time,
    ) -> None:
        self._system = root / "sys/devices/system"
        self._meminfo = root / "proc/meminfo"
        self._write = write

    # CPUs

    def cpu_online(self, cpu: int) -> bool:
        """MachineMissing when the machine has no such CPU, or none that can be switched."""
        path = self._cpu(cpu)
        try:
            return path.read_text().strip() == "1"
        except FileNotFoundError:
            if path.parent.exists():
                raise MachineMissing(f"CPU {cpu} cannot be taken offline") from None
            raise MachineMissing(f"the machine has no CPU {cpu}") from None

    def set_cpu(self, cpu: int, *, online: bool) -> None:
        """Switch a CPU; MachineMissing when the kernel refuses."""
        why = self._write(self._cpu(cpu), "1" if online else "0", 3 * BLOCK_S)
        if why:
            state = "online" if online else "offline"
            raise MachineMissing(f"CPU {cpu} does not go {state}: {why}", "see `dmesg`")

    def _cpu(self, cpu: int) -> Path:
        return self._system / f"cpu/cpu{cpu}/online"

    # Memory

    def block_size(self) -> int:
        """Bytes; MachineMissing when this kernel has no memory hotplug."""
        try:
            return int((self._system / "memory/block_size_bytes").read_text(), 16)
        except (OSError, ValueError):
            raise MachineMissing(
                "the root's kernel has no memory hotplug",
                "boot it with memmap=SIZE$BASE and name that in [machine] memory",
            ) from None

    def available(self) -> int:
        """Bytes that the root could do without, by its own estimate; 0 when it does not say."""
        for line in self._meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
        return 0

    def blocks(self) -> list[Block]:
        """What may be tried, by number: online and of one zone."""
        found = []
        for path in (self._system / "memory").glob("memory[0-9]*"):
            zone, *more = _text(path / "valid_zones").split() or ("none",)
            if _text(path / "state") == "online" and not more and zone not in _UNFIT:
                found.append(Block(int(path.name[len("memory") :]), zone))
        return sorted(found)

    def offline(self, block: Block) -> str:
        """Take a block; why it stays, or ""."""
        return self._write(self._block(block), "offline", BLOCK_S)

    def online(self, block: Block) -> None:
        """Put a block back into its zone; one that is there already is left alone."""
        end = time.monotonic() + BLOCK_S
        while _text(self._block(block)) == "going-offline" and time.monotonic() < end:
            time.sleep(POLL_S)  # one that was killed had just begun
        if _text(self._block(block)) != "offline":
            return
        word = "online_movable" if block.zone == MOVABLE else "online_kernel"
        why = self._write(self._block(block), word, 3 * BLOCK_S)
        if why:
            what = f"memory block {block.number} does not go online: {why}"
            raise MachineMissing(what, "see `dmesg`")

    def _block(self, block: Block) -> Path:
        return self._system / f"memory/memory{block.number}/state"


def stretches(blocks: Sequence[Block], count: int) -> Iterator[list[Block]]:
    """Neighbours of at least `count`, from the highest down: movable ones, then all.

    Memory below 4 GiB, where some devices' buffers must lie, is so touched last.
    """
    movable = [block for block in blocks if block.zone == MOVABLE]
    for some in (movable, blocks) if movable else (blocks,):
        stretch: list[Block] = []
        for block in sorted(some, reverse=True):
            if stretch and stretch[-1].number != block.number + 1:
                if len(stretch) >= count:
                    yield stretch
                stretch = []
            stretch.append(block)
        if len(stretch) >= count:
            yield stretch


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
