# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks of PREEMPT_RT and of kernels whose tasks say what they wait for.

Real ones of 6.1, 6.12 and 7.2 are read by bench/faults.py, a mutex's list of waiters by
test_analysis.
"""

import struct

import pytest

from crashdump.analysis import locks
from crashdump.analysis.locks import Lock
from crashdump.analysis.report import Lines
from crashdump.analysis.subject import Subject
from introspect.btf import Btf
from introspect.errors import NotFound
from tests.introspect import flatkernel
from tests.introspect.btfwriter import BtfWriter
from tests.introspect.flatkernel import INIT_TASK, SECOND, TEXT

PI_BLOCKED_ON, BLOCKED_ON, BLOCKER = 112, 120, 128
WAITER, LOCK = 0x900, 0x920  # LOCK: two words, then an owner at 16 and another at 24


def recorded(w: BtfWriter, u64: int) -> dict[str, tuple[int, int]]:
    """7.2: a mutex and an rwsem know their first waiter only."""
    mutex = w.struct("mutex", 32, [("owner", u64, 128), ("first_waiter", u64, 64)])
    w.struct("rw_semaphore", 32, [("owner", u64, 128), ("first_waiter", u64, 64)])
    w.struct("semaphore", 32, [("last_holder", u64, 192)])
    return {"blocked_on": (BLOCKED_ON, w.pointer(mutex)), "blocker": (BLOCKER, u64)}


def realtime(w: BtfWriter, u64: int) -> dict[str, tuple[int, int]]:
    base = w.struct("rt_mutex_base", 24, [("owner", u64, 64)])
    w.struct("rt_mutex_waiter", 16, [("lock", u64, 64)])
    w.struct("mutex", 24, [("rtmutex", base, 0)])
    rwbase = w.struct("rwbase_rt", 32, [("readers", u64, 0), ("rtmutex", base, 64)])
    w.struct("rw_semaphore", 32, [("rwbase", rwbase, 0)])
    w.struct("spinlock", 24, [("lock", base, 0)])
    return {"pi_blocked_on": (PI_BLOCKED_ON, u64)}


RECORDED, REALTIME = flatkernel.types(recorded), flatkernel.types(realtime)


def blocked(btf: Btf, member: int, value: int, function: str = "last") -> Subject:
    """The second task waits, in `function`, for what its `member` says."""
    memory = flatkernel.memory()
    struct.pack_into("<Q", memory, SECOND + member, value)
    memory += bytes(LOCK + 32 - len(memory))
    struct.pack_into("<QQ", memory, WAITER, 0, LOCK + 8)
    struct.pack_into("<QQ", memory, LOCK + 16, INIT_TASK | 1, INIT_TASK)
    return Subject(flatkernel.kernel(memory, btf, flatkernel.symbols(last=function)), {})


def only(subject: Subject) -> Lock:
    (lock,) = locks.find_locks(subject)
    assert [task.address for task in lock.waiters] == [SECOND]
    assert lock.owner is not None and lock.owner.address == INIT_TASK
    return lock


@pytest.mark.parametrize(
    ("member", "value", "kind", "readers"),
    [
        (BLOCKED_ON, LOCK, "mutex", False),
        (BLOCKER, LOCK, "mutex", False),
        (BLOCKER, LOCK | 1, "semaphore", False),
        (BLOCKER, LOCK | 2, "rwsem", True),
        (BLOCKER, LOCK | 3, "rwsem", True),
    ],
)
def test_a_task_names_the_lock_it_waits_for(
    member: int, value: int, kind: str, readers: bool
) -> None:
    lock = only(blocked(RECORDED, member, value))
    assert (lock.address, lock.kind, lock.readers) == (LOCK, kind, readers)


@pytest.mark.parametrize(
    ("function", "kind", "before"),
    [
        ("mutex_lock", "mutex", 0),
        ("__rwbase_read_lock", "rwsem", 8),
        ("down_write", "rwsem", 8),
        ("rt_spin_lock", "spinlock", 0),
        ("rtlock_slowlock_locked", "spinlock", 0),
        ("rt_read_lock", "rwlock", 8),
        ("futex_lock_pi", "rt_mutex", 0),
    ],
)
def test_the_lock_around_an_rt_mutex(function: str, kind: str, before: int) -> None:
    lock = only(blocked(REALTIME, PI_BLOCKED_ON, WAITER, function))
    assert (lock.address, lock.kind) == (LOCK + 8 - before, kind)


def test_a_function_that_jumped_on_is_known_by_its_call() -> None:
    subject = blocked(REALTIME, PI_BLOCKED_ON, WAITER, "rt_mutex_slowlock")
    memory = bytearray(subject.kernel.read(0, flatkernel.SIZE).ljust(TEXT + 0x400, b"\0"))
    returns, tail = TEXT + 0x110, TEXT + 0x300
    struct.pack_into("<Bi", memory, returns - 5, 0xE8, tail - returns)
    table = flatkernel.symbols(last="rt_mutex_slowlock", tail="mutex_lock")
    lock = only(Subject(flatkernel.kernel(memory, REALTIME, table), {}))
    assert (lock.address, lock.kind) == (LOCK + 8, "mutex")


def test_a_wild_pointer_is_no_lock() -> None:
    for btf, member in ((RECORDED, BLOCKED_ON), (RECORDED, BLOCKER), (REALTIME, PI_BLOCKED_ON)):
        assert locks.find_locks(blocked(btf, member, (1 << 63) + 8)) == []


def test_a_kernel_that_records_nothing_is_said_to() -> None:
    def nothing(w: BtfWriter, u64: int) -> dict[str, tuple[int, int]]:
        w.struct("mutex", 32, [("owner", u64, 128), ("first_waiter", u64, 64)])
        return {}

    with pytest.raises(NotFound, match="records nowhere"):
        list(locks.panel(blocked(flatkernel.types(nothing), BLOCKED_ON, 0)))
    (said,) = locks.panel(blocked(RECORDED, BLOCKED_ON, 0))
    assert isinstance(said, Lines) and said.lines == ("no task waits for a mutex or rwsem",)
