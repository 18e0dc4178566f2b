# SPDX-License-Identifier: GPL-2.0-or-later
"""Panels on the failure itself: why, at which instruction, with what in the registers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crashdump.analysis.report import Block, Facts, Lines
from crashdump.analysis.subject import Subject
from crashdump.analysis.values import Values
from introspect import disasm
from introspect.errors import IntrospectError

REGISTERS = (
    "ip", "sp", "flags", "ax", "bx", "cx", "dx", "si", "di", "bp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cr2",
)  # fmt: skip
# Intel SDM volume 3, table 6-1
TRAPS = {
    0: "divide error", 1: "debug", 2: "NMI", 3: "breakpoint", 4: "overflow", 5: "bounds",
    6: "invalid opcode", 7: "device not available", 8: "double fault", 10: "invalid TSS",
    11: "segment not present", 12: "stack segment", 13: "general protection", 14: "page fault",
    16: "x87", 17: "alignment check", 18: "machine check", 19: "SIMD",
}  # fmt: skip
PAGE_FAULT_BITS = ((1, "protection", "not present"), (2, "write", "read"), (4, "user", "kernel"),
                   (8, "reserved bit", ""), (16, "instruction fetch", ""))  # fmt: skip


def reason(subject: Subject) -> Iterator[Block]:
    """What the kernel and the incident's record say."""
    rows = [("incident", subject.reason), ("dump", subject.remark)]
    evidence = subject.evidence
    if evidence is not None:
        rows.append(("message", evidence.message))
        if evidence.trapnr is not None and evidence.trapnr >= 0:  # -1: no exception
            rows.append(("trap", trap(evidence.trapnr, evidence.error_code)))
    cpu, how = subject.crashed
    if cpu is not None:
        task = subject.current(cpu)
        what = f", task {task.comm} ({task.pid})" if task is not None else ""
        rows.append(("CPU", f"{cpu}{what} ({how})"))
    event = subject.event
    if event is not None:
        rows.append(("logged", f"{event.ts_ns / 1e9:.6f} s after boot"))
        if event.comm:
            rows.append(("task", f"{event.comm} ({event.pid})"))
        if event.rip and event.rip.function:
            module = f" [{event.rip.module}]" if event.rip.module else ""
            rows.append(("at", f"{event.rip.function}+{event.rip.offset:#x}{module}"))
        rows += [(f"{word.lower()} in", name) for word, name in event.blamed.items()]
    yield Facts("", tuple((key, value) for key, value in rows if value))
    if event is not None:
        yield Lines("The kernel's words", (event.head, *event.detail[:12]))
    others = [one for one in subject.events if one is not event]
    if others:
        words = tuple(f"[{one.ts_ns / 1e9:12.6f}] {one.title}" for one in others)
        yield Lines("Other events in the log", words)


def trap(number: int, error: int | None) -> str:
    """ "page fault (14): write, kernel, not present"."""
    name = f"{TRAPS.get(number, 'trap')} ({number})"
    if number != 14 or error is None:
        return name
    words = [yes if error & bit else no for bit, yes, no in PAGE_FAULT_BITS]
    return f"{name}: {', '.join(filter(None, words))}"


def instruction(subject: Subject) -> Iterator[Block]:
    """Disassembly around the fault: memory as it is, and the bytes the kernel printed."""
    place = fault_registers(subject)
    address = place["ip"] if place else subject.rip_address
    if address is None:
        why = "a task hung" if subject.hung_task else "no registers, and none in the log"
        yield Lines("", (f"there is no faulting instruction to show: {why}",))
    else:
        yield Facts("", (("address", f"{address:#x} {subject.kernel.symbols.describe(address)}"),))
        yield from _in_memory(subject, address)
    if subject.event is not None and subject.event.code and not _as_logged(subject):
        shown = disasm.lines(disasm.code_line(subject.event.code, subject.rip_address or 0))
        yield Lines("As the log has it", tuple(shown[-24:]))


def _in_memory(subject: Subject, address: int) -> Iterator[Block]:
    try:
        yield Lines("", tuple(disasm.lines(disasm.around(subject.kernel, address))))
    except IntrospectError as problem:
        yield Lines("", (str(problem),))


def _as_logged(subject: Subject) -> bool:
    """Whether memory still holds the bytes that the log's Code: line shows."""
    address, event = subject.rip_address, subject.event
    if address is None or event is None:
        return False
    try:
        raw, marked = disasm.parse_code(event.code)
        return subject.kernel.read(address, len(raw) - marked) == raw[marked:]
    except IntrospectError:
        return False


def registers(subject: Subject) -> Iterator[Block]:
    """The registers at the fault, each with what it points at."""
    values = Values(subject)
    found = fault_registers(subject)
    logged = subject.event.registers if subject.event else {}
    if found:
        fault_address = {"cr2": logged["cr2"]} if "cr2" in logged else {}
        yield Facts("At the fault", tuple(_rows(values, {**fault_address, **found})))
    differs = any(found.get(name, value) != value for name, value in logged.items())
    if logged and (differs or not found):
        yield Facts("As the log has them", tuple(_rows(values, logged)))
    if not found and not logged:
        yield Lines("", ("no registers were saved with this memory, and the log has none",))


def fault_registers(subject: Subject) -> dict[str, int]:
    """All registers of the frame that failed, {} when they are not known."""
    cpu, at = subject.crashed[0], subject.fault_frame
    if cpu is None or at is None:
        return {}
    frame = subject.trace(cpu).frames[at]
    return dict(frame.registers) if frame.registers else {}


def _rows(values: Values, found: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for name in REGISTERS:
        if name in found:
            value = found[name]
            about = "" if name == "flags" else values.describe(value)
            yield name, f"{value:016x}  {about}".rstrip()
