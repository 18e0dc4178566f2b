# SPDX-License-Identifier: GPL-2.0-or-later
"""Analyses a dump: one panel a question, each bounded, none able to stop the others.

    report = analyze_file(Path("vmcore"))
    report = analyze_incident(store, 7)

The bound is CPU time (ITIMER_PROF), so that a process of low priority is not
cut short for waiting.  It works in the main thread only; elsewhere panels are
bounded in size alone.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from crashdump.analysis import fault, locks, memory, report, scheduler, stacks, system, waiting
from crashdump.analysis.commands import commands_for
from crashdump.analysis.oops import lines_of
from crashdump.analysis.report import Block, Command, Lines, Panel, Report, State
from crashdump.analysis.subject import Subject, saved_registers
from crashdump.analysis.verdict import Verdict, judge, judge_log
from crashdump.errors import CrashdumpError
from introspect.errors import IntrospectError

if TYPE_CHECKING:
    from crashdump.incident import Evidence, Incident
    from crashdump.store import IncidentStore
    from introspect.kernel import Kernel

T = TypeVar("T")
PANEL_SECONDS = 20.0
TOTAL_SECONDS = 120.0
QUIET_SECONDS = 5.0  # of what a panel has read before, in nearly all cases
OPEN_SECONDS = 300.0  # a search without VMCOREINFO takes 0.15 s a GiB
MIN_SECONDS = 0.05
MAX_KERNELS = 64


class PanelSpec(NamedTuple):
    name: str
    title: str
    make: Callable[[Subject], Iterator[Block]]


PANELS = (
    PanelSpec("reason", "Why it failed", fault.reason),
    PanelSpec("instruction", "The faulting instruction", fault.instruction),
    PanelSpec("registers", "Registers", fault.registers),
    PanelSpec("backtrace", "The CPU that failed", stacks.crashed),
    PanelSpec("cpus", "All CPUs", stacks.cpus),
    PanelSpec("locks", "Lock owners", locks.panel),
    PanelSpec("hung", "Tasks in uninterruptible sleep", waiting.hung),
    PanelSpec("log", "The kernel log", system.log),
    PanelSpec("runqueues", "Runqueues", scheduler.runqueues),
    PanelSpec("rcu", "RCU and timers", scheduler.on_cpus),
    PanelSpec("memory", "Memory", memory.panel),
    PanelSpec("modules", "Modules and taint", system.modules),
    PanelSpec("system", "The system", system.overview),
    PanelSpec("blocked", "Blocked tasks by equal stack", stacks.blocked),
    PanelSpec("tasks", "Tasks", waiting.tasks),
)
NAMES = tuple(spec.name for spec in PANELS)


class NotReadable(CrashdumpError):
    """There is nothing in the dump that could be analysed."""


class _Expired(BaseException):
    """The time of a panel is over; no `except Exception` on the way may keep it."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises _Expired in the block after `seconds` of CPU time."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(*_: object) -> None:
        raise _Expired

    previous = signal.signal(signal.SIGPROF, expire)
    try:
        signal.setitimer(signal.ITIMER_PROF, max(seconds, MIN_SECONDS))
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def run_panel(spec: PanelSpec, subject: Subject, seconds: float = PANEL_SECONDS) -> Panel:
    """One panel: what it yielded before it failed or its time was over stays."""
    blocks: list[Block] = []
    note = ""
    began = time.process_time()
    try:
        with limit(seconds):
            for block in spec.make(subject):
                blocks.append(block)
                if len(blocks) >= 4 * report.MAX_BLOCKS:
                    break
    except _Expired:
        note = f"stopped after {seconds:.1f} s"
    except IntrospectError as problem:
        note = str(problem)
    except Exception as problem:  # one panel must not cost the others
        note = f"internal error, {type(problem).__name__}: {problem}"
    state = State.OK if not note else State.PARTIAL if blocks else State.FAILED
    spent = round(time.process_time() - began, 4)
    none: tuple[Command, ...] = ()
    commands = _quietly(lambda: commands_for(spec.name, subject), none)
    return Panel(spec.name, spec.title, state, note, spent, tuple(blocks), commands)


def analyze(
    subject: Subject,
    *,
    only: Sequence[str] = (),
    incident: int | None = None,
) -> Report:
    """The report on a kernel; `only` names the panels wanted, all of them when empty."""
    began = time.process_time()
    verdict = _verdict(subject)
    panels = []
    for spec in PANELS:
        if only and spec.name not in only:
            continue
        left = TOTAL_SECONDS - (time.process_time() - began)
        if left <= 0:
            note = f"left out: the analysis took {TOTAL_SECONDS:.0f} s already"
            panels.append(Panel(spec.name, spec.title, State.FAILED, note))
            continue
        panels.append(run_panel(spec, subject, min(left, PANEL_SECONDS)))
    return report.finished(
        Report(
            title=verdict.title,
            culprit=verdict.culprit,
            module=verdict.module,
            guess=verdict.guess,
            basis=verdict.basis,
            cpu=_quietly(lambda: subject.crashed[0], None),
            release=_quietly(lambda: subject.kernel.release, ""),
            build_id=_quietly(lambda: subject.kernel.build_id, ""),
            host=_quietly(lambda: _host(subject), ""),
            source=subject.name,
            incident=incident,
            seconds=round(time.process_time() - began, 4),
            panels=tuple(panels),
        )
    )


