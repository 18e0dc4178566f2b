# SPDX-License-Identifier: GPL-2.0-or-later
"""Which sleeping lock a task waits for, who owns it, and rings of such waits.

Newer kernels say it in the task (blocked_on, blocker), PREEMPT_RT says it in pi_blocked_on.
Others keep no pointer from a task to the mutex it waits for; but the waiter's record lies on its
stack and is linked to the lock.  It is found by the task's own address in it and believed when the
list it is on is sound and leads to a lock whose owner is a task.  Sources: kernel/locking/mutex.h,
rwsem.c, rtmutex_common.h (6.1), include/linux/hung_task.h (7.2).

Limits: spinlocks (but PREEMPT_RT's) and completions have no owner, semaphores a last holder at
most.  On PREEMPT_RT who reads an rwsem is not known: a writer that waits for readers owns it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from crashdump.analysis.report import Block, Lines, Table
from crashdump.analysis.subject import Subject
from crashdump.analysis.title import culprit
from introspect.disasm import CALL_SIZE, called
from introspect.errors import IntrospectError, NotFound
from introspect.lists import walk
from introspect.stack import stack_size
from introspect.tasks import Task

MAX_WAITERS = 4096
FLAGS = 7  # low bits of an owner word
READER_OWNED = 1  # RWSEM_READER_OWNED: the owner is one of several readers, a hint only
MAX_RING = 64


class LockKind(NamedTuple):
    """A lock's struct and that of its waiters; `functions`: name prefixes of who waits."""

    name: str
    lock: str
    waiter: str
    functions: tuple[str, ...]


# Found by the waiter's record on the stack (5.10 to 6.12 read)
KINDS = (
    LockKind("mutex", "mutex", "mutex_waiter", ("__mutex_lock", "__ww_mutex_lock", "mutex_lock")),
    LockKind("rwsem", "rw_semaphore", "rwsem_waiter", ("rwsem_down_", "down_read", "down_write")),
)


class RtKind(NamedTuple):
    """A lock built on an rt_mutex: `path` leads from it to that; `functions` as above."""

    name: str
    lock: str
    path: str
    functions: tuple[str, ...]


# The first whose functions are on the stack: spinlocks and rwlocks share the others' inner ones.
# An rwlock's waiter is a spinlock's inside, down_read() and down_write() may be inlined.
RT_KINDS = (
    RtKind("rwlock", "rwbase_rt", "rtmutex", ("rt_read_lock", "rt_write_lock")),
    RtKind("spinlock", "spinlock", "lock", ("rt_spin_lock", "rtlock_slowlock")),
    RtKind("rwsem", "rw_semaphore", "rwbase.rtmutex",
           ("down_read", "down_write", "__rwbase_", "rwbase_")),
    RtKind("mutex", "mutex", "rtmutex", KINDS[0].functions),
)  # fmt: skip
BLOCKERS = ("mutex", "semaphore", "rwsem", "rwsem")  # by BLOCKER_TYPE_MASK of task.blocker
BLOCKER_TYPE = 3


@dataclass
class Lock:
    """A lock that somebody waits for; `readers`: several may hold it, `owner` was one of them."""

    address: int
    kind: str
    owner: Task | None
    readers: bool = False
    waiters: list[Task] = field(default_factory=list)


def find_locks(subject: Subject) -> list[Lock]:
    """The locks that blocked tasks wait for, in the order of their first waiters."""
    found: dict[int, Lock] = {}
    for task in subject.blocked():
        try:
            lock = _waited_for(subject, task)
        except IntrospectError:
            continue
        if lock is not None:
            found.setdefault(lock.address, lock).waiters.append(task)
    return list(found.values())


def _waited_for(subject: Subject, task: Task) -> Lock | None:
    lock = _rt_lock(subject, task) or _recorded(subject, task)
    if lock is not None or task.state in "TtXZPI":
        return lock
    for name in _functions(subject, task):
        for kind in KINDS:
            if name.startswith(kind.functions):
                return _on_stack(subject, task, kind)
    return None


