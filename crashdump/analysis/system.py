# SPDX-License-Identifier: GPL-2.0-or-later
"""Panels on the system: which kernel, how long it ran, its command line, modules, taint, log."""

from __future__ import annotations

import time
from collections.abc import Iterator

from crashdump.analysis.oops import Line
from crashdump.analysis.report import Block, Facts, Lines, Table
from crashdump.analysis.subject import Subject
from introspect.errors import IntrospectError, NotFound
from introspect.kernel import Kernel
from introspect.object import Object

TAIL = 60
BEFORE, AFTER = 6, 50  # lines around an event
MAX_EVENTS = 12
# kernel/panic.c, taint_flags: a letter a bit, and what it says
TAINTS = (
    ("P", "proprietary module"), ("F", "module loaded by force"), ("S", "CPU out of specification"),
    ("R", "module unloaded by force"), ("M", "machine check"), ("B", "bad page or slab"),
    ("U", "user request"), ("D", "died: oops or BUG"), ("A", "ACPI table overridden"),
    ("W", "warning"), ("C", "staging driver"), ("I", "firmware workaround"),
    ("O", "out-of-tree module"), ("E", "unsigned module"), ("L", "soft lockup"),
    ("K", "live patch"), ("X", "auxiliary"), ("T", "struct randomised"), ("N", "test"),
)  # fmt: skip


def overview(subject: Subject) -> Iterator[Block]:
    """Release, time, command line."""
    kernel = subject.kernel
    rows = [("release", kernel.release), ("build id", kernel.build_id)]
    offset = kernel.kaslr_offset
    rows.append(("KASLR offset", f"{offset:#x}" if offset else "none"))
    up, wall = uptime(subject)
    rows.append(("uptime", f"{up:.3f} s" if isinstance(up, float) else f"{up} s"))
    if wall:
        rows.append(("time", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall))))
    rows.append(("CPUs", f"{len(subject.cpus)}, registers of {len(subject.registers)}"))
    rows.append(("taint", taint(tainted(kernel))))
    for label, read in (("version", _version), ("command line", _command_line)):
        try:
            rows.append((label, read(kernel)))
        except IntrospectError as problem:
            rows.append((label, f"not readable: {problem}"))
    yield Facts("", tuple(rows))


def _version(kernel: Kernel) -> str:
    return kernel.string(kernel.symbols.table.address("linux_banner"), 300).strip()


def _command_line(kernel: Kernel) -> str:
    at = kernel.u64(kernel.symbols.table.address("saved_command_line"))
    return kernel.string(at, 2048)


def uptime(subject: Subject) -> tuple[float | int, int]:
    """(seconds since boot, Unix time or 0): the kernel's clock, else the log's last line."""
    kernel = subject.kernel
    try:
        keeper = _timekeeper(kernel)
        wall, up = keeper.member_("xtime_sec").value_(), keeper.member_("ktime_sec").value_()
        if 0 <= up < 1 << 32 and 0 <= wall < 1 << 34:
            return up, wall
    except IntrospectError:
        pass
    return (subject.log[-1].ts_ns / 1e9 if subject.log else 0.0), 0


def _timekeeper(kernel: Kernel) -> Object:
    try:
        return kernel.object("shadow_timekeeper", "struct timekeeper")
    except NotFound:  # since 6.13 (20c7b582e88b) within tk_core; 7.2: timekeeper_data
        name = "tk_core" if "tk_core" in kernel.symbols else "timekeeper_data"
        return kernel.object(name, "struct tk_data").member_("timekeeper")


def tainted(kernel: Kernel) -> int:
    return kernel.object("tainted_mask").value_()


def taint(mask: int) -> str:
    """ "OE: out-of-tree module, unsigned module"."""
    found = [one for bit, one in enumerate(TAINTS) if mask >> bit & 1]
    if not found:
        return "none"
    return f"{''.join(letter for letter, _ in found)}: {', '.join(text for _, text in found)}"


def modules(subject: Subject) -> Iterator[Block]:
    """The loaded modules, those that taint the kernel first."""
    kernel = subject.kernel
    yield Facts("", (("taint", taint(tainted(kernel))),))
    at = kernel.btf.struct("module").offset("taints")
    rows = []
    for module in kernel.modules():
        mask = kernel.u64(module.address + at)
        letters = "".join(letter for bit, (letter, _) in enumerate(TAINTS) if mask >> bit & 1)
        rows.append((module.name, f"{module.base:#x}", str(module.size), letters))
    rows.sort(key=lambda row: (not row[3], row[0]))
    yield Table("", ("module", "address", "bytes", "taint"), tuple(rows))


def log(subject: Subject) -> Iterator[Block]:
    """The log around each event, and its end."""
    lines = subject.log
    shown: set[int] = set()
    for event in subject.events[:MAX_EVENTS]:
        start = max(event.start - BEFORE, 0)
        end = min(event.end + 1, event.start + AFTER, len(lines))
        fresh = [index for index in range(start, end) if index not in shown]
        shown.update(fresh)
        if fresh:
            yield Lines(f"Around: {event.title}", tuple(_line(lines[index]) for index in fresh))
    yield Lines(f"The last {min(TAIL, len(lines))} lines", tuple(map(_line, lines[-TAIL:])))


def _line(line: Line) -> str:
    return f"[{line.ts_ns // 10**9:5d}.{line.ts_ns // 1000 % 10**6:06d}] {line.text}"
