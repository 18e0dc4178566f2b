# SPDX-License-Identifier: GPL-2.0-or-later
"""Panels on tasks: those in uninterruptible sleep and what they wait for, and all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from crashdump.analysis import locks
from crashdump.analysis.report import Block, Facts, Lines, Table
from crashdump.analysis.subject import Subject
from introspect.tasks import off_cpu


def hung(subject: Subject) -> Iterator[Block]:
    """Tasks in state D, the longest wait first."""
    sleepers = [task for task in subject.blocked() if task.state == "D"]
    if not sleepers:
        yield Lines("", ("no task is in uninterruptible sleep",))
        return
    owners = {waiter.address: lock for lock in locks.find_locks(subject) for waiter in lock.waiters}
    rows = []
    for task in sleepers:
        lock = owners.get(task.address)
        what = ""
        if lock is not None:
            name = locks.name_of(subject, lock)
            what = f"{lock.kind} {name}, owned by {locks.who(lock.owner)}"
        since = off_cpu(subject.kernel, task)
        rows.append((since or 0.0, (str(task.pid), task.comm, _seconds(since),
                                    locks.place(subject, task), what)))  # fmt: skip
    rows.sort(key=lambda row: -row[0])
    columns = ("pid", "comm", "off CPU", "waits in", "waits for")
    yield Table("", columns, tuple(row for _, row in rows))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def tasks(subject: Subject) -> Iterator[Block]:
    """How many tasks in which state, and the list."""
    found = subject.tasks
    states = Counter(task.state for task in found)
    summary = ", ".join(f"{count} {state}" for state, count in states.most_common())
    yield Facts("", (("tasks", f"{len(found)}: {summary}"),))
    if subject.tasks_note:
        yield Lines("", (subject.tasks_note,))
    rows = tuple(
        (str(t.pid), str(t.ppid), t.state, str(t.cpu), "yes" if t.running else "", t.comm,
         f"{t.address:#x}")
        for t in found
    )  # fmt: skip
    yield Table("", ("pid", "ppid", "state", "cpu", "running", "comm", "task_struct"), rows)
