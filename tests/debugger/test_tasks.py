# SPDX-License-Identifier: GPL-2.0-or-later
from collections.abc import Iterator

from debugger.tasks import TID_BASE, TaskList
from introspect.errors import Corrupt
from introspect.tasks import Task


def task(pid: int, *, running: bool = False, cpu: int = 0) -> Task:
    return Task(0x1000 * pid, pid, pid, 1, f"task{pid}", "S", cpu, running, False, 0, 0)


class ListKernel:
    """A kernel that is a list of tasks; each walk breaks where `breaks` says."""

    def __init__(self, tasks: list[Task], breaks: list[int], *, live: bool = True) -> None:
        self.live = live
        self.walks = 0
        self._tasks = tasks
        self._breaks = breaks

    def tasks(self) -> Iterator[Task]:
        at = self._breaks[self.walks] if self.walks < len(self._breaks) else None
        self.walks += 1
        yield from self._tasks[:at]
        if at is not None:
            raise Corrupt("a list's next entry does not point back", 0x1234)


TASKS = [task(0, running=True), task(1), task(9, running=True, cpu=1), task(4), task(4)]


def listing(kernel: ListKernel, limit: int = 100) -> TaskList:
    return TaskList(kernel, limit)  # type: ignore[arg-type]


def test_the_list_is_read_once_a_stop() -> None:
    kernel = ListKernel(TASKS, [])
    tasks = listing(kernel)
    assert list(tasks.blocked()) == [TID_BASE + 1, TID_BASE + 4]
    assert {cpu: found.pid for cpu, found in tasks.running().items()} == {0: 0, 1: 9}
    found = tasks.find(TID_BASE + 4)
    assert found is not None and found.pid == 4
    assert tasks.find(TID_BASE + 9) is None  # it is its CPU's
    assert tasks.find(TID_BASE + 77) is None
    assert (kernel.walks, tasks.note) == (1, "")
    tasks.refresh()
    tasks.all()
    assert kernel.walks == 2


def test_a_torn_walk_is_made_again() -> None:
    kernel = ListKernel(TASKS, [2])
    tasks = listing(kernel)
    assert len(tasks.all()) == len(TASKS)
    assert (kernel.walks, tasks.note) == (2, "")


def test_a_list_that_stays_broken_is_kept_as_far_as_it_goes() -> None:
    tasks = listing(ListKernel(TASKS, [1, 3, 2]))
    assert len(tasks.all()) == 3
    assert "broken after" in tasks.note


def test_dead_memory_is_read_once() -> None:
    kernel = ListKernel(TASKS, [3] * 9, live=False)
    assert len(listing(kernel).all()) == 3
    assert kernel.walks == 1


def test_the_number_of_tasks_is_bounded() -> None:
    tasks = listing(ListKernel(TASKS, []), limit=2)
    assert len(tasks.all()) == 2
    assert tasks.note == "only the first 2 tasks are listed"
