# SPDX-License-Identifier: GPL-2.0-or-later
"""attach: gdb on a kernel in memory: of a vnode (alive or dead), an incident, a memory image.

Limits: it watches; nothing is stopped or written.  A dump's registers are those
of its incident; a memory image that belongs to none has no registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adeos.bridge import Bridge
from cli import observe, output
from cli.errors import NotFound
from cli.memory import region_of, vnode_kernel
from cli.session import Session
from cli.verb import INCIDENT, VNODE, Place, verb

if TYPE_CHECKING:
    from adeos import abi
    from adeos.machine import Machine
    from debugger.cpus import Hold
    from debugger.registers import Values
    from debugger.target import KernelTarget

FILE_HINT = "a memory image is named by a path with a / in it, or a file that is here"


def place(given: Mapping[str, Any]) -> Place:
    """Files that are here are opened here; an incident where its store is."""
    if is_file(given["target"]):
        return Place.HERE
    return Place.EITHER if given["incident"] else Place.MACHINE


def is_file(target: str | None) -> bool:
    """Whether the word names a file rather than a vnode."""
    return target is not None and ("/" in target or Path(target).is_file())


@verb(
    "attach",
    place=place,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=[
        "vnode-debug attach 2",
        "vnode-debug attach 2 --batch -ex 'x/s linux_banner' -ex 'info threads'",
        "vnode-debug attach --incident 3        the dump of incident 3",
        "vnode-debug attach ./vmcore",
    ],
    epilog="What follows the target goes to gdb.",
)
@click.argument("target", required=False, metavar="VNODE|FILE")
@click.argument("gdb_args", nargs=-1, metavar="[GDB-ARGS]...", type=click.UNPROCESSED)
@click.option("--incident", type=INCIDENT, help="The dump of an incident instead.")
def command(
    session: Session, target: str | None, gdb_args: tuple[str, ...], incident: int | None
) -> int:
    """Open gdb on a vnode's kernel, alive or dead."""
    if incident is not None:
        # Without a target the first of gdb's arguments landed there.
        gdb_args = ((target,) if target is not None else ()) + gdb_args
        make = incident_target(session, incident)
    elif target is None:
        raise click.UsageError("name a vnode, a file or an --incident")
    elif is_file(target):
        make = file_target(Path(target))
    else:
        vnode = VNODE.convert(target, None, None)
        make = vnode_target(session.machine(), observe.find(session.machine(), vnode))
    if session.json:
        output.write_json(describe(make()))
        return 0
    from debugger.attach import attach

    return attach(make, gdb_args)


def describe(target: KernelTarget) -> dict[str, Any]:
    """What gdb would be attached to."""
    threads = [{"cpu": t.cpu, "state": t.info} for t in target.threads()]
    return {**target.describe(), "threads": threads}


def vnode_target(machine: Machine, status: abi.Status) -> Callable[[], KernelTarget]:
    """A vnode as gdb sees it; its CPUs by the bridge."""
    from debugger.cpus import BridgeCpus
    from debugger.target import Identity, KernelTarget

    def make() -> KernelTarget:
        bridge = Bridge.open(machine, region_of(status))
        cpus = BridgeCpus(bridge, lambda: hold_of(machine, status))
        identity = Identity(status.id, status.name)
        return KernelTarget(identity, vnode_kernel(machine, status), cpus)

    return make


def hold_of(machine: Machine, status: abi.Status) -> Hold:
    """What the machine says of a vnode now, compared with where it was."""
    from debugger.cpus import Hold

    binding = machine.query(status.id)
    if binding is None or binding.region.base != status.region_base:
        return Hold.MOVED
    return Hold.STARTED if binding.started else Hold.PARKED


def incident_target(session: Session, number: int) -> Callable[[], KernelTarget]:
    """An incident's dump, with the registers it was taken with."""
    from cli.store import dump_path

    record = session.store().get(number)
    path = dump_path(session, number)
    return _image(path, record.vnode, f"{record.name}, incident {number}")


def file_target(path: Path) -> Callable[[], KernelTarget]:
    """A memory image: an ELF vmcore or raw RAM."""
    if not path.exists():
        raise NotFound(f"{path}: no such file; {FILE_HINT}")
    return _image(path, 1, path.name)


def _image(path: Path, number: int, name: str) -> Callable[[], KernelTarget]:
    from debugger.cpus import DumpCpus
    from debugger.target import Identity, KernelTarget
    from introspect.kernel import Kernel
    from introspect.memory import open_image

    def make() -> KernelTarget:
        memory = open_image(path)
        return KernelTarget(Identity(number, name), Kernel.find(memory), DumpCpus(saved(memory)))

    return make


def saved(memory: object) -> dict[int, Values]:
    """Registers out of a dump's notes."""
    return {}
