# SPDX-License-Identifier: GPL-2.0-or-later
"""What is analysed: a kernel in a memory, the registers of its CPUs, what the incident knows.

Everything is read when first asked for, once, and shared by the panels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from crashdump.analysis import oops
from crashdump.analysis.oops import Event, Kind, Line
from crashdump.analysis.title import culprit
from introspect import stack
from introspect.errors import IntrospectError
from introspect.registers import from_pt_regs, is_user
from introspect.stack import Backtrace, End
from introspect.tasks import Task, read_task

if TYPE_CHECKING:
    from crashdump.incident import Evidence
    from introspect.kernel import Kernel

MAX_TASKS = 20_000
EFLAGS_IF = 0x200
# A frame with saved registers is a failure's when one of these is what it led to
EXCEPTIONS = (
    "asm_exc_", "page_fault", "async_page_fault", "general_protection", "invalid_op", "error_entry",
    "double_fault", "asm_exc_double_fault", "divide_error", "stack_segment", "do_trap", "nmi",
)  # fmt: skip


@dataclass(eq=False)
class Subject:
    """One dump.

    registers  by CPU, those that were saved with the memory
    kmsg       the log's tail as the crash path saved it, for when memory has none
    name       of the dump, as reports and commands quote it
    remark     what is wrong with the dump itself
    """

    kernel: Kernel
    registers: Mapping[int, dict[str, int]]
    evidence: Evidence | None = None
    kmsg: str = ""
    reason: str = ""
    name: str = "vmcore"
    remark: str = ""
    _traces: dict[int, Backtrace] = field(default_factory=dict)
    _current: dict[int, Task | None] = field(default_factory=dict)

    # The log

    @cached_property
    def log(self) -> list[Line]:
        """The log's lines, oldest first; the saved tail when the memory's cannot be read."""
        found: list[Line] = []
        try:
            for record in self.kernel.log():
                found += [Line(record.ts_ns, record.caller, t) for t in record.text.split("\n")]
                if len(found) > 4 * oops.MAX_LINES:
                    break
        except IntrospectError:
            if not found:
                found = oops.lines_of(self.kmsg)
        return (found or oops.lines_of(self.kmsg))[-oops.MAX_LINES :]

    @cached_property
    def events(self) -> list[Event]:
        return oops.find_events(self.log)

    @cached_property
    def event(self) -> Event | None:
        """The event that tells what happened, None when the log knows of none."""
        return oops.decisive(self.events)

    # CPUs and tasks

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks, as far as the list can be followed: `tasks_note` says when it ends early."""
        found: list[Task] = []
        try:
            for task in self.kernel.tasks():
                found.append(task)
                if len(found) >= MAX_TASKS:
                    self.tasks_note = f"only the first {MAX_TASKS} tasks were read"
                    break
        except IntrospectError as problem:
            self.tasks_note = f"the task list breaks off: {problem}"
            if not found:
                raise
        return found

    tasks_note: str = ""

    @cached_property
    def by_address(self) -> dict[int, Task]:
        return {task.address: task for task in self.tasks}

    @cached_property
    def cpus(self) -> list[int]:
        """The CPUs that were there; a panic takes all but its own offline."""
        try:
            return self.kernel.cpus("present")[:1024]
        except IntrospectError:
            return sorted(self.registers)

    def current(self, cpu: int) -> Task | None:
        """The task that runs on `cpu`."""
        if cpu not in self._current:
            self._current[cpu] = self._find_current(cpu)
        return self._current[cpu]

    def _find_current(self, cpu: int) -> Task | None:
        try:
            at = self.kernel.per_cpu("runqueues", cpu, "struct rq").member_("curr").value_()
            return self.by_address.get(at) or read_task(self.kernel, at)
        except IntrospectError:
            pass
        on_cpu = [task for task in self.tasks if task.running and task.cpu == cpu]
        busy = [task for task in on_cpu if task.pid]
        return next(iter(busy or on_cpu), None)

    @cached_property
    def crashed(self) -> tuple[int | None, str]:
        """(the CPU that failed, None when there is none; how that is known)."""
        if self.evidence is not None and self.evidence.crashed_cpu is not None:
            return self.evidence.crashed_cpu, "crash record"
        try:
            cpu = self.kernel.u32(self.kernel.symbols.address("panic_cpu"))
            if cpu < 8192:  # else PANIC_CPU_INVALID, -1
                return cpu, "panic_cpu"
        except IntrospectError:
            pass
        if self.event is not None and self.event.cpu is not None:
            return self.event.cpu, LOGGED
        how = "guess: it runs in the kernel with interrupts off"
        return (self.stuck, how) if self.stuck is not None else (None, "")

    @cached_property
    def stuck(self) -> int | None:
        """A CPU that was caught in the kernel with interrupts off, but not idle."""
        for cpu, registers in self.registers.items():
            if is_user(registers) or registers["flags"] & EFLAGS_IF:
                continue
            current = self.current(cpu)
            if current is not None and current.pid:
                return cpu
        return None

    # Stacks

    def trace(self, cpu: int) -> Backtrace:
        """The stack of a CPU: from its registers, else those in the log, else a guess."""
        if cpu not in self._traces:
            self._traces[cpu] = self._unwind(cpu)
        return self._traces[cpu]

    def _unwind(self, cpu: int) -> Backtrace:
        if cpu in self.registers:
            return self.kernel.unwind(self.registers[cpu])
        logged = self.logged_registers
        if logged and cpu == self.crashed[0] and not self.went_on:
            return self.kernel.unwind(logged)
        task = self.current(cpu)
        if task is None:
            return Backtrace((), End.LOST, "no current task is known for this CPU", guess=True)
        return stack.guess(self.kernel, task.stack)

    @cached_property
    def logged_registers(self) -> dict[str, int]:
        """The registers that the decisive event printed, {} unless ip, sp and bp are among them."""
        event = self.event
        if event is None or event.rip is None or not {"sp", "bp"} <= event.registers.keys():
            return {}
        ip = self.rip_address
        return {**event.registers, "ip": ip, "cs": 0x10} if ip is not None else {}

    @cached_property
    def rip_address(self) -> int | None:
        """The address of the decisive event's RIP."""
        rip = self.event.rip if self.event else None
        if rip is None:
            return None
        if not rip.function:
            return rip.address
        name = f"{rip.function} [{rip.module}]" if rip.module else rip.function
        found = self.kernel.symbols.addresses(name)
        return found[0] + rip.offset if found else None

    @cached_property
    def fault_frame(self) -> int | None:
        """Index in the failed CPU's trace of the frame that failed; None when not known.

        The one interrupted by an exception; for a stall by the interrupt that led to panic(); for
        a plain panic() its caller; for a CPU that hangs the innermost, but no interrupt's.
        """
        cpu = self.crashed[0]
        if cpu is None:
            return None
        frames = self.trace(cpu).frames
        names = [self.function(frame.ip, frame.exact) for frame in frames]
        panic = next((i for i, n in enumerate(names) if n in PANICS), None)
        for index, frame in enumerate(frames):
            if not frame.registers or is_user(dict(frame.registers)):
                continue
            exception = index > 0 and names[index - 1].startswith(EXCEPTIONS)
            tick = index > 0 and self.reason in STILL_TICKING  # what the tick interrupted
            if exception or tick or (panic is not None and index > panic):
                return index
        if panic is not None:
            return panic + 1 if panic + 1 < len(frames) else None
        return 0 if frames and not self.went_on else None

    @property
    def went_on(self) -> bool:
        """The failure is known from the log alone: its CPU has done other things since."""
        return self.crashed[1] == LOGGED

    @cached_property
    def culprit(self) -> str:
        """The function at fault by the failed CPU's stack, "" when that is not known."""
        at, cpu = self.fault_frame, self.crashed[0]
        if at is None or cpu is None:
            return ""
        frames = self.trace(cpu).frames[at : at + 32]
        return culprit([self.function(f.ip, f.exact) for f in frames])

    def function(self, ip: int, exact: bool) -> str:
        """The function at `ip`, a return address unless `exact`; "" for no code."""
        try:
            return self.kernel.symbols.find(ip if exact else ip - 1).name
        except IntrospectError:
            return ""

    def blocked(self) -> Iterator[Task]:
        """The tasks that do not run, idle tasks left out."""
        return (task for task in self.tasks if not task.running and task.pid)

    @cached_property
    def hung_task(self) -> Task | None:
        """The task that the kernel reported as hung, when that is what happened."""
        event = self.event
        if event is None or event.kind is not Kind.STALL or event.pid is None or event.rip:
            return None
        wanted = (event.pid, event.comm)
        found = (task for task in self.blocked() if (task.pid, task.comm) == wanted)
        return next(found, None)

    def task_trace(self, task: Task) -> Backtrace:
        """The stack of a task that does not run."""
        key = -task.address
        if key not in self._traces:
            self._traces[key] = self.kernel.backtrace(task)
        return self._traces[key]


LOGGED = "log"
STILL_TICKING = frozenset({"softlockup", "hang"})  # incidents in which interrupts still worked
PANICS = frozenset({"panic", "vpanic", "nmi_panic"})


def saved_registers(memory: object) -> dict[int, dict[str, int]]:
    """Registers by CPU out of a dump's PRSTATUS notes; a CPU whose note is blank is left out."""
    found = {}
    for cpu, raw in enumerate(getattr(memory, "registers", ())):
        if any(raw):
            found[cpu] = from_pt_regs(raw)
    return found
