# SPDX-License-Identifier: GPL-2.0-or-later
"""The measurements of script/bench: who takes turns with whom, on what work."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.peers import by_qmp, dumps, kdump, libvirt, stub, triage, vnode
from bench.peers.guest import kernel
from bench.peers.table import Column, Contender, Line, NotHere, Table, Take

TROUBLE = (RuntimeError, OSError, EOFError, subprocess.SubprocessError, ValueError, LookupError)
RESTART = [
    Column("safe", "dump safe, s", 3),
    Column("file", "dump a file, s"),
    Column("running", "running again, s", 3),
    Column("MiB", "stored MiB", 0),
]
PROCESS = [
    Column("s", "s", 2),
    Column("CPU", "CPU s", 2),
    Column("peak", "peak MiB", 0),
]


@dataclass
class Plan:
    """What is asked for: `n` takes of each, only these peers (all when empty)."""

    n: int
    sizes: list[int]
    peers: set[str]
    until: float = float("inf")  # time.monotonic(): no turn begins after it but the first
    loads: list[float] = field(default_factory=list)

    def wants(self, peer: str) -> bool:
        return not self.peers or peer in self.peers

    def load(self) -> str:
        """The host's load since this was last asked."""
        low, high = min(self.loads, default=0), max(self.loads, default=0)
        self.loads.clear()
        return f"Load of the host meanwhile: {low:.1f} to {high:.1f}."

    def say(self, text: str) -> None:
        print(f"bench: {text}", file=sys.stderr, flush=True)


def take_turns(plan: Plan, what: str, contenders: Sequence[Contender]) -> list[Line]:
    """A line for each; every turn another one begins, so the host's load meets all alike."""
    wanted = [one for one in contenders if plan.wants(one.key)]
    lines = [Line(one.name) for one in wanted]
    for turn in range(plan.n):
        if turn and time.monotonic() > plan.until:
            plan.say(f"{what}: out of time after {turn} of {plan.n} turns")
            break
        for place in range(len(wanted)):
            at = (place + turn) % len(wanted)
            _once(plan, f"{what}, {turn + 1} of {plan.n}", wanted[at], lines[at])
    return lines


def _once(plan: Plan, what: str, contender: Contender, line: Line) -> None:
    if line.absent:
        return
    began = time.monotonic()
    try:
        line.takes.append(contender.measure())
    except NotHere as why:
        line.absent = str(why)
    except TROUBLE as error:
        line.failures.append(" ".join(str(error).split())[-200:])
        if not line.takes and len(line.failures) == 2:
            line.absent = f"failed twice: {line.failures[-1]}"
    plan.loads.append(os.getloadavg()[0])
    outcome = line.absent or (line.failures[-1:] if not line.takes else line.takes[-1])
    plan.say(f"{what}: {contender.key}, {time.monotonic() - began:.0f} s: {outcome}")


