# SPDX-License-Identifier: GPL-2.0-or-later
"""What is debugged: a kernel in memory and the register frames of its CPUs.

KernelTarget joins an address space (live or dead memory alike) with a CpuSource
that knows the registers: of a running vnode (cpus.BridgeCpus), of a dump
(cpus.DumpCpus), of anything else with CPUs.  It watches; what stops CPUs and writes
is its pilot, where there is one.  Registers are read once a stop event and then kept, so that
gdb sees one state until it resumes.

A thread is a CPU (thread id = CPU + 1) or, behind the CPUs, a task that is on
none (tasks.py); the process id is the vnode id.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from adeos.text import c_string, printable
from debugger.addressspace import AddressSpace
from debugger.breakable import Breakable
from debugger.control import RunControl
from debugger.errors import AddressError, TargetError, TargetGone
from debugger.pilot import Pilot
from debugger.registers import Values
from debugger.tasks import TaskList
from introspect.errors import IntrospectError
from introspect.kernel import Kernel
from introspect.paging import PageTables
from introspect.printk import LogRecord
from introspect.tasks import Task

_CR3_ROOT = 0x000FFFFFFFFFF000


class Liveness(Enum):
    """What the CPUs of a target do."""

    RUNNING = "running"
    """They execute; frames are samples of the past."""
    DEAD = "dead"
    """They will not execute again; memory and frames stand still."""


class Change(NamedTuple):
    """Something happened to the target while it ran."""

    text: str
    """One line for the user."""
    gone: bool
    """The kernel is no more: gdb must be told that the process has ended."""


class CpuSource(Protocol):
    """The CPUs of a kernel, seen from outside."""

    @property
    def count(self) -> int:
        """Number of CPUs; they are 0..count - 1."""
        ...

    @property
    def liveness(self) -> Liveness: ...

    @property
    def volatile(self) -> bool:
        """Whether the memory may change or be given to another kernel at any time."""
        ...

    @property
    def focus(self) -> int:
        """The CPU to look at first: the one that crashed, else 0."""
        ...

    def registers(self, cpu: int) -> Values:
        """Registers by name, those that are known; {} when none are."""
        ...

    def state(self, cpu: int) -> str:
        """Words for what the CPU does and where its registers come from."""
        ...

    def refresh(self) -> None:
        """A stop event: read everything anew."""
        ...

    def change(self) -> Change | None:
        """What happened since the last refresh(); cheap enough for every 100 ms."""
        ...


class Identity(NamedTuple):
    """What a target is called; `number` is its process id in gdb (the vnode id)."""

    number: int
    name: str


class Thread(NamedTuple):
    """A thread as gdb lists it."""

    tid: int
    name: str
    info: str
    cpu: int
    """The CPU, or where the task last ran."""

    @property
    def is_cpu(self) -> bool:
        """Whether it is a CPU, and no task."""
        return self.tid == self.cpu + 1


class Target(Protocol):
    """What the protocol handlers need of the thing debugged."""

    @property
    def identity(self) -> Identity: ...
    @property
    def kernel(self) -> Kernel: ...
    @property
    def liveness(self) -> Liveness: ...
    @property
    def focus(self) -> int:
        """The thread to look at first."""
        ...

    def threads(self) -> Sequence[Thread]: ...
    def thread(self, tid: int) -> Thread | None: ...
    def registers(self, tid: int) -> Values:
        """Registers of a thread; TargetError when there is no such thread."""
        ...

    def read(self, tid: int, address: int, size: int) -> bytes:
        """Virtual memory as the thread sees it, at least one byte; AddressError."""
        ...

    def read_physical(self, address: int, size: int) -> bytes: ...
    def regions(self) -> Sequence[tuple[int, int]]:
        """(first address, bytes) of all that read() can reach, sorted."""
        ...

    def refresh(self) -> None: ...
    def forget_registers(self, tid: int) -> None:
        """Read the registers of a thread anew: they were changed."""
        ...

    def change(self) -> Change | None: ...
    def describe(self) -> Mapping[str, str]: ...
    def tasks(self) -> tuple[Sequence[Task], str]:
        """Every task, and why the list is not whole ("" when it is)."""
        ...

    def log(self) -> Iterable[LogRecord]: ...

    @property
    def pilot(self) -> Pilot | None:
        """What stops and changes it; None where nothing does (a dump)."""
        ...


class KernelTarget:
    """A Linux kernel, watched; with `tasks` the tasks are threads as well.

    `close`: ends what it is read by, where that is a connection.
    """

    def __init__(
        self,
        identity: Identity,
        kernel: Kernel,
        cpus: CpuSource,
        *,
        tasks: bool = False,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.close = close
        self.identity = identity
        self.kernel = kernel
        self.cpus = cpus
        self._user_end = 1 << (56 if kernel.la57 else 47)
        self._kernel_space = self._space(kernel.tables)
        self._user_spaces: dict[int, AddressSpace] = {}
        self._registers: dict[int, Values] = {}
        self._tasks = TaskList(kernel)
        self._show_tasks = tasks
        self.pilot: Pilot | None = None

    def controlled_by(self, control: RunControl) -> None:
        """Give it a pilot; no control is taken yet."""
        self.pilot = Pilot(control, Breakable(self.kernel), self._locate, self._user_end)

    def _locate(self, tid: int, address: int) -> tuple[int, int]:
        kernel_half = address >= self._user_end
        space = self._kernel_space if kernel_half else self._user_space(tid)
        return space.translate(address)

    def _space(self, tables: PageTables) -> AddressSpace:
        return AddressSpace(tables, self._check if self.cpus.volatile else None)

    def _check(self) -> None:
        change = self.cpus.change()
        if change is not None and change.gone:
            raise TargetGone(f"{self.identity.name}: {change.text}")

    @property
    def liveness(self) -> Liveness:
        return self.cpus.liveness

    @property
    def focus(self) -> int:
        return self.cpus.focus + 1

    def threads(self) -> Sequence[Thread]:
        name = printable(self.identity.name.encode())
        running = self._tasks.running() if self._show_tasks else {}
        listed = [self._cpu(cpu, name, running.get(cpu)) for cpu in range(self.cpus.count)]
        if self._show_tasks:
            listed += [_task(tid, task) for tid, task in self._tasks.blocked().items()]
        return listed

    def _cpu(self, cpu: int, name: str, task: Task | None) -> Thread:
        at_work = f", {_comm(task)} pid {task.pid}" if task else ""
        return Thread(cpu + 1, name, f"CPU {cpu} {self.cpus.state(cpu)}{at_work}", cpu)

    def thread(self, tid: int) -> Thread | None:
        if 1 <= tid <= self.cpus.count:
            return self._cpu(tid - 1, printable(self.identity.name.encode()), None)
        task = self._task(tid)
        return _task(tid, task) if task else None

    def _task(self, tid: int) -> Task | None:
        return self._tasks.find(tid) if self._show_tasks else None

    def registers(self, tid: int) -> Values:
        values = self._registers.get(tid)
        if values is None:
            values = self._registers[tid] = self._read_registers(tid)
        return values

    def _read_registers(self, tid: int) -> Values:
        if 1 <= tid <= self.cpus.count:
            parked = self.pilot.registers(tid - 1) if self.pilot else None
            return self.cpus.registers(tid - 1) if parked is None else parked
        task = self._task(tid)
        if task is None:
            name = self.identity.name
            raise TargetError(f"no thread {tid}: {name} has no such CPU, or the task ended or runs")
        return self._tasks.registers(task)

    def read(self, tid: int, address: int, size: int) -> bytes:
        if address >= self._user_end:
            data = self._kernel_space.read(address, size)
            return self.pilot.hide(address, data) if self.pilot else data
        return self._user_space(tid).read(address, size)

    def _user_space(self, tid: int) -> AddressSpace:
        """The address space of the task, or of the process that was on the CPU."""
        task = self._task(tid)
        root = self._tasks.page_tables(task) if task else self.registers(tid).get("cr3", 0)
        root &= _CR3_ROOT
        if not root:
            return self._kernel_space
        space = self._user_spaces.get(root)
        if space is None:
            layout = self.kernel.layout
            tables = PageTables(
                self.kernel.memory, root, la57=layout.la57, encryption=layout.encryption
            )
            space = self._user_spaces[root] = self._space(tables)
        return space

    def read_physical(self, address: int, size: int) -> bytes:
        return self._kernel_space.read_physical(address, size)

    def regions(self) -> Sequence[tuple[int, int]]:
        """User half (also physical addresses), direct map of the RAM, the kernel's own areas."""
        direct = [(self.kernel.page_offset + pa, size) for pa, size in self.kernel.memory.ranges]
        highest = max(start + size for start, size in direct)
        return [(0, self._user_end), *_merge(direct), (highest, (1 << 64) - highest)]

    def forget_registers(self, tid: int) -> None:
        self._registers.pop(tid, None)

    def refresh(self) -> None:
        self.cpus.refresh()
        self._tasks.refresh()
        self._registers.clear()
        self._user_spaces.clear()
        self._kernel_space.invalidate()

    def change(self) -> Change | None:
        return self.cpus.change()

    def describe(self) -> Mapping[str, str]:
        kernel = self.kernel
        return {
            "vnode": f"{self.identity.number} ({printable(self.identity.name.encode())})",
            "kernel": printable(kernel.release.encode()),
            "banner": self._banner(),
            "state": self.liveness.value,
            "KASLR offset": f"{kernel.kaslr_offset:#x}",
            "physical base": f"{kernel.phys_base:#x}",
            "page tables": f"{kernel.root_pgt:#x} ({5 if kernel.la57 else 4} levels)",
            "build id": kernel.build_id or "unknown",
        }

    def tasks(self) -> tuple[Sequence[Task], str]:
        return self._tasks.all(), self._tasks.note

    def log(self) -> Iterable[LogRecord]:
        return self.kernel.log()

    def _banner(self) -> str:
        try:
            address = self.kernel.symbols.address("linux_banner")
            return c_string(self.kernel.read(address, 256).replace(b"\n", b"\0"))
        except (IntrospectError, AddressError, KeyError):
            return "unreadable"


def _comm(task: Task) -> str:
    return printable(task.comm.encode())


def _task(tid: int, task: Task) -> Thread:
    return Thread(tid, _comm(task), f"pid {task.pid} {task.state}", task.cpu)


def _merge(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, size in sorted(ranges):
        if merged and start <= merged[-1][0] + merged[-1][1]:
            first = merged[-1][0]
            merged[-1] = (first, max(merged[-1][1], start + size - first))
        else:
            merged.append((start, size))
    return merged
