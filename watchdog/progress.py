# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel without an agent should have got done, read from its memory.

Jiffies tell that it lives.  Here: does each CPU switch tasks, does RCU's grace period end, does a
task sleep uninterruptibly for too long.  The kernel's own detectors look at the same
(kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/hung_task.c of Linux 6.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adeos.abi import VN_MAX_CPUS
from introspect import rcu
from introspect.errors import IntrospectError
from introspect.printk import printable
from introspect.tasks import off_cpu

if TYPE_CHECKING:
    from introspect.kernel import Kernel

RCU = -1
"""In place of a CPU."""


class Progress:
    """Readings of one kernel, some seconds apart; `late` blocks for a task walk.

    `stall`: seconds that a CPU may go without a switch though tasks want it, and that a grace
    period may take; `hung`: that a task may sleep uninterruptibly; 0 = not looked at.
    """

    def __init__(self, kernel: Kernel, stall: float, hung: float) -> None:
        self._kernel = kernel
        self._stall = stall
        self._hung = hung
        self._moved: dict[int, tuple[int, float]] = {}

    def late(self, now: float) -> str:
        """What gets nothing done, as words, at `now` seconds of a steady clock; "" = all does.

        What cannot be read while the kernel runs is taken to be well.
        """
        found = []
        for look in (self._runqueues, self._rcu, self._tasks):
            try:
                found.append(look(now))
            except IntrospectError:
                continue
        return ", ".join(filter(None, found))

    def _stuck(self, what: int, value: int, idle: bool, now: float) -> bool:
        """Whether a number that should move has stood still for too long."""
        before = self._moved.get(what)
        if idle or before is None or before[0] != value:
            self._moved[what] = (value, now)
            return False
        return now - before[1] > self._stall

    def _runqueues(self, now: float) -> str:
        """The kernel's own watchdog makes every CPU switch each 4 s, so 20 s are a soft lockup."""
        stuck = []
        for cpu in self._kernel.cpus()[:VN_MAX_CPUS] if self._stall else ():
            rq = self._kernel.per_cpu("runqueues", cpu, "struct rq")
            idle = not rq.member_("nr_running").value_()
            if self._stuck(cpu, rq.member_("nr_switches").value_(), idle, now):
                stuck.append(str(cpu))
        return f"CPU {','.join(stuck)} stuck" if stuck else ""

    def _rcu(self, now: float) -> str:
        if not self._stall:
            return ""
        number, running = rcu.sequence(self._kernel)
        stalled = self._stuck(RCU, number, not running, now)
        return "RCU stall" if stalled else ""

    def _tasks(self, now: float) -> str:
        if not self._hung:
            return ""
        for task in self._kernel.tasks():
            if task.state == "D" and (off_cpu(self._kernel, task) or 0) > self._hung:
                return f"hung task {printable(task.comm)}"
        return ""