def restarts(plan: Plan) -> Iterator[Table]:
    """From a panic to a running successor, at each size."""
    greatest, spare = vnode.affordable(plan.sizes, vnode.free_memory())
    with contextlib.ExitStack() as stack:

        def there(peers: Sequence[str], make: Callable[[], object]) -> object:
            try:
                return make() if any(map(plan.wants, peers)) else NotHere("not asked for")
            except NotHere as why:
                return why

        make_box = partial(vnode.box, greatest, spare, plan.say)
        box = there(["ours", "standby"], lambda: stack.enter_context(make_box()))
        daemon = there(["libvirt"], lambda: stack.enter_context(libvirt.daemon()))
        for size in plan.sizes:

            def ours(mode: str, size: int = size) -> Take:
                if size > greatest or (mode != "copy" and size == greatest and not spare):
                    need = vnode.ROOT + vnode.pool_for(size, 1 + (mode != "copy")) + vnode.OTHERS
                    raise NotHere(f"{need >> 30} GiB of free memory are wanted for it")
                if isinstance(box, vnode.Box):
                    return vnode.measure(box, size, mode)
                raise NotHere(str(box))

            def by_libvirt(size: int = size) -> Take:
                if isinstance(daemon, libvirt.Libvirt):
                    return libvirt.measure(daemon, size)
                raise NotHere(str(daemon))

            def in_guest(measure: Callable[[Path, int], Take], size: int = size) -> Take:
                with tempfile.TemporaryDirectory(prefix="bench-") as place:
                    return measure(Path(place), size)

            contenders = [
                Contender("ours", vnode.NAMES["hold"], partial(ours, "hold")),
                Contender("standby", vnode.NAMES["standby"], partial(ours, "standby")),
                Contender("ours", vnode.NAMES["copy"], partial(ours, "copy")),
                Contender("libvirt", libvirt.NAME, by_libvirt),
                Contender("qemu", by_qmp.NAME, partial(in_guest, by_qmp.measure)),
                Contender("kdump", kdump.NAME, partial(in_guest, kdump.measure)),
            ]
            lines = take_turns(plan, f"restart, {size} MiB", contenders)
            peers = "ours|standby|libvirt|qemu|kdump"
            again = f"script/bench --only restart --sizes {size} [--peer {peers}]"
            yield Table(f"{size} MiB", plan.load(), again, RESTART, lines)


@contextlib.contextmanager
def panicked(mebibytes: int) -> Iterator[tuple[Path, Path, Path]]:
    """A guest that panicked: its RAM, QEMU's ELF file of it, a place for ours."""
    from tests.introspect.guest import boot

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        place = Path(name)
        core = place / "core"
        guest = boot(
            place,
            kernel().vmlinuz,
            [],
            elf=core,
            memory=mebibytes,
            cmdline="panic=0 no_timer_check",
            after="echo c >/proc/sysrq-trigger",
            until=b"end Kernel panic",
        )
        yield guest.raw, core, place / "vmcore"


def dumping(plan: Plan, what: Sequence[str]) -> Iterator[tuple[str, Table]]:
    """Dumps of one panicked guest: written and filtered, then read."""
    size = min(1024, max(plan.sizes))
    title = f"The memory of a guest of {size} MiB"
    repeat = f"script/bench --only {{}} --sizes {size} [--peer {{}}]"
    columns = [PROCESS[0], Column("MiB", "stored MiB", 0), *PROCESS[1:]]
    try:
        with panicked(size) as (ram, core, vmcore):
            dumps.ours(ram, core, vmcore)
            if "dump" in what:
                lines = take_turns(plan, "dump", dumps.contenders(ram, core, vmcore))
                again = repeat.format("dump", "ours|makedumpfile")
                yield "dump", Table(title, plan.load(), again, columns, lines)
            if "triage" in what:
                contenders = triage.contenders(vmcore)
                for one in contenders:  # what is read again and again lies in the page cache
                    _once(plan, "triage, to warm up", one, Line(one.name))
                lines = take_turns(plan, "triage", contenders)
                again = repeat.format("triage", "ours|crash|drgn|gdb")
                yield "triage", Table(title, plan.load(), again, PROCESS, lines)
    except (AssertionError, *TROUBLE) as error:
        plan.say(f"no panicked guest, so no dumps: {' '.join(str(error).split())[:200]}")


def reads(plan: Plan) -> Table:
    """The GDB protocol."""
    columns = [
        Column(size, f"{size}, {'us' if unit == 1e6 else 'ms'}", 0 if unit == 1e6 else 2)
        for size, unit in stub.UNITS.items()
    ]
    lines = {server: Line(name) for server, name in stub.NAMES.items()}
    try:
        for server, takes in stub.measure(plan.n).items():
            lines[server].takes = takes
    except NotHere as why:
        for line in lines.values():
            line.absent = str(why)
    plan.loads.append(os.getloadavg()[0])
    plan.say("reads: done")
    return Table(
        "Reads of a guest's memory",
        plan.load(),
        "script/bench --only reads",
        columns,
        [*lines.values()],
    )