def _functions(subject: Subject, task: Task) -> list[str]:
    """The innermost functions of a task's stack."""
    frames = subject.task_trace(task).frames[:8]
    return [subject.function(frame.ip, frame.exact) for frame in frames]


def _called(subject: Subject, task: Task) -> list[str]:
    """The innermost functions of a task's stack, and those called by a plain call instruction.

    The latter may have jumped on: 6.12's mutex_lock() leaves no frame behind.
    """
    names: list[str] = []
    for frame in subject.task_trace(task).frames[:12]:
        names.append(subject.function(frame.ip, frame.exact))
        try:
            code = subject.kernel.read(frame.ip - CALL_SIZE, CALL_SIZE)
        except IntrospectError:
            continue
        target = called(code, frame.ip)
        if target is not None and not frame.exact:
            names.append(subject.function(target, True))
    return names


def _recorded(subject: Subject, task: Task) -> Lock | None:
    """The lock that the task itself names, where the kernel keeps that (seen in 7.2)."""
    kernel = subject.kernel
    kind = kernel.btf.struct("task_struct")
    # CONFIG_DEBUG_MUTEXES had a blocked_on before, of another type
    if kind.has("blocked_on") and kind.member("blocked_on").type.spelling == "struct mutex *":
        address = kernel.u64(task.address + kind.offset("blocked_on"))
        if address:
            return _owned(subject, address, "mutex")
    if kind.has("blocker"):  # CONFIG_DETECT_HUNG_TASK_BLOCKER
        word = kernel.u64(task.address + kind.offset("blocker"))
        if word:
            return _owned(subject, word & ~BLOCKER_TYPE, BLOCKERS[word & BLOCKER_TYPE])
    return None


def _owned(subject: Subject, address: int, kind: str) -> Lock:
    """The lock at `address` with its owner."""
    kernel = subject.kernel
    if kind == "semaphore":
        semaphore = kernel.btf.struct("semaphore")
        if not semaphore.has("last_holder"):
            return Lock(address, kind, None)
        holder = kernel.u64(address + semaphore.offset("last_holder"))
        return Lock(address, kind, subject.by_address.get(holder))
    lock = kernel.btf.struct("mutex" if kind == "mutex" else "rw_semaphore")
    word = kernel.u64(address + lock.offset("owner"))
    readers = kind == "rwsem" and bool(word & READER_OWNED)
    return Lock(address, kind, subject.by_address.get(word & ~FLAGS), readers)


