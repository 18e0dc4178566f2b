# SPDX-License-Identifier: GPL-2.0-or-later
"""The command lines that show a panel's content with gdb, drgn, crash and this program.

crash and drgn want the kernel's debuginfo: its vmlinux is written VMLINUX here.
A tool that cannot open the dump at hand is left out: drgn needs a VMCOREINFO
note, crash a vmcore.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from crashdump.analysis.report import Command
from crashdump.analysis.subject import Subject
from introspect.errors import IntrospectError

# panel: (gdb's commands, drgn's Python, crash's commands); the keys of _facts() are filled in
RECIPES: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "reason": ((), "print(panic_message(prog))", ("sys",)),
    "instruction": (
        ("thread {thread}", "x/12i {ip}"),
        "print(prog.read({ip}, 16).hex())",
        ("dis -x {ip} 12",),
    ),
    "registers": (
        ("thread {thread}", "frame {frame}", "info registers"),
        "print(prog.crashed_thread().stack_trace()[{frame}].registers())",
        ("bt -c {cpu}",),
    ),
    "backtrace": (("thread {thread}", "bt"), "print(prog.crashed_thread().stack_trace())",
                  ("bt -c {cpu}",)),
    "cpus": (("thread apply all bt",),
             "[print(prog.stack_trace(cpu_curr(prog, c))) for c in for_each_present_cpu(prog)]",
             ("bt -a",)),
    "locks": ((), "", ("foreach UN bt",)),
    "hung": ((), "", ("foreach UN bt",)),
    "log": ((), "print_dmesg(prog)", ("log",)),
    "runqueues": ((), "", ("runq",)),
    "rcu": ((), "", ("timer",)),
    "memory": ((), "[print(c.name.string_()) for c in for_each_slab_cache(prog)]",
               ("kmem -i", "kmem -s")),
    "modules": ((), "[print(m.name) for m in for_each_module(prog)]", ("mod", "sys -t")),
    "system": ((), "print(prog['saved_command_line'].string_())", ("sys", "p saved_command_line")),
    "blocked": ((), "", ("foreach bt",)),
    "tasks": ((), "[print(t.pid, t.comm) for t in for_each_task(prog)]", ("ps",)),
}  # fmt: skip


def commands_for(panel: str, subject: Subject) -> tuple[Command, ...]:
    """The lines for one panel of one dump."""
    return tuple(_lines(panel, subject))


def _lines(panel: str, subject: Subject) -> Iterator[Command]:
    name = shlex.quote(subject.name)
    gdb, drgn, crash = RECIPES.get(panel, ((), "", ()))
    fill = _facts(subject)

    def filled(texts: tuple[str, ...]) -> list[str]:
        return [one.format_map(fill) for one in texts if _fits(one, fill)]

    yield Command("vnode-debug", f"vnode-debug analyze {name} -M {panel}")
    if filled(gdb):
        words = " ".join(f"-ex {shlex.quote(one)}" for one in filled(gdb))
        yield Command("gdb", f"vnode-debug attach {name} --batch {words}")
    memory = subject.kernel.memory
    if drgn and _fits(drgn, fill) and getattr(memory, "vmcoreinfo_raw", None):
        yield Command("drgn", f"drgn -c {name} -s VMLINUX -e {shlex.quote(drgn.format_map(fill))}")
    if filled(crash) and hasattr(memory, "registers"):  # a vmcore, not raw memory
        script = "\\n".join([*filled(crash), "quit"])
        yield Command("crash", f"printf '{script}\\n' | crash -s VMLINUX {name}")


def _fits(text: str, fill: dict[str, str]) -> bool:
    return all(f"{{{key}}}" not in text or value for key, value in fill.items())


def _facts(subject: Subject) -> dict[str, str]:
    from crashdump.analysis.fault import fault_registers

    try:
        cpu = subject.crashed[0]
        ip = fault_registers(subject).get("ip", subject.rip_address)
    except IntrospectError:
        cpu = ip = None
    at = subject.fault_frame if cpu is not None else None
    return {
        "frame": "" if at is None else str(at),
        "cpu": "" if cpu is None else str(cpu),
        "thread": "" if cpu is None else str(cpu + 1),
        "ip": f"{ip:#x}" if ip else "",
    }
