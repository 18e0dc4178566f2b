# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands behind gdb's `monitor` and its `vnode`: words in, text out.

COMMANDS is the table.  A module that has commands of its own keeps them as a
COMMANDS of its own, which is joined to the one here.
"""

from collections import deque
from collections.abc import Callable, Sequence

from adeos.text import printable
from debugger import panels, values
from debugger.command import Command, number
from debugger.errors import CommandError, DebuggerError
from debugger.session import Session
from introspect.errors import IntrospectError
from introspect.printk import lines

_LOG_LINES = 50
_LOG_MOST = 100_000
MAX_OUTPUT = 1 << 20
"""Characters of one answer: gdb takes it as one packet of twice the size."""


def _help(_session: Session, _argument: str) -> str:
    width = max(len(command.usage) for command in COMMANDS)
    return "".join(f"{row.usage:<{width}}  {row.help}\n" for row in COMMANDS)


def _version(_session: Session, _argument: str) -> str:
    # Linux's scripts/gdb takes any answer for QEMU's stub, which suits: thread = CPU + 1.
    return "vnode-debug: GDB remote protocol over shared memory\n"


def _vnode(session: Session, _argument: str) -> str:
    facts = session.target.describe()
    width = max(map(len, facts), default=0)
    return "".join(f"{key:<{width}}  {value}\n" for key, value in facts.items())


def _cpus(session: Session, _argument: str) -> str:
    return "".join(f"{thread.info}\n" for thread in session.target.threads() if thread.is_cpu)


def _info(session: Session, argument: str) -> str:
    return _vnode(session, argument) + _cpus(session, argument)


def _ps(session: Session, _argument: str) -> str:
    tasks, note = session.target.tasks()
    rows = [f"{'PID':>7} {'TGID':>7} {'PPID':>7} {'CPU':>3} S  {'TASK':<18} COMMAND\n"]
    for task in tasks:
        comm = printable(task.comm.encode())
        shown = f"[{comm}]" if task.kthread else comm
        state = "R*" if task.running else task.state
        rows.append(
            f"{task.pid:>7} {task.tgid:>7} {task.ppid:>7} {task.cpu:>3} {state:<2} "
            f"{task.address:#018x} {shown}\n"
        )
    return "".join(rows) + (f"{note}\n" if note else "")


def _log(session: Session, argument: str) -> str:
    wanted = number(argument, _LOG_MOST) if argument else _LOG_LINES
    if wanted is None:
        raise CommandError("log [N]: N is the number of records, counted from the end")
    records = deque(session.target.log(), maxlen=wanted)
    return "".join(f"{line}\n" for record in records for line in lines(record))


def _refresh(session: Session, _argument: str) -> str:
    session.target.refresh()
    return "registers read anew; `maintenance flush register-cache` makes gdb ask for them\n"


def _stop(session: Session, _argument: str) -> str:
    pilot = session.target.pilot
    if pilot is None:
        return "nothing here can be stopped\n"
    pilot.halt()
    session.target.refresh()
    return "stopped; `maintenance flush register-cache` makes gdb ask for the registers\n"


def _release(session: Session, _argument: str) -> str:
    pilot = session.target.pilot
    if pilot is None or not pilot.held:
        return "it is not stopped by this debugger\n"
    pilot.give_back()
    session.target.refresh()
    return "it runs, watched; breakpoints are gone\n"


COMMANDS = (
    Command(("help",), "", "this list", _help),
    Command(("info",), "", "the kernel that is looked at, and its CPUs", _info),
    Command(("info", "vnode"), "", "the kernel that is looked at", _vnode),
    Command(("info", "cpus"), "", "its CPUs and where their registers come from", _cpus),
    Command(("info", "version"), "", "what answers here", _version),
    Command(("log",), "[N]", f"the last N records of the kernel log ({_LOG_LINES})", _log),
    Command(("ps",), "", "the tasks; R* is on its CPU", _ps),
    *panels.COMMANDS,
    *values.COMMANDS,
    Command(
        ("refresh",), "", "take new samples of the registers and list the tasks anew", _refresh
    ),
    Command(("release",), "", "end control: breakpoints go, the CPUs run", _release),
    Command(("stop",), "", "take control and stop every CPU", _stop),
    Command(("version",), "", "as info version", _version),
)


def run(session: Session, words: Sequence[str]) -> str:
    """The output of a command, or one line that starts with "error: "."""
    try:
        text = find(words)(session)
    except (IntrospectError, DebuggerError) as error:
        return f"error: {printable(str(error).encode())}\n"
    return text if len(text) <= MAX_OUTPUT else f"{text[:MAX_OUTPUT]}\n... cut here\n"


def find(words: Sequence[str]) -> Callable[[Session], str]:
    """The command that the first words name, with the rest as its argument; CommandError."""
    for command in sorted(COMMANDS, key=lambda row: -len(row.words)):
        count = len(command.words)
        rest = words[count:]
        if tuple(words[:count]) != command.words or (rest and not command.argument):
            continue
        if len(rest) > len(command.argument.split()):
            raise CommandError(f"usage: {command.usage}")
        return lambda session: command.run(session, " ".join(rest))
    raise CommandError("no such command: try `monitor help`")
