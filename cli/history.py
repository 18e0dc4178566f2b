# SPDX-License-Identifier: GPL-2.0-or-later
"""history: the states of a vnode over time, from the daemon's event log."""

from __future__ import annotations

import time
from typing import Any

import click

from cli import output
from cli.errors import NotFound
from cli.events import moment, wanted
from cli.session import Session
from cli.store import WHEN
from cli.verb import Place, verb, vnode_argument

HEADERS = ("TIME", "STATE", "FOR", "INC", "REASON")
COLOUR = {
    "running": "green",
    "crashed": "red",
    "quarantined": "red",
    "suspect": "yellow",
    "restarting": "yellow",
}


@verb(
    "history",
    place=Place.EITHER,
    examples=["vnode-debug history 2", "vnode-debug history web --since 1d --json"],
)
@vnode_argument
@click.option("--since", type=WHEN, metavar="WHEN", help='From then on: "2h" ago, or a date.')
@click.option("-n", "--lines", "count", type=click.IntRange(0), help="Only the last so many.")
def command(session: Session, vnode: str, since: float | None, count: int | None) -> None:
    """Show the states of a vnode over time."""
    from watchdog import eventlog, paths

    records = [one for one in eventlog.read(paths.state_dir()) if wanted(one, vnode, None)]
    if not records:
        raise NotFound(f"the event log knows no vnode {vnode}; 'vnode-debug status' lists them")
    rows = [row for row in states(records, time.time()) if since is None or row["time"] >= since]
    if count is not None:
        rows = rows[len(rows) - min(count, len(rows)) :]
    if session.json:
        output.write_json(rows)
        return
    cells = [
        (
            moment(row),
            row["state"],
            output.duration(row["seconds"]),
            str(row["incarnation"]),
            row["reason"] or "-",
        )
        for row in rows
    ]
    output.write(output.table(HEADERS, cells, right=frozenset({"FOR", "INC"}), colour=COLOUR))


def states(records: list[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """A row a state: when it began, how long it lasted (the last: until now)."""
    from watchdog.states import State

    words = {state.word for state in State}
    rows: list[dict[str, Any]] = []
    for record in records:
        adopted = record.get("event") == "adopted"
        state = record.get("state") if adopted else record.get("event")
        when = record.get("time")
        if not isinstance(state, str) or state not in words or "was" not in record:
            continue
        if not isinstance(when, int | float):
            continue
        row = {
            "time": when,
            "state": state,
            "reason": str(record.get("reason", "")),
            "incarnation": record.get("incarnation", 0),
            "adopted": adopted,
            "seconds": 0.0,
        }
        if rows:
            rows[-1]["seconds"] = when - rows[-1]["time"]
        rows.append(row)
    if rows:
        rows[-1]["seconds"] = now - rows[-1]["time"]
    return rows
