# SPDX-License-Identifier: GPL-2.0-or-later
"""Panels on what the kernel should have got done: runqueues, RCU's grace period, timers."""

from __future__ import annotations

from collections.abc import Iterator

from crashdump.analysis.report import Block, Facts, Lines, Table
from crashdump.analysis.subject import Subject
from introspect import percpu
from introspect import rcu as grace
from introspect.errors import IntrospectError, NotFound
from introspect.kernel import Kernel
from introspect.object import Object

MAX_CPUS = 256
LATE = 2  # ticks behind which a timer base is called late


def runqueues(subject: Subject) -> Iterator[Block]:
    """Each CPU's current task, how many want to run, and which."""
    rows = []
    for cpu in subject.cpus[:MAX_CPUS]:
        rq = subject.kernel.per_cpu("runqueues", cpu, "struct rq")
        current = subject.current(cpu)
        waiting = [t for t in subject.tasks if t.state == "R" and t.cpu == cpu and t.pid]
        queued = ", ".join(f"{t.comm} ({t.pid})" for t in waiting if not t.running)
        rows.append(
            (
                str(cpu),
                f"{current.comm} ({current.pid})" if current is not None else "?",
                str(rq.member_("nr_running").value_()),
                f"{rq.member_('clock').value_() / 1e9:.3f} s",
                queued,
            )
        )
    if not rows:
        raise NotFound("no CPU is known: neither its mask nor registers can be read")
    yield Table("", ("cpu", "current", "running", "clock", "waiting to run"), tuple(rows))


def rcu(subject: Subject) -> Iterator[Block]:
    """The grace period in progress and the CPUs that hold it up."""
    kernel = subject.kernel
    state = grace.state(kernel)
    sequence, running = grace.sequence(kernel)
    number = (sequence - (1 << 64) if sequence >> 63 else sequence) >> 2  # it starts below 0
    rows = [("grace period", f"{number}, {'in progress' if running else 'none waits'}")]
    if running:
        age = jiffies(kernel) - state.member_("gp_start").value_()
        rows.append(("age", f"{age} jiffies"))
        left = state.member_("jiffies_stall").value_() - jiffies(kernel)
        rows.append(("stall warning", f"in {left} jiffies" if left > 0 else f"{-left} jiffies ago"))
    yield Facts("", tuple(rows))
    late = [str(cpu) for cpu in subject.cpus[:MAX_CPUS] if running and _holds_up(kernel, cpu)]
    if late:
        yield Lines("", (f"no quiescent state from CPU {', '.join(late)}",))


def _holds_up(kernel: Kernel, cpu: int) -> bool:
    """Whether this CPU's bit is still set in its leaf of the tree (struct rcu_node)."""
    data = kernel.per_cpu("rcu_data", cpu, "struct rcu_data")
    leaf = data.member_("mynode")
    return bool(leaf.member_("qsmask").value_() & data.member_("grpmask").value_())


def jiffies(kernel: Kernel) -> int:
    return kernel.object("jiffies_64").value_()


def timers(subject: Subject) -> Iterator[Block]:
    """Each CPU's timer wheels: how far behind they are, the next expiry."""
    kernel = subject.kernel
    now = jiffies(kernel)
    rows = []
    for cpu in subject.cpus[:MAX_CPUS]:
        for base in _bases(kernel, cpu):
            pending = _optional(base, "timers_pending")
            if pending == 0 or not base.member_("clk").value_():
                continue
            expiry = base.member_("next_expiry").value_() - now
            running = base.member_("running_timer").value_()
            function = ""
            if running:
                timer = base.member_("running_timer").deref_()
                function = kernel.symbols.describe(timer.member_("function").value_())
            late = f"{-expiry} jiffies late" if expiry < -LATE else ""
            rows.append((str(cpu), f"{expiry:+d}", late, function))
    yield Facts("", (("jiffies", f"{now:#x}"),))
    if rows:
        yield Table("", ("cpu", "next expiry", "", "running"), tuple(rows))


def _bases(kernel: Kernel, cpu: int) -> Iterator[Object]:
    """struct timer_base timer_bases[NR_BASES] of a CPU."""
    try:
        yield from kernel.per_cpu("timer_bases", cpu)
    except NotFound:  # BTF without variables: those two that every kernel with NO_HZ has
        size = kernel.btf.struct("timer_base").size
        at = percpu.address(kernel, "timer_bases", cpu)
        yield from (kernel.object_at("struct timer_base", at + index * size) for index in (0, 1))


def _optional(obj: Object, name: str) -> int | None:
    try:
        return obj.member_(name).value_()
    except NotFound:  # timers_pending: not in every kernel
        return None


def on_cpus(subject: Subject) -> Iterator[Block]:
    """All three, each on its own: what one cannot read does not cost the others."""
    for part in (rcu, timers):
        try:
            yield from part(subject)
        except IntrospectError as problem:
            yield Lines("", (f"{part.__name__}: {problem}",))
