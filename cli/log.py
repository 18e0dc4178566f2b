# SPDX-License-Identifier: GPL-2.0-or-later
"""log: a vnode's kernel log out of its memory: running, hung, dead, or of an incident's dump."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from adeos.peers import sees_root
from cli import observe, output
from cli.errors import NotFound
from cli.memory import NoKernel, vnode_kernel
from cli.session import Session
from cli.verb import INCIDENT, VNODE, Place, verb

if TYPE_CHECKING:
    from introspect.kernel import Kernel
    from introspect.printk import LogRecord

LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
FOLLOW_S = 1.0
"""Each look copies the whole log buffer."""


@verb(
    "log",
    place=lambda given: Place.EITHER if given["incident"] else Place.MACHINE,
    examples=[
        "vnode-debug log 2                    also when vnode 2 hangs or is dead",
        "vnode-debug log beta -f --level warn",
        "vnode-debug log --incident 3 -n 50   of the dump of incident 3",
    ],
)
@click.argument("vnode", type=VNODE, required=False)
@click.option("--incident", type=INCIDENT, help="Read an incident's dump instead of a vnode.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, over restarts too.")
@click.option(
    "-n", "--lines", "count", type=click.IntRange(0, 1 << 22), help="Only the last records."
)
@click.option(
    "--level",
    type=click.Choice((*LEVELS, *"01234567")),
    default="debug",
    help="Only this severe and worse.",
)
def command(
    session: Session,
    vnode: str | None,
    incident: int | None,
    follow: bool,
    count: int | None,
    level: str,
) -> None:
    """Print a vnode's kernel log, read from its memory."""
    if (vnode is None) == (incident is None):
        raise click.UsageError("name a vnode or an --incident, one of them")
    if follow and incident is not None:
        raise click.UsageError("--follow: the dump of an incident does not grow")
    worst = LEVELS.index(level) if level in LEVELS else int(level)
    if vnode is None:
        assert incident is not None  # checked above
        records = dump_kernel(session, incident).log()
    else:
        records = running_kernel(session, vnode, follow=follow).log()
    first = last(select(records, worst), count)
    if not follow:
        show(first, session)
        return
    assert vnode is not None  # checked above
    stream(session, vnode, worst, first)


def running_kernel(session: Session, vnode: str, *, follow: bool) -> Kernel:
    """The kernel of a vnode; in the successor, vnode 0 is the root's."""
    machine = session.machine()
    if vnode == observe.ROOT and sees_root(machine):
        from crashdump import root

        if follow:
            raise click.UsageError("--follow: of vnode 0 only what is there now is shown")
        return root.kernel(machine, root.look(machine))
    return vnode_kernel(machine, observe.find(machine, vnode))


def dump_kernel(session: Session, incident: int) -> Kernel:
    """The kernel in an incident's dump."""
    from cli.store import dump_path
    from introspect.kernel import Kernel
    from introspect.memory import open_image

    return Kernel.find(open_image(dump_path(session, incident)))


def select(records: Iterable[LogRecord], worst: int) -> Iterator[LogRecord]:
    """Records of a level up to worst (0 = emerg)."""
    return (record for record in records if record.level <= worst)


def last(records: Iterable[LogRecord], count: int | None) -> list[LogRecord]:
    """The last count of them, or all."""
    from collections import deque

    return list(deque(records, maxlen=count))


def as_dict(record: LogRecord) -> dict[str, object]:
    """A record for JSON; its text is as it stood in memory, escaped by JSON."""
    return {**record._asdict(), "level": record.level, "level_name": LEVELS[record.level & 7]}


def show(records: list[LogRecord], session: Session, *, stream: bool = False) -> None:
    """Records as dmesg prints them, or as JSON: one list, or with stream a line each."""
    from introspect.printk import lines

    if session.json and not stream:
        output.write_json([as_dict(record) for record in records])
        return
    for record in records:
        if session.json:
            output.write_json_line(as_dict(record))
        else:
            colour = "red" if record.level <= 3 else "yellow" if record.level == 4 else ""
            output.write("\n".join(output.paint(line, colour) for line in lines(record)))


def stream(session: Session, vnode: str, worst: int, first: list[LogRecord]) -> None:
    """What is added to the log, for ever; a restarted vnode's log from its start."""
    from introspect.errors import IntrospectError

    machine = session.machine()
    show(first, session, stream=True)
    seen = max((record.seq for record in first), default=-1)
    status = observe.find(machine, vnode)
    kernel: Kernel | None = vnode_kernel(machine, status)
    while True:
        time.sleep(FOLLOW_S)
        now = observe.find(machine, vnode)
        if now.incarnation != status.incarnation or now.region_base != status.region_base:
            status, kernel, seen = now, None, -1
            output.note(f"vnode {now.id} was restarted: incarnation {now.incarnation}")
        try:
            kernel = kernel or vnode_kernel(machine, now)
            fresh = [record for record in kernel.log() if record.seq > seen]
        except (IntrospectError, NotFound, NoKernel):
            continue  # stopped, being loaded or booting: its log is not there yet
        show(last(select(fresh, worst), None), session, stream=True)
        seen = max((record.seq for record in fresh), default=seen)
