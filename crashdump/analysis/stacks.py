# SPDX-License-Identifier: GPL-2.0-or-later
"""Panels of backtraces: the failed CPU's, every CPU's, and blocked tasks by equal stack."""

from __future__ import annotations

from collections.abc import Iterator

from crashdump.analysis.report import Block, Lines, Stack
from crashdump.analysis.subject import Subject
from introspect.errors import IntrospectError, NotFound
from introspect.stack import Backtrace, End, describe

MAX_PIDS = 12
FRAMES = 64  # shown of one stack


def stack(subject: Subject, heading: str, trace: Backtrace) -> Stack:
    """A backtrace as a block."""
    lines = describe(subject.kernel, trace)
    if len(lines) > FRAMES:
        middle = f"... {len(lines) - FRAMES} frames left out"
        lines = [*lines[: FRAMES // 2], middle, *lines[-FRAMES // 2 :]]
    frames = [line.removeprefix("? ") for line in lines] if trace.guess else lines
    end = "" if trace.whole else trace.reason or str(trace.end.value)
    return Stack(heading, tuple(frames), trace.guess, end)


def crashed(subject: Subject) -> Iterator[Block]:
    """The backtrace of the CPU that failed, before it that of a task that hung."""
    hung = subject.hung_task
    if hung is not None:
        heading = f"{hung.comm} ({hung.pid}), which hung"
        yield stack(subject, heading, subject.task_trace(hung))
    cpu, how = subject.crashed
    if cpu is None:
        yield Lines("", ("no CPU is known to have failed",))
        return
    yield _cpu(subject, cpu, f" ({how})")
    if subject.went_on and subject.fault_frame is None:
        yield Lines("", ("the kernel went on after the failure: this is what the CPU did last",))
    at = subject.fault_frame
    frames = subject.trace(cpu).frames
    if at and hung is None:
        place = subject.kernel.symbols.describe(frames[at].ip)
        yield Lines("", (f"the failure is in frame {at}: {place}",))


def _cpu(subject: Subject, cpu: int, remark: str = "") -> Stack:
    task = subject.current(cpu)
    who = f", {task.comm} ({task.pid})" if task is not None else ""
    trace = subject.trace(cpu)
    source = "" if cpu in subject.registers else ", from the log" if not trace.guess else ""
    if trace.user_registers and not trace.frames:
        return Stack(f"CPU {cpu}{who}{remark}: in user mode", ())
    return stack(subject, f"CPU {cpu}{who}{remark}{source}", trace)


def cpus(subject: Subject) -> Iterator[Block]:
    """The backtrace of every CPU."""
    if not subject.cpus:
        raise NotFound("no CPU is known: neither its mask nor registers can be read")
    for cpu in subject.cpus:
        yield _cpu(subject, cpu)


def blocked(subject: Subject) -> Iterator[Block]:
    """The tasks that wait, those with equal stacks together, the rarest stacks first."""
    groups: dict[tuple[str, ...], list[tuple[str, Backtrace]]] = {}
    for task in subject.blocked():
        try:
            trace = subject.task_trace(task)
        except IntrospectError as problem:
            groups.setdefault((str(problem),), []).append(
                (f"{task.comm} ({task.pid}) {task.state}", Backtrace((), End.LOST, str(problem)))
            )
            continue
        key = tuple(subject.function(frame.ip, frame.exact) for frame in trace.frames)
        groups.setdefault(key, []).append((f"{task.comm} ({task.pid}) {task.state}", trace))
    for members in sorted(groups.values(), key=len):
        names = [name for name, _ in members]
        more = f" and {len(names) - MAX_PIDS} more" if len(names) > MAX_PIDS else ""
        count = f"{len(names)} tasks: " if len(names) > 1 else ""
        yield stack(subject, f"{count}{', '.join(names[:MAX_PIDS])}{more}", members[0][1])
    if subject.tasks_note:
        yield Lines("", (subject.tasks_note,))
