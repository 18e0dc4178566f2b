# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels in the vnodes' memory, as the screens read them: log, tasks, CPUs, memory.

A kernel is found once an incarnation and kept.  Methods block, for seconds where nothing is cached
yet, and belong on a thread; those of one vnode take turns.  Errors are Unreadable, one line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from tui.errors import TuiError
from tui.look import Usage
from tui.text import safe

if TYPE_CHECKING:
    from adeos.machine import Machine
    from crashdump.analysis.report import Panel
    from debugger.target import KernelTarget
    from introspect.kernel import Kernel
    from introspect.printk import LogRecord
    from introspect.tasks import Task

LOG_MAX = 20_000
"""Records shown of a log."""
AGAIN_S = 30.0
"""A vnode without a kernel is searched again after so long: a search reads all its memory."""
BUSY = range(5)
"""cpustat of user, nice, system, softirq, irq (include/linux/kernel_stat.h); nanoseconds."""
STEAL = 7
PAGE = 4096

OpenTarget = Callable[["Machine", int, str], "KernelTarget"]


class Unreadable(TuiError):
    """There is no kernel there, or what is asked of it cannot be read."""


class Cpu(NamedTuple):
    """One CPU of a kernel."""

    cpu: int
    state: str
    registers: dict[str, int]
    code: tuple[str, ...]
    """Disassembly around the instruction pointer."""
    stack: tuple[str, ...]


class Facts(NamedTuple):
    """What a twin diff compares, by section."""

    sections: dict[str, tuple[str, ...]]


def open_vnode(machine: Machine, vnode: int, name: str) -> KernelTarget:
    """A vnode's kernel with its registers; nothing is stopped by that."""
    from debugger import sources

    return sources.vnode(machine, vnode, name)


