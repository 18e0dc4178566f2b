# SPDX-License-Identifier: GPL-2.0-or-later
"""Who gets which memory and CPUs in the box: pure functions over the machine's size.

The root vnode keeps CPU 0 and what the vnodes do not get.  q35 puts RAM beyond 2 GiB at 4 GiB once
there are 2816 MiB (hw/i386/pc_q35.c).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from box.errors import BadOption

MIB = 1 << 20
GIB = 1 << 30
Q35_SPLIT_FROM = 0xB0000000
FOUR_GIB = 4 * GIB
TREE = "/opt/vnode-debug"  # where the box shows the checkout
INITRD = f"{TREE}/build/vnode.cpio.gz"
DEBIAN_INITRD = f"{TREE}/build/vnode-debian.cpio"
DEBIAN_MEMORY = 768 * MIB  # of a vnode with Debian


class Range(NamedTuple):
    """Physical memory, in bytes."""

    base: int
    size: int

    def __str__(self) -> str:
        return f"{self.base:#x}+{self.size:#x}"


# Four vnodes of 256 MiB and the root bridge (2 MiB).  Below 2 GiB, away from where the root's
# kernel (16 MiB), its initrd and the ACPI tables (top of RAM) lie.
LOW_POOL = Range(0x30000000, GIB + 2 * MIB)
HIGH_POOL = Range(0x140000000, GIB)  # from 4 GiB on a machine has a GiB to give up there
SLOTS = Range(0x10000, 5 * 0x10000)  # start-up code of the vnodes' CPUs: 64 KiB each


# An emulated CPU stands still for as long as the host has no time for it, and nothing in the box
# can tell that from a hang: limits that a host with all CPUs busy keeps.
WATCH = """[vnode.watch]
irq = { period_ms = 10, limit_ms = 500 }
sched = { period_ms = 20, limit_ms = 2000 }
user = { period_ms = 100, limit_ms = 5000 }
"""
RESTART = """[vnode.restart]
intensity = 100  # here faults are wanted
"""


@dataclass(frozen=True)
class Layout:
    """What the vnodes get."""

    pools: tuple[Range, ...]
    slots: Range
    cpus: tuple[int, ...]
    hotplug: bool = False
    """Nothing is reserved: the root boots with all of it, `vnode-debug up` takes it."""

    @property
    def kernel_arguments(self) -> list[str]:
        """Takes memory and CPUs from the root's kernel.

        `no_ipi_broadcast` keeps a stop IPI of the root to the root's own CPUs.
        """
        kept_apart = ["tsc=reliable", "no_ipi_broadcast=1"]
        if self.hotplug:
            return kept_apart
        reserved = [f"memmap={r.size:#x}${r.base:#x}" for r in (self.slots, *self.pools)]
        return ["maxcpus=1", *kept_apart, *reserved]

    @property
    def module_arguments(self) -> str:
        """Parameters of kmb.ko; none when `up` is to load it."""
        if self.hotplug:
            return ""
        memory = ",".join(map(str, self.pools))
        return f"mem={memory} low={self.slots} cpus={cpu_list(self.cpus)}"


def plan(memory: int, cpus: int, *, hotplug: bool = False) -> Layout:
    """Layout for a machine of `memory` bytes and `cpus` CPUs."""
    if memory < 2 * GIB or memory % (2 * MIB):
        raise BadOption(f"memory of the box: {memory >> 20} MiB: give 2G or more, in steps of 2M")
    if not 2 <= cpus <= 16:
        raise BadOption(f"CPUs of the box: {cpus}: give 2 to 16, one of them is the root's")
    pools = [LOW_POOL]
    if memory >= Q35_SPLIT_FROM:
        end = FOUR_GIB + memory - 2 * GIB
        if end >= HIGH_POOL.base + HIGH_POOL.size:
            pools.append(HIGH_POOL)
    return Layout(tuple(pools), SLOTS, tuple(range(1, cpus)), hotplug)


def cpu_list(cpus: Sequence[int]) -> str:
    """CPUs the way the kernel writes them: 1-3,5."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][-1] == cpu - 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in parts)


def parse_size(text: str) -> int:
    """Bytes out of 2048M, 2G or a plain number of bytes."""
    match = re.fullmatch(r"(\d{1,15})([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise BadOption(f"size {text!r}: write it like 2G or 2048M")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def vnodes_toml(layout: Layout, kernel: str, module: str, *, debian: bool = False) -> str:
    """The box's /etc/vnode-debug/vnodes.toml.

    `kernel` and `module` (kmb.ko, left out when empty) are paths inside the box.  With `debian`
    vnode 1 has a Debian to work in.  BadOption when there is no room for that.
    """
    if debian and sum(pool.size for pool in layout.pools) < DEBIAN_MEMORY + GIB:
        raise BadOption("a vnode with Debian wants a box of 4G or more")
    pools = ", ".join(f'"{pool}"' for pool in layout.pools)
    text = "# Written by the box at its start; edits last until it goes down.\n"
    text += "[machine]\n"
    if not layout.hotplug:
        text += f'memory = [{pools}]\nlow = "{layout.slots}"\n'
        text += f"cpus = [{', '.join(map(str, layout.cpus))}]\n"
    if module:
        text += f'module = "{module}"\n'
    for number, name, cpus, autostart in (
        (1, "alpha", (1,), True),
        (2, "beta", (2,), True),
        (3, "pair", (2, 3), False),
    ):
        if not set(cpus) <= set(layout.cpus):
            continue
        large = debian and number == 1
        mebibytes = DEBIAN_MEMORY // MIB if large else 256
        initrd = DEBIAN_INITRD if large else INITRD
        text += vnode_toml(number, name, cpus, mebibytes, kernel, initrd)
        text += f"autostart = {str(autostart).lower()}\n{WATCH}{RESTART}"
    return text


def vnode_toml(
    number: int, name: str, cpus: Sequence[int], mebibytes: int, kernel: str, initrd: str
) -> str:
    """A [[vnode]] without its tables, which follow."""
    return (
        f'\n[[vnode]]\nid = {number}\nname = "{name}"\nkernel = "{kernel}"\ninitrd = "{initrd}"\n'
        f'cpus = {list(cpus)}\nmemory = "{mebibytes}M"\n'
        "inject = true  # vnode-debug inject: this is a place to try things out\n"
    )