def _on_stack(subject: Subject, task: Task, kind: LockKind) -> Lock | None:
    """The lock whose waiter record lies on the task's stack."""
    kernel = subject.kernel
    try:
        waiter, lock = kernel.btf.struct(kind.waiter), kernel.btf.struct(kind.lock)
        to_list = waiter.offset("list") - waiter.offset("task")
        wait_list = lock.offset("wait_list")
    except NotFound:
        return None  # PREEMPT_RT, or a kernel that keeps no list of waiters: see above
    size = stack_size(kernel)
    stacks = {other.stack // size for other in subject.tasks}
    start = max(task.sp, task.stack)
    words = memoryview(kernel.read(start & -8, task.stack + size - (start & -8))).cast("Q")
    for index, word in enumerate(words):
        if word != task.address:
            continue
        node = (start & -8) + 8 * index + to_list
        try:
            heads = [n for n in walk(kernel, node, MAX_WAITERS) if n // size not in stacks]
            if len(heads) != 1:
                continue
            found = _owned(subject, heads[0] - wait_list, kind.name)
            word = kernel.u64(found.address + lock.offset("owner"))
        except IntrospectError:
            continue
        if found.owner is not None or not word & ~FLAGS:
            return found
    return None


def _rt_lock(subject: Subject, task: Task) -> Lock | None:
    """On PREEMPT_RT, and for futexes with priority inheritance: task.pi_blocked_on."""
    kernel = subject.kernel
    kind = kernel.btf.struct("task_struct")
    if not kind.has("pi_blocked_on"):
        return None
    waiter = kernel.u64(task.address + kind.offset("pi_blocked_on"))
    if not waiter:
        return None
    lock = kernel.u64(waiter + kernel.btf.struct("rt_mutex_waiter").offset("lock"))
    try:
        base = kernel.btf.struct("rt_mutex_base")  # since 5.15 (830e6acc8a1c)
    except NotFound:
        base = kernel.btf.struct("rt_mutex")
    owner = subject.by_address.get(kernel.u64(lock + base.offset("owner")) & ~1)
    names = _called(subject, task)
    for one in RT_KINDS:
        if any(name.startswith(one.functions) for name in names):
            try:
                return Lock(lock - kernel.btf.struct(one.lock).offset(one.path), one.name, owner)
            except NotFound:
                break  # not PREEMPT_RT: a futex
    return Lock(lock, "rt_mutex", owner)


def rings(locks: Iterable[Lock]) -> list[list[tuple[Task, Lock]]]:
    """Deadlocks: (task, lock it waits for) whose owner is the next one's task, around."""
    waits: Mapping[int, tuple[Task, Lock]] = {
        waiter.address: (waiter, lock) for lock in locks for waiter in lock.waiters
    }
    found: list[list[tuple[Task, Lock]]] = []
    seen: set[int] = set()
    for start in waits:
        path: list[int] = []
        at = start
        while at in waits and at not in seen and len(path) < MAX_WAITERS:
            seen.add(at)
            path.append(at)
            owner = waits[at][1].owner
            at = owner.address if owner is not None else 0
        if at in path and len(path) - path.index(at) <= MAX_RING:
            found.append([waits[one] for one in path[path.index(at) :]])
    return found


def name_of(subject: Subject, lock: Lock) -> str:
    """A global lock's symbol, else its address."""
    try:
        symbol = subject.kernel.symbols.find(lock.address)
    except IntrospectError:
        return f"{lock.address:#x}"
    offset = lock.address - symbol.address
    if offset >= (symbol.size or 4096):
        return f"{lock.address:#x}"
    module = f" [{symbol.module}]" if symbol.module else ""
    return f"{symbol.name}{f'+{offset:#x}' if offset else ''}{module}"


def who(task: Task | None) -> str:
    return f"{task.comm} ({task.pid})" if task is not None else "-"


def place(subject: Subject, task: Task) -> str:
    """The function that a task waits in, the kernel's own waiting functions left out."""
    try:
        frames = subject.task_trace(task).frames[:24]
    except IntrospectError:
        return ""
    return culprit([subject.function(frame.ip, frame.exact) for frame in frames])


def _readable(subject: Subject) -> bool:
    """Whether waiters can be found: from lists of them, or from what tasks record."""
    btf = subject.kernel.btf
    task = btf.struct("task_struct")
    return not btf.struct("mutex").has("first_waiter") or task.has("blocked_on")


def panel(subject: Subject) -> Iterator[Block]:
    """The locks somebody waits for, their owners, and deadlocks."""
    locks = find_locks(subject)
    if not locks and not _readable(subject):
        raise NotFound("this kernel records nowhere what a task waits for")
    for ring in rings(locks):
        lines = [
            f"{who(task)} waits in {place(subject, task)} for {lock.kind} {name_of(subject, lock)},"
            f" which {who(lock.owner)} owns"
            for task, lock in ring
        ]
        yield Lines(f"Deadlock of {len(ring)} tasks", tuple(lines))
    rows = []
    for lock in locks:
        owner = who(lock.owner) + (" and other readers" if lock.readers else "")
        where = ""
        if lock.owner is not None and not lock.owner.running:
            where = place(subject, lock.owner)
        waiters = ", ".join(f"{who(one)} in {place(subject, one)}" for one in lock.waiters[:8])
        more = f" and {len(lock.waiters) - 8} more" if len(lock.waiters) > 8 else ""
        rows.append((name_of(subject, lock), lock.kind, owner, where, waiters + more))
    if rows:
        yield Table("", ("lock", "kind", "owner", "owner is in", "waiters"), tuple(rows))
    else:
        yield Lines("", ("no task waits for a mutex or rwsem",))