def _host(subject: Subject) -> str:
    return subject.kernel.object("init_uts_ns").member_("name.nodename").string_()


def _quietly(read: Callable[[], T], otherwise: T) -> T:
    """What `read` gives; `otherwise` when it cannot, or not soon."""
    try:
        with limit(QUIET_SECONDS):
            return read()
    except (_Expired, Exception):
        return otherwise


def _verdict(subject: Subject) -> Verdict:
    message = subject.evidence.message if subject.evidence is not None else ""
    try:
        with limit(PANEL_SECONDS):
            return judge(subject)
    except (_Expired, Exception):  # the rest may still be read
        return judge_log(lines_of(subject.kmsg), message)


@contextmanager
def _searching(path: Path, remark: str = "") -> Iterator[None]:
    """Bounds the block in time and gives what goes wrong in it the file's name."""
    try:
        with limit(OPEN_SECONDS):
            yield
    except IntrospectError as problem:
        text = f"{problem}; the dump is {remark}" if remark else str(problem)
        raise NotReadable(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except _Expired:
        raise NotReadable(f"{path}: no kernel found in {OPEN_SECONDS:.0f} s of CPU time") from None


def open_subject(path: Path, number: int = 0) -> Subject:
    """The kernel in a dump; the `number`th of several, from 0.

    :raises NotReadable: it is no memory image, or no kernel is in it.
    """
    from introspect.kernel import Kernel
    from introspect.memory import open_image

    with _searching(path):
        image = open_image(path, partial=True)
    remark = _remark(image)
    with _searching(path, remark):
        found = list(islice(Kernel.find_all(image), number + 1)) if number else []
        if number and len(found) <= number:
            raise NotReadable(f"{path}: has {len(found)} kernels, counted from 0")
        kernel = found[number] if number else Kernel.find(image)
        return Subject(kernel, saved_registers(image), name=str(path), remark=remark)


def kernels(path: Path) -> list[Kernel]:
    """The kernels in a memory image, in the order that `number` counts them; at most MAX_KERNELS.

    :raises NotReadable: it is no memory image, no kernel is in it, or it took too long.
    """
    from introspect.kernel import Kernel
    from introspect.memory import open_image

    with _searching(path):
        found = list(islice(Kernel.find_all(open_image(path, partial=True)), MAX_KERNELS))
    if not found:
        raise NotReadable(f"{path}: no Linux kernel in this memory")
    return found


def _remark(image: object) -> str:
    missing = getattr(image, "missing", 0)
    return f"truncated: {missing} bytes of memory are missing at its end" if missing else ""


def analyze_file(path: Path, *, only: Sequence[str] = (), number: int = 0) -> Report:
    """The report on a dump; what lies beside it (crash.json, kmsg.txt) is used.

    :raises NotReadable: it is no memory image, or no kernel is in it.
    """
    subject = open_subject(path, number)
    subject.evidence, subject.kmsg = beside(path.parent)
    if subject.evidence is not None:
        subject.reason = subject.evidence.reason
    return analyze(subject, only=only)


def beside(directory: Path) -> tuple[Evidence | None, str]:
    """The crash record and the log's tail that were kept in an incident's directory."""
    import msgspec

    from crashdump.capture import EVIDENCE_FILE, KMSG_FILE
    from crashdump.incident import decode_evidence

    evidence, kmsg = None, ""
    try:
        evidence = decode_evidence((directory / EVIDENCE_FILE).read_bytes())
    except (OSError, msgspec.DecodeError):
        pass
    try:
        kmsg = (directory / KMSG_FILE).read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        pass
    return evidence, kmsg[-(1 << 20) :]


def analyze_incident(store: IncidentStore, number: int, *, only: Sequence[str] = ()) -> Report:
    """The report on an incident; without a readable dump on what else was kept of it.

    :raises NoSuchIncident: there is none of that number.
    """
    incident = store.get(number)
    directory = store.path(number)
    evidence, kmsg = beside(directory)
    note = f"the dump is {incident.dump.state}"
    if incident.dump.path:
        try:
            subject = open_subject(directory / incident.dump.path)
        except NotReadable as problem:
            note = str(problem)
        else:
            subject.evidence, subject.kmsg, subject.reason = evidence, kmsg, incident.reason
            return analyze(subject, only=only, incident=number)
    return _without_memory(incident, kmsg, note)


def _without_memory(incident: Incident, kmsg: str, note: str) -> Report:
    lines = lines_of(kmsg)
    verdict = judge_log(lines, incident.message or incident.reason)
    block = Lines("The saved log", tuple(line.text for line in lines[-system.TAIL :]))
    panel = Panel("log", "The kernel log", State.PARTIAL, note, blocks=(block,))
    return report.finished(
        Report(
            title=verdict.title,
            culprit=verdict.culprit,
            module=verdict.module,
            guess=verdict.guess,
            basis=verdict.basis,
            cpu=incident.cpu,
            release=incident.release,
            incident=incident.id,
            panels=(panel,),
        )
    )
