# SPDX-License-Identifier: GPL-2.0-or-later
"""status: the vnodes as shared memory shows them; needs no daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

import click

from adeos.peers import Granted
from cli import observe, output
from cli.session import Session
from cli.verb import SecondsParam, verb

RATE_WINDOW_S = 0.25
"""Time between the two samples that a rate needs: two user beats at their default period."""

HEADERS = (
    "ID",
    "NAME",
    "STATE",
    "REASON",
    "SINCE",
    "INC",
    "UPTIME",
    "BEATS/S irq/sched/user",
    "RESTARTS",
    "WAY",
    "IMAGE",
    "FIRE",
    "INCIDENT",
    "CPUS",
    "MEMORY",
)
NOTHING_GRANTED = (
    "the root has granted no vnode to this one; there: vnode-debug grant VNODE --to THIS-VNODE"
)
ROOT_IS_DEAD = {
    "crashed": "the root is dead, states are as it left them; its memory: vnode-debug attach 0",
    "silent": "the root's kernel hangs, states may be old; its memory: vnode-debug attach 0",
    "halted": "the root was shut down in order; states are as it left them",
}
RIGHT = frozenset({"ID", "SINCE", "INC", "UPTIME", "RESTARTS", "IMAGE", "INCIDENT", "MEMORY"})
COLOUR = {
    "watching": "green",
    "running": "green",
    "loading": "yellow",
    "booting": "yellow",
    "restarting": "yellow",
    "suspect": "yellow",
    "late": "yellow",
    "held": "blue",
    "crashed": "red",
    "fenced": "red",
    "quarantined": "red",
    "silent": "red",
    "unwatched": "red",
    "stopped": "dim",
    "halted": "dim",
    "offline": "dim",
}


@verb(
    "status",
    examples=[
        "vnode-debug status                   one table, also when the daemon is dead",
        "vnode-debug status --watch           redraw until q or Ctrl-C",
        "vnode-debug status --json | jq '.[] | select(.state != \"running\")'",
    ],
)
@click.option("--watch", is_flag=True, help="Go on until q or Ctrl-C.")
@click.option(
    "--interval",
    type=SecondsParam(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks with --watch.",
)
def command(session: Session, watch: bool, interval: float) -> None:
    """Show the vnodes and their heartbeats."""
    looks = rows_over_time(session, interval if watch else RATE_WINDOW_S)
    if not watch:
        show(next(looks), session)
    elif session.json:
        for rows in looks:
            output.write_json_line([row.as_dict() for row in rows])
    elif sys.stdout.isatty() and sys.stdin.isatty():
        redraw(session, interval)
    else:
        append(looks)


def rows_over_time(session: Session, interval: float) -> Iterator[list[observe.Row]]:
    """What is seen every interval seconds, for ever; the first after RATE_WINDOW_S."""
    machine = session.machine()
    before = observe.take(machine)
    time.sleep(min(interval, RATE_WINDOW_S))
    while True:
        now = observe.take(machine)
        yield observe.describe(before, now)
        before = now
        time.sleep(interval)


def show(rows: Sequence[observe.Row], session: Session) -> None:
    """One look: the table on stdout, a dead daemon on stderr."""
    if session.json:
        output.write_json([row.as_dict() for row in rows])
        return
    output.write(table(rows))
    remark = remark_on(rows, granted=isinstance(session.machine(), Granted))
    if remark and not session.quiet:
        output.note(remark)


def table(rows: Sequence[observe.Row]) -> str:
    """Rows as text; FIRE only where there is something to tell of it."""
    shown = [i for i, name in enumerate(HEADERS) if name != "FIRE" or any(r.fire for r in rows)]
    lines = [tuple(cells(row)[i] for i in shown) for row in rows]
    return output.table([HEADERS[i] for i in shown], lines, right=RIGHT, colour=COLOUR)


def remark_on(rows: Sequence[observe.Row], *, granted: bool = False) -> str:
    """What the table alone does not tell, or ""; `granted`: they are what a vnode may look at."""
    if granted and rows and rows[0].id == 0 and rows[0].state in ROOT_IS_DEAD:
        return ROOT_IS_DEAD[rows[0].state]
    if granted:
        return "" if rows else NOTHING_GRANTED
    if not rows:
        return "no daemon has run since this machine booted; start it with 'vnode-debug up'"
    root = rows[0]
    age = output.duration(root.state_age_s) if root.state_age_s is not None else "long"
    if root.state == observe.Daemon.DEAD.value:
        return (
            f"the daemon is dead, its last beat was {age} ago: states are as it left them, beats "
            "are live; 'vnode-debug up' starts it and adopts the vnodes"
        )
    if root.state == observe.Daemon.LATE.value:
        return (
            f"the daemon's last beat was {age} ago: it hangs, or the root has too little CPU; "
            "states may be old, beats are live"
        )
    return ""


def cells(row: observe.Row) -> tuple[str, ...]:
    """A row's cells, in the order of HEADERS."""
    return (
        str(row.id),
        row.name,
        row.state,
        row.reason or "-",
        since(row.state_age_s),
        str(row.incarnation),
        since(row.uptime_s),
        beats(row),
        str(row.restarts),
        row.way or "-",
        since(row.image_age_s),
        row.fire or "-",
        str(row.last_incident or "-"),
        ",".join(map(str, row.cpus)) or "-",
        output.size(row.memory) if row.memory else "-",
    )


def since(seconds: float | None) -> str:
    """A duration, or -."""
    return "-" if seconds is None else output.duration(seconds)


def beats(row: observe.Row) -> str:
    """Rates per layer, of the slowest CPU, as 100/50/10."""
    if not row.beats:
        return "-"
    rates = (observe.slowest(row, layer) for layer in row.beats[0])
    return "/".join("?" if rate is None else f"{rate:.0f}" for rate in rates)


def append(looks: Iterator[list[observe.Row]]) -> None:
    """Without a terminal: a line for each vnode at first, then for each change."""
    seen: dict[int, tuple[str, str, int]] = {}
    for rows in looks:
        for row in rows:
            state = (row.state, row.reason, row.incarnation)
            if seen.get(row.id) != state:
                seen[row.id] = state
                stamp = time.strftime("%H:%M:%S")
                words = f"{stamp} {row.id} {row.name} {row.state} {row.reason or '-'}"
                output.write(output.one_line(f"{words} incarnation {row.incarnation}"))


def redraw(session: Session, interval: float) -> None:
    """On a terminal: redraw in place until q or Ctrl-C; the last table stays."""
    from cli.screen import Screen

    machine = session.machine()
    before = observe.take(machine)
    rows: list[observe.Row] = []
    try:
        with Screen() as screen:
            pause = min(interval, RATE_WINDOW_S)
            while screen.wait_for_key(pause) not in ("q", "Q"):
                now = observe.take(machine)
                rows = observe.describe(before, now)
                before, pause = now, interval
                head = f"{time.strftime('%H:%M:%S')}  every {interval:g} s, q ends"
                remark = remark_on(rows, granted=isinstance(machine, Granted))
                screen.draw([head, "", *table(rows).splitlines(), "", remark])
    finally:
        output.write(table(rows))
