# SPDX-License-Identifier: GPL-2.0-or-later
"""events: what the daemon saw and did, from its event log; needs neither daemon nor machine."""

from __future__ import annotations

import time
from typing import Any

import click

from cli import output
from cli.session import Session
from cli.store import WHEN
from cli.verb import VNODE, Place, verb

POLL_S = 0.2
COLOUR = {"error": "red", "warning": "yellow"}
HIDDEN = frozenset({"seq", "time", "level", "event"})


@verb(
    "events",
    place=Place.EITHER,
    examples=[
        "vnode-debug events --follow",
        "vnode-debug events --vnode 2 --since 1h",
        "vnode-debug events -f --json | jq 'select(.level != \"info\")'",
    ],
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, over daemons' ends.")
@click.option("--vnode", type=VNODE, help="Only of this vnode.")
@click.option("--since", type=WHEN, metavar="WHEN", help='From then on: "2h" ago, or a date.')
@click.option("-n", "--lines", "count", type=click.IntRange(0), help="Only the last so many.")
def command(
    session: Session, follow: bool, vnode: str | None, since: float | None, count: int | None
) -> None:
    """Show what the daemon saw and did."""
    from watchdog import eventlog, paths

    directory = paths.state_dir()
    everything = list(eventlog.read(directory))
    found = [one for one in everything if wanted(one, vnode, since)]
    if count is not None:
        found = found[len(found) - min(count, len(found)) :]
    if session.json and not follow:
        output.write_json(found)
        return
    for record in found:
        show(session, record)
    if not found and not follow and not session.quiet:
        output.note("no events")
    tail = eventlog.Tail(directory, everything[-1]["seq"] if everything else 0)
    while follow:
        for record in tail.poll():
            if wanted(record, vnode, since):
                show(session, record)
        time.sleep(POLL_S)


def wanted(record: dict[str, Any], vnode: str | None, since: float | None) -> bool:
    """Whether a record is one of those asked for."""
    if vnode is not None and vnode not in (str(record.get("vnode")), record.get("name")):
        return False
    when = record.get("time")
    return since is None or (isinstance(when, int | float) and when >= since)


def show(session: Session, record: dict[str, Any]) -> None:
    """One record: a line of JSON, or of text."""
    from watchdog.log import words

    if session.json:
        output.write_json_line(record)
        return
    fields = {key: value for key, value in record.items() if key not in HIDDEN}
    level = str(record.get("level", ""))
    text = output.one_line(words(str(record.get("event", "")), fields))
    output.write(f"{moment(record)}  {output.paint(text, COLOUR.get(level, ''))}")


def moment(record: dict[str, Any]) -> str:
    """A record's time, local, with milliseconds."""
    when = record.get("time")
    if not isinstance(when, int | float) or not 0 <= when < 1 << 40:
        return "-"
    day = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    return f"{day}.{int(when * 1000) % 1000:03}"
