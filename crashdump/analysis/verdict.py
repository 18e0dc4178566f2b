# SPDX-License-Identifier: GPL-2.0-or-later
"""The title of a failure, its culprit, and on what both rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from crashdump.analysis.oops import Event, Kind, Line, decisive, find_events
from crashdump.analysis.subject import EFLAGS_IF, Subject
from crashdump.analysis.title import normalise
from introspect.errors import IntrospectError
from introspect.registers import is_user

HANGS = frozenset({"hang", "softlockup", "irqhang", "boot"})
FRESH_NS = 60 * 10**9  # an event this long before the end of the log still explains a hang
NOTHING = "no failure found"


class Verdict(NamedTuple):
    """See report.Report."""

    title: str
    culprit: str
    module: str
    guess: bool
    basis: str


def judge(subject: Subject) -> Verdict:
    """The verdict on a kernel in memory; it never fails for what is in there."""
    event = subject.event
    if event is not None and not _explains(event, subject):
        event = None
    found = _by_log(subject, event) if event is not None else _by_cpus(subject)
    return found._replace(module=_module(subject, found.culprit))


def judge_log(lines: list[Line], message: str) -> Verdict:
    """The verdict when there is nothing but a log, or the incident's message alone."""
    event = decisive(find_events(lines))
    if event is not None:
        module = event.rip.module if event.rip and event.rip.function == event.culprit else ""
        return Verdict(event.title, event.culprit, module, False, "saved log")
    if message:
        return Verdict(normalise(message), "", "", True, "crash message")
    return Verdict(NOTHING, "", "", True, "")


def _explains(event: Event, subject: Subject) -> bool:
    """Whether the event is what ended this kernel, and no older story."""
    if subject.reason in HANGS:
        late = subject.log[-1].ts_ns - event.ts_ns <= FRESH_NS
        return event.kind >= Kind.STALL and late
    return event.kind >= Kind.STALL or subject.stuck is None


def _by_log(subject: Subject, event: Event) -> Verdict:
    logged = event.culprit
    function = logged
    if event.kind is Kind.PANIC or not logged:
        function = _quiet_culprit(subject) or logged
    basis = "log" if function == logged else "log and stack"
    return Verdict(event.title_with(function), function, "", False, basis)


def _by_cpus(subject: Subject) -> Verdict:
    """Of a kernel that said nothing: where its CPUs are."""
    evidence = subject.evidence
    message = evidence.message if evidence is not None else ""
    if message and subject.reason not in HANGS:
        culprit = _quiet_culprit(subject)
        return Verdict(normalise(message), culprit, "", False, "crash message")
    cpu = _suspect(subject)
    if cpu is None:
        if subject.reason in HANGS:
            return Verdict("hang, no CPU found at work", "", "", True, "guess: registers")
        return Verdict(NOTHING, "", "", subject.evidence is None, "log and registers")
    off = not _registers(subject, cpu)["flags"] & EFLAGS_IF
    culprit = _quiet_culprit(subject) if subject.crashed[0] == cpu else _innermost(subject, cpu)
    title = f"hang in {culprit}" if culprit else "hang"
    if off:
        title += " (interrupts off)"
    basis = "registers" if subject.reason in HANGS else "guess: registers"
    return Verdict(normalise(title), culprit, "", subject.reason not in HANGS, basis)


def _registers(subject: Subject, cpu: int) -> Mapping[str, int]:
    """Of the frame that hangs, not of an interrupt that came in there."""
    at = subject.fault_frame if subject.crashed[0] == cpu else None
    saved = subject.trace(cpu).frames[at].registers if at is not None else None
    return saved or subject.registers[cpu]


def _suspect(subject: Subject) -> int | None:
    """The CPU that hangs: of a known hang the one that was silent, if it is at work in the kernel.

    Else one with interrupts off; for a known hang any at work.
    """
    named = subject.crashed[0]
    if subject.reason in HANGS and named is not None and _works(subject, named):
        return named
    if subject.stuck is not None or subject.reason not in HANGS:
        return subject.stuck
    return next((cpu for cpu in subject.registers if _works(subject, cpu)), None)


def _works(subject: Subject, cpu: int) -> bool:
    """Whether the CPU was caught in the kernel, not idle."""
    registers, current = subject.registers.get(cpu), subject.current(cpu)
    at_work = registers is not None and not is_user(registers)
    return at_work and current is not None and bool(current.pid)


def _quiet_culprit(subject: Subject) -> str:
    try:
        return subject.culprit
    except IntrospectError:
        return ""


def _innermost(subject: Subject, cpu: int) -> str:
    from crashdump.analysis.title import culprit

    try:
        frames = subject.trace(cpu).frames[:32]
        return culprit([subject.function(f.ip, f.exact) for f in frames])
    except IntrospectError:
        return ""


def _module(subject: Subject, function: str) -> str:
    """The module that `function` is in, "" for the kernel itself."""
    try:
        symbols = subject.kernel.symbols
        return symbols.find(symbols.address(function)).module if function else ""
    except IntrospectError:
        return ""
