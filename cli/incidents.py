# SPDX-License-Identifier: GPL-2.0-or-later
"""incidents: the recorded failures, read from the store; needs neither daemon nor machine."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import click

from cli import output
from cli.session import Session
from cli.store import WHEN, as_dict
from cli.verb import VNODE, Place, verb

if TYPE_CHECKING:
    from crashdump.incident import Incident

HEADERS = (
    "ID",
    "TIME",
    "VNODE",
    "INC",
    "REASON",
    "STATE",
    "OUTCOME",
    "DUMP",
    "SIZE",
    "DOWN",
    "TITLE",
)
RIGHT = frozenset({"ID", "INC", "SIZE", "DOWN"})
COLOUR = {"interrupted": "red", "open": "yellow", "failed": "red", "lost": "red"}


@verb(
    "incidents",
    place=Place.EITHER,
    examples=[
        "vnode-debug incidents                     oldest first",
        "vnode-debug incidents -r -n 5             the last five, newest first",
        "vnode-debug incidents --vnode 2 --since 1h --json",
    ],
)
@click.option("--vnode", type=VNODE, help="Only of this vnode.")
@click.option("--reason", metavar="WORD", help="Only with this reason, such as panic or irqhang.")
@click.option("--since", type=WHEN, metavar="WHEN", help='From then on: "2h" ago, or a date.')
@click.option("--until", type=WHEN, metavar="WHEN", help="Up to then.")
@click.option("-n", "--lines", "count", type=click.IntRange(0), help="Only the last so many.")
@click.option("-r", "--reverse", is_flag=True, help="Newest first.")
def command(
    session: Session,
    vnode: str | None,
    reason: str | None,
    since: float | None,
    until: float | None,
    count: int | None,
    reverse: bool,
) -> None:
    """List the recorded failures."""
    if reason is not None:  # a word that is no text cannot be looked up, nor be there
        reason = reason.encode(errors="backslashreplace").decode()
    found = session.store().list(since=since, until=until, reason=reason, reverse=True)
    if vnode is not None:
        found = [one for one in found if vnode in (str(one.vnode), one.name)]
    found = found[:count]
    if not reverse:
        found.reverse()
    if session.json:
        output.write_json([as_dict(session, one) for one in found])
    elif found:
        seen = Counter(one.title for one in session.store().list() if one.title)
        rows = [(*cells(one), title(one, seen[one.title])) for one in found]
        output.write(output.table(HEADERS, rows, right=RIGHT, colour=COLOUR))
    elif not session.quiet:
        output.note("no incidents")


def title(one: Incident, count: int) -> str:
    """What the analysis calls the fault, and how many incidents of the store have that title."""
    return f"{one.title} ({count}x)" if count > 1 else one.title


def cells(one: Incident) -> tuple[str, ...]:
    """An incident's row, in the order of HEADERS, without the title; DOWN is from the fault to
    the successor's first user beat."""
    running = one.stamps.get("running")
    return (
        str(one.id),
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.opened)),
        f"{one.vnode} {one.name}",
        str(one.incarnation),
        one.reason,
        str(one.state),
        one.outcome or "-",
        str(one.dump.state),
        output.size(one.dump.stored) if one.dump.stored else "-",
        output.duration(running / 1e9) if running is not None else "-",
    )
