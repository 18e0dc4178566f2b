# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitor commands that answer with panels of crashdump's analysis, on a kernel alive or dead.

Of a running kernel the registers are samples and lists may change while they are
followed: what is torn costs its panel a note, not the session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from debugger.command import Command
from debugger.registers import Values
from debugger.session import Session
from debugger.target import Target
from introspect.registers import PT_REGS

if TYPE_CHECKING:
    from crashdump.analysis.report import Panel

_NAMES = {name: name if name[-1].isdigit() else f"r{name}" for name in PT_REGS} | {
    "orig_ax": "orig_rax", "cs": "cs", "ss": "ss", "flags": "eflags",
}  # fmt: skip


def _kernel_names(values: Values) -> dict[str, int]:
    """Registers as struct pt_regs calls them; {} unless those that unwinding needs are known."""
    if not {"rip", "rsp", "rbp"} <= values.keys():
        return {}
    return {name: values.get(theirs, 0) for name, theirs in _NAMES.items()}


def registers_of(target: Target) -> Mapping[int, dict[str, int]]:
    """The registers of the CPUs by number, named as struct pt_regs names them."""
    found = {
        thread.cpu: _kernel_names(target.registers(thread.tid))
        for thread in target.threads()
        if thread.is_cpu
    }
    return {cpu: values for cpu, values in found.items() if values}


def _panels(session: Session, *names: str) -> str:
    """Panels of an analysis by their names, as text."""
    from crashdump.analysis.run import PANELS, run_panel
    from crashdump.analysis.subject import Subject

    subject = Subject(session.target.kernel, registers_of(session.target))
    found = [run_panel(spec, subject) for spec in PANELS if spec.name in names]
    return "".join(f"{line}\n" for panel in found for line in _lines(panel, len(names) > 1))


def _lines(panel: Panel, titled: bool) -> Iterator[str]:
    from crashdump.analysis.report import State, clean
    from crashdump.analysis.text import block_lines

    if titled:
        yield f"== {panel.title}"
    for block in panel.blocks:
        if block.heading:
            yield f"{clean(block.heading)}:"
        indent = "  " if block.heading else ""
        yield from (clean(f"{indent}{line}".rstrip()) for line in block_lines(block))
    if panel.state is not State.OK:
        yield f"({panel.state}: {clean(panel.note)})"


def _stacks(session: Session, _argument: str) -> str:
    return _panels(session, "cpus", "blocked")


def _crash(session: Session, _argument: str) -> str:
    """The verdict of an analysis with its first panels."""
    from crashdump.analysis.run import analyze
    from crashdump.analysis.subject import Subject
    from crashdump.analysis.text import render

    name = session.target.identity.name
    subject = Subject(session.target.kernel, registers_of(session.target), name=name)
    return render(analyze(subject, only=("reason", "instruction", "registers", "backtrace")))


COMMANDS = (
    Command(("bt-all",), "", "the stacks of all CPUs and tasks, equal ones once", _stacks),
    Command(("crash",), "", "why it died: title, culprit, registers, stack", _crash),
    Command(
        ("locks",), "", "mutexes and rwsems that are waited for, their owners, deadlocks",
        lambda session, _argument: _panels(session, "locks"),
    ),
    Command(
        ("mem",), "", "free and used memory, the largest slab caches",
        lambda session, _argument: _panels(session, "memory"),
    ),
    Command(
        ("modules",), "", "the loaded modules and what they taint",
        lambda session, _argument: _panels(session, "modules"),
    ),
)  # fmt: skip