class Kernels:
    """The kernels of a machine's vnodes."""

    def __init__(self, machine: Machine, open_target: OpenTarget = open_vnode) -> None:
        self._machine = machine
        self._open = open_target
        self._targets: dict[int, tuple[int, KernelTarget]] = {}
        self._refused: dict[int, tuple[int, float, str]] = {}
        self._usage: dict[int, Usage] = {}
        self._busy: dict[int, tuple[int, int, float]] = {}
        self._turn: dict[int, threading.RLock] = {}
        self._mutex = threading.Lock()

    @contextmanager
    def _kernel(self, vnode: int) -> Iterator[KernelTarget]:
        """A vnode's kernel, while nobody else reads it; what goes wrong in it is Unreadable."""
        from adeos.errors import AdeosError
        from debugger.errors import DebuggerError
        from introspect.errors import IntrospectError

        with self._mutex:
            turn = self._turn.setdefault(vnode, threading.RLock())
        with turn:
            try:
                yield self._target(vnode)
            except (AdeosError, DebuggerError, IntrospectError) as error:
                raise Unreadable(safe(str(error))) from None

    def _target(self, vnode: int) -> KernelTarget:
        binding = self._machine.query(vnode)
        if binding is None:
            self._targets.pop(vnode, None)
            raise Unreadable(f"vnode {vnode} has no memory; what it left is in its incidents")
        start, target = self._targets.get(vnode, (-1, None))
        if target is not None and start == binding.start_tsc:
            return target
        refused_start, until, why = self._refused.get(vnode, (-1, 0.0, ""))
        if refused_start == binding.start_tsc and time.monotonic() < until:
            raise Unreadable(why)
        try:
            target = self._open(self._machine, vnode, f"vnode {vnode}")
        except Exception as error:
            again = time.monotonic() + AGAIN_S
            self._refused[vnode] = (binding.start_tsc, again, safe(str(error)))
            raise
        self._targets[vnode] = (binding.start_tsc, target)
        return target

    def log(self, vnode: int) -> list[LogRecord]:
        """The kernel log, oldest first; the last LOG_MAX records."""
        with self._kernel(vnode) as target:
            return list(target.kernel.log())[-LOG_MAX:]

    def tasks(self, vnode: int) -> tuple[list[Task], str]:
        """Every task, and why the list is not whole ("" when it is)."""
        with self._kernel(vnode) as target:
            target.refresh()
            found, note = target.tasks()
            return list(found), note

    def stack(self, vnode: int, task: Task) -> list[str]:
        """The stack of a task, a line a frame."""
        from introspect import stack

        with self._kernel(vnode) as target:
            trace = target.kernel.backtrace(task)
            lines = stack.describe(target.kernel, trace)
            return [*lines, *([f"({trace.reason})"] if trace.reason else [])]

    def cpus(self, vnode: int) -> list[Cpu]:
        """Every CPU with its registers, as they were saved or sampled last."""
        from debugger.panels import registers_of

        with self._kernel(vnode) as target:
            target.refresh()
            by_cpu = registers_of(target)
            return [_cpu(target, cpu, by_cpu.get(cpu, {})) for cpu in range(target.cpus.count)]

    def panels(self, vnode: int, *names: str) -> list[Panel]:
        """Panels of an analysis, on the kernel as it is now."""
        from crashdump.analysis import report
        from crashdump.analysis.run import PANELS, run_panel
        from crashdump.analysis.subject import Subject
        from debugger.panels import registers_of

        with self._kernel(vnode) as target:
            target.refresh()
            subject = Subject(target.kernel, registers_of(target))
            found = tuple(run_panel(spec, subject) for spec in PANELS if spec.name in names)
        return list(report.finished(report.Report("", panels=found)).panels)

    def facts(self, vnode: int) -> Facts:
        """What a twin diff compares."""
        from crashdump.analysis.text import block_lines
        from introspect.sysctl import read_sysctls

        with self._kernel(vnode) as target:
            kernel = target.kernel
            log = [safe(line) for one in self.log(vnode) for line in one.text.split("\n")]
            sysctls = [f"{name} = {value}" for name, value in read_sysctls(kernel).items()]
            image = [f"release {safe(kernel.release)}", f"build id {kernel.build_id or 'unknown'}"]
        panels = {one.name: one for one in self.panels(vnode, "modules", "memory", "system")}
        texts = {
            name: [line for block in panel.blocks for line in block_lines(block)]
            for name, panel in panels.items()
        }
        line = [text for text in texts.get("system", []) if text.startswith("command line")]
        return Facts(
            {
                "image": tuple(image),
                "command line": tuple(" ".join(line).split()[2:]),
                "modules": tuple(text.split()[0] for text in texts.get("modules", []) if text),
                "sysctls": tuple(sysctls),
                "slab": tuple(texts.get("memory", [])),
                "log": tuple(log),
            }
        )

    # How much is in use

    def usage(self, vnode: int) -> Usage | None:
        """What measure() found last; does not block."""
        return self._usage.get(vnode)

    def measure(self, vnode: int) -> None:
        """Reads how much of its CPUs and memory a vnode uses; None when it cannot be read."""
        try:
            with self._kernel(vnode) as target:
                self._usage[vnode] = self._measured(vnode, target.kernel)
        except Unreadable:
            self.forget(vnode)

    def forget(self, vnode: int) -> None:
        """A vnode does not run: nothing is in use that could be told."""
        self._usage.pop(vnode, None)
        self._busy.pop(vnode, None)

    def _measured(self, vnode: int, kernel: Kernel) -> Usage:
        total = kernel.u64(kernel.symbols.address("_totalram_pages")) * PAGE
        item = dict(kernel.btf.find("enum zone_stat_item").enumerators)["NR_FREE_PAGES"]
        free = kernel.u64(kernel.symbols.address("vm_zone_stat") + 8 * item) * PAGE
        cpus = kernel.cpus()[:64]
        busy, now = sum(_busy_ns(kernel, cpu) for cpu in cpus), time.monotonic()
        phys_base, before, then = self._busy.get(vnode, (0, 0, 0.0))
        self._busy[vnode] = (kernel.phys_base, busy, now)
        share = None
        if phys_base == kernel.phys_base and before <= busy and now > then and cpus:
            share = min((busy - before) / 1e9 / (now - then) / len(cpus), 1.0)
        return Usage(share, max(total - free, 0), total)


def _busy_ns(kernel: Kernel, cpu: int) -> int:
    from introspect import percpu

    at = percpu.address(kernel, "kernel_cpustat", cpu)
    return sum(kernel.u64(at + 8 * item) for item in (*BUSY, STEAL))


def _cpu(target: KernelTarget, cpu: int, registers: dict[str, int]) -> Cpu:
    from introspect import disasm, stack
    from introspect.errors import IntrospectError
    from introspect.registers import is_user

    kernel, code, frames = target.kernel, [""], [""]
    try:
        if registers and not is_user(registers):
            code = disasm.lines(disasm.around(kernel, registers["ip"]))
    except IntrospectError as error:
        code = [str(error)]
    try:
        if registers:
            frames = stack.describe(kernel, kernel.unwind(registers)) or ["in user mode"]
    except IntrospectError as error:
        frames = [str(error)]
    state = safe(target.cpus.state(cpu))
    lines = (tuple(map(safe, islice(part, 64))) for part in (code, frames))
    return Cpu(cpu, state, registers, *lines)
