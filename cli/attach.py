# SPDX-License-Identifier: GPL-2.0-or-later
"""attach: gdb on a kernel in memory: of a vnode (alive or dead), an incident, a memory image.

Limits: incidents and files are dead: they are looked at, not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adeos.abi import VN_GRANT_CONTROL
from adeos.peers import Granted, sees_root
from cli import observe, output
from cli.errors import CliError, NotFound
from cli.session import Session
from cli.verb import INCIDENT, VNODE, Place, verb

if TYPE_CHECKING:
    from debugger.target import KernelTarget


ELSEWHERE = ("serial:", "qemu:")
"""How targets begin that are not of this toolkit's machine."""


def is_file(target: str | None) -> bool:
    """Whether the word names a file rather than a vnode."""
    try:
        return target is not None and ("/" in target or Path(target).is_file())
    except (OSError, ValueError):  # too long, or not a name any file can have
        return False


def place(given: Mapping[str, Any]) -> Place:
    """Files that are here are opened here; an incident where its store is."""
    if given["incident"]:
        return Place.EITHER
    return Place.HERE if is_local(given["target"]) else Place.MACHINE


def is_local(target: str | None) -> bool:
    """Whether the word names something of this computer, and no vnode."""
    return is_file(target) or (target or "").startswith(ELSEWHERE)


@verb(
    "attach",
    place=place,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=[
        "vnode-debug attach 2                   it runs on; Ctrl-C in gdb's `continue` stops it",
        "vnode-debug attach --stop 2            stopped at once: break, step, finish, watch",
        "vnode-debug attach 1 2                 two kernels in one gdb",
        "vnode-debug attach 2 --batch -ex 'x/s linux_banner' -ex 'info threads'",
        "vnode-debug attach --incident 3        the dump of incident 3",
        "vnode-debug attach ./vmcore",
        "vnode-debug attach --no-tasks 2        threads are CPUs alone",
        "vnode-debug attach qemu:/dev/shm/ram,qmp=/run/qmp.sock    a QEMU guest with shared memory",
        "vnode-debug attach serial:/dev/ttyS0,115200 ./vmlinux    kgdb; shares the console's line",
    ],
    epilog="What follows the targets goes to gdb.",
)
@click.argument("target", required=False, metavar="VNODE...|FILE", type=click.UNPROCESSED)
@click.argument("gdb_args", nargs=-1, metavar="[GDB-ARGS]...", type=click.UNPROCESSED)
@click.option("--incident", type=INCIDENT, help="The dump of an incident instead.")
@click.option("--stop", is_flag=True, help="Stop the CPUs before gdb starts.")
@click.option("--read-only", is_flag=True, help="Only watch: Ctrl-C stops nothing.")
@click.option("--tasks/--no-tasks", default=True, help="Are tasks threads too?", show_default=True)
def command(
    session: Session,
    target: str | None,
    gdb_args: tuple[str, ...],
    incident: int | None,
    tasks: bool,
    stop: bool,
    read_only: bool,
) -> int:
    """Open gdb on the kernels of vnodes, alive or dead."""
    if stop and read_only:
        raise click.UsageError("--stop and --read-only exclude each other")
    if target is not None and target.startswith("serial:") and incident is None:
        from debugger import serial_line

        if session.json:
            raise click.UsageError("of a serial line there is nothing to describe")
        return serial_line.attach(target, gdb_args)
    if target is not None and stop and target.startswith("qemu:") and incident is None:
        from debugger import qemu, stub_proxy

        return stub_proxy.attach(qemu.Guest.parse(target), gdb_args)
    if incident is not None and target is not None:
        gdb_args = (target, *gdb_args)  # there is no target word: the first is gdb's too
    tasks = tasks and not session.json
    more, gdb_args = (
        further_vnodes(session, target, gdb_args) if incident is None else ((), gdb_args)
    )
    if stop and incident is None and not is_file(target):
        refuse_to_stop(session, (target, *more))
    makes = [
        factory(session, word, incident, tasks=tasks, control=not read_only)
        for word in (target, *more)
    ]
    if session.json:
        output.write_json(describe(makes[0]()))
        return 0
    from debugger.attach import attach

    return attach(makes, gdb_args, stop=stop)


def refuse_to_stop(session: Session, words: Sequence[str | None]) -> None:
    """CliError in a vnode that was granted a look, no more."""
    for word in words:
        if word == observe.ROOT and sees_root(session.machine()):
            raise CliError("vnode 0: the root is looked at, never stopped: leave --stop out")
        if word is not None and not may_control(session, word):
            raise CliError(
                f"vnode {word}: this vnode may look at it, not stop it; on the root: vnode-debug"
                f" grant {word} --to THIS-VNODE --control"
            )


def may_control(session: Session, word: str) -> bool:
    """Whether a vnode can be stopped from here: on the root always, in a vnode by its grant."""
    machine = session.machine()
    if not isinstance(machine, Granted):
        return True
    number = observe.find(machine, VNODE.convert(word, None, None)).id
    grants = {status.id: grant.flags for grant, status in machine.grants()}
    return bool(grants.get(number, 0) & VN_GRANT_CONTROL)


def further_vnodes(
    session: Session, target: str | None, words: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words after a vnode that are vnodes too, and the rest, which is gdb's."""
    if target is None or target.startswith("-") or is_local(target):
        return (), words
    statuses = observe.statuses(session.machine())
    known = {name for status in statuses for name in (str(status.id), status.name)}
    known |= {observe.ROOT}
    count = next((n for n, word in enumerate(words) if word not in known), len(words))
    return words[:count], words[count:]


def factory(
    session: Session,
    target: str | None,
    incident: int | None,
    *,
    tasks: bool = True,
    control: bool = False,
) -> Callable[[], KernelTarget]:
    """What makes the target; a wrong word is told now, before gdb is looked for."""
    from debugger import sources

    if incident is not None:
        from cli.store import dump_path

        path, vnode = dump_path(session, incident), session.store().get(incident).vnode
        return lambda: sources.dump(path, vnode, tasks=tasks)
    if target is None or target.startswith("-"):
        raise click.UsageError("name a vnode, a file or an --incident, then gdb's arguments")
    if target.startswith("qemu:"):
        from debugger import qemu

        guest = qemu.Guest.parse(target)
        return lambda: qemu.target(guest, tasks=tasks)
    if is_file(target):
        path = Path(target)
        if not path.is_file():
            raise NotFound(f"{target}: no such file")
        return lambda: sources.dump(path, tasks=tasks)
    if target == observe.ROOT and sees_root(session.machine()):
        return lambda: sources.root(session.machine(), tasks=tasks)
    status = observe.find(session.machine(), VNODE.convert(target, None, None))
    control = control and may_control(session, target)
    writable = session.open_writable if control else None
    return lambda: sources.vnode(
        session.machine(), status.id, status.name, tasks=tasks, open_writable=writable
    )


def describe(target: KernelTarget) -> dict[str, Any]:
    """What gdb would be attached to."""
    threads = [{"cpu": t.cpu, "state": t.info} for t in target.threads()]
    return {**target.describe(), "threads": threads}
