# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: every thread of every process, from init_task onwards.

Source: include/linux/sched.h, fs/proc/array.c (6.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from introspect.btf import Type
from introspect.errors import Corrupt, IntrospectError, MemoryFault
from introspect.lists import walk

if TYPE_CHECKING:
    from introspect.kernel import Kernel

MAX_TASKS = 1 << 22  # PID_MAX_LIMIT
UNINTERRUPTIBLE, NOLOAD, REPORTED = 0x2, 0x400, 0x7F
RTLOCK_WAIT, FROZEN = 0x1000, 0x8000  # shown as D; no state bits of older kernels
STATES = "RSDTtXZP"
PF_KTHREAD = 0x00200000


@dataclass(frozen=True, slots=True)
class Task:
    """One thread.

    comm      raw: any process may have set it; printk.printable() makes it fit for a terminal
    state     one letter, as ps has it: R S D T t X Z P I
    cpu       where it runs or last ran
    running   it is the current task of that CPU
    stack     lowest address of its kernel stack
    sp        saved stack pointer, meaningful unless it is running
    """

    address: int
    pid: int
    tgid: int
    ppid: int
    comm: str
    state: str
    cpu: int
    running: bool
    kthread: bool
    stack: int
    sp: int

    @property
    def leader(self) -> bool:
        return self.pid == self.tgid


Field = tuple[int, int]  # offset and size of a number, bytes


class _Fields:
    """Places within struct task_struct, looked up once a walk.

    Sizes are BTF's: on_cpu was an int, then a u8.
    """

    def __init__(self, kind: Type) -> None:
        def number(name: str) -> Field:
            place = kind.member(name)
            return place.offset, min(place.type.size, 8)

        at = kind.offset
        self.pid, self.tgid, self.comm = at("pid"), at("tgid"), at("comm")
        self.comm_size = min(kind.member("comm").type.size, 64)
        self.parent, self.flags = at("real_parent"), at("flags")
        self.stack, self.sp = at("stack"), at("thread.sp")
        # since 5.14 (2f064a59a11f) __state, an int; a long before
        self.state = number("__state" if kind.has("__state") else "state")
        self.exit_state, self.on_cpu = number("exit_state"), number("on_cpu")
        # since 5.16 (bcf9033e5449) in thread_info
        self.cpu = number("cpu" if kind.has("cpu") else "thread_info.cpu")


def read_tasks(kernel: Kernel) -> Iterator[Task]:
    """Every thread: swapper first, then processes in the order they were made.

    Corrupt when the list is broken on the way; what was yielded before is good.
    """
    kind = kernel.btf.struct("task_struct")
    fields = _Fields(kind)
    init = kernel.symbols.table.address("init_task")
    in_list, node = kind.offset("tasks"), kind.offset("thread_node")
    signal = kind.offset("signal")
    threads = kernel.btf.struct("signal_struct").offset("thread_head")
    seen: set[int] = set()
    for leader in _leaders(kernel, init, in_list):
        head = kernel.u64(leader + signal) + threads
        for thread in walk(kernel, head, MAX_TASKS):
            address = thread - node
            if address in seen:
                raise Corrupt("a task is in two thread lists", address)
            seen.add(address)
            yield read_task(kernel, address, fields)


def _leaders(kernel: Kernel, init: int, in_list: int) -> Iterator[int]:
    yield init
    for node in walk(kernel, init + in_list, MAX_TASKS):
        yield node - in_list


def read_task(kernel: Kernel, address: int, fields: _Fields | None = None) -> Task:
    """The struct task_struct at `address`; MemoryFault when it is not there."""
    f = fields or _Fields(kernel.btf.struct("task_struct"))
    u32, u64 = kernel.u32, kernel.u64

    def number(field: Field) -> int:
        return int.from_bytes(kernel.read(address + field[0], field[1]), "little")

    comm = kernel.read(address + f.comm, f.comm_size).split(b"\0", 1)[0]
    try:
        ppid = u32(u64(address + f.parent) + f.tgid)
    except MemoryFault:
        ppid = 0
    return Task(
        address=address,
        pid=u32(address + f.pid),
        tgid=u32(address + f.tgid),
        ppid=ppid,
        comm=comm.decode("utf-8", "replace"),
        state=state_letter(number(f.state), number(f.exit_state)),
        cpu=number(f.cpu),
        running=bool(number(f.on_cpu)),
        kthread=bool(u32(address + f.flags) & PF_KTHREAD),
        stack=u64(address + f.stack),
        sp=u64(address + f.sp),
    )


def off_cpu(kernel: Kernel, task: Task) -> float | None:
    """Seconds since the task last got a CPU; None when the kernel does not keep it."""
    try:
        at = kernel.btf.struct("task_struct").offset("sched_info.last_arrival")
        arrived = kernel.u64(task.address + at)
        clock = kernel.per_cpu("runqueues", task.cpu, "struct rq").member_("clock").value_()
    except IntrospectError:  # CONFIG_SCHED_INFO is not set
        return None
    return (clock - arrived) / 1e9 if 0 < arrived <= clock else None


def state_letter(state: int, exit_state: int) -> str:
    """task_state_to_char() and __task_state_index() of include/linux/sched.h."""
    if state & (UNINTERRUPTIBLE | NOLOAD) == UNINTERRUPTIBLE | NOLOAD:
        return "I"
    if state & (RTLOCK_WAIT | FROZEN):
        return "D"
    return STATES[min(((state | exit_state) & REPORTED).bit_length(), len(STATES) - 1)]
