# SPDX-License-Identifier: GPL-2.0-or-later
"""show: one incident in full: where the time went, who else lived on, what the kernel said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import output
from cli.session import Session
from cli.store import as_dict
from cli.verb import INCIDENT, Place, verb

if TYPE_CHECKING:
    from crashdump.incident import Incident

TAIL_LINES = 20


@verb(
    "show",
    place=Place.EITHER,
    examples=[
        "vnode-debug show 3            stages in ms, witnesses, dump, the end of the log",
        "vnode-debug show 3 -n 200     more of the log",
        "vnode-debug show 3 --json | jq '.stages'",
    ],
)
@click.argument("incident", type=INCIDENT, metavar="INCIDENT")
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(0),
    default=TAIL_LINES,
    show_default=True,
    help="Of the kernel log's end.",
)
def command(session: Session, incident: int, count: int) -> None:
    """Show one incident in full."""
    store = session.store()
    record = store.get(incident)
    tail = log_tail(store.path(incident), count)
    if session.json:
        output.write_json({**as_dict(session, record), "log_tail": tail})
        return
    text = as_text(session, record)
    if tail:
        log = "\n".join(output.clean(line) for line in tail)
        text += f"\n\nThe end of the kernel log\n{log}"
    output.write(text)


def as_text(session: Session, one: Incident) -> str:
    """The incident's facts, then its stages, then its witnesses."""
    blocks = [facts(one, session.store().path(one.id)), witnesses(one), stages(one)]
    return "\n\n".join(block for block in blocks if block)


def facts(one: Incident, directory: Path) -> str:
    """Who, when, why, and what came of it."""
    width = 12
    return "\n".join(f"{key:{width}}{output.clean(value)}" for key, value in _facts(one, directory))


def _facts(one: Incident, directory: Path) -> Iterator[tuple[str, str]]:
    yield "incident", f"{one.id}, {one.state}"
    yield "vnode", f"{one.vnode} {one.name}, incarnation {one.incarnation} {one.release}".rstrip()
    yield "time", time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(one.opened))
    if one.title:
        yield "title", one.title
    yield "reason", " ".join(filter(None, (one.reason, one.layer)))
    if one.message:
        yield "message", one.message
    if one.cpu is not None:
        task = f", task {one.comm} ({one.pid})" if one.comm else ""
        yield "CPU", f"{one.cpu}{task}"
    if one.policy:
        yield "policy", one.policy
    if one.outcome:
        yield "outcome", one.outcome
    if one.successor is not None:
        yield "restart", " ".join(filter(None, (one.restart, f"incarnation {one.successor}")))
    if one.image_age is not None:
        yield "image", f"{output.duration(one.image_age)} old when it was resumed"
    yield "dump", _dump(one, directory)
    yield "files", str(directory)


def _dump(one: Incident, directory: Path) -> str:
    dump = one.dump
    words = [str(dump.state)]
    if dump.path:
        words.append(str(directory / dump.path))
    if dump.stored:
        sizes = f"{output.size(dump.stored)} of {output.size(dump.size)}"
        words.append(f"({sizes}, {output.duration(dump.seconds)})")
    return ", ".join([" ".join(words), *filter(None, (dump.reason, dump.remark))])


def stages(one: Incident) -> str:
    """Where the time went."""
    from crashdump.stages import table

    rows = [(str(r.stage), f"{r.at_ms:.3f}", f"{r.step_ms:.3f}") for r in table(one.stamps)]
    if not rows:
        return ""
    return output.table(("STAGE", "AT ms", "STEP ms"), rows, right=frozenset({"AT ms", "STEP ms"}))


def witnesses(one: Incident) -> str:
    """The beats of the other vnodes, before and after."""
    headers = ("WITNESS", "INC", "BEATS BEFORE", "AFTER", "")
    rows = [
        (
            f"{w.vnode} {w.name}",
            str(w.incarnation),
            str(w.before),
            "-" if w.after is None else str(w.after),
            "" if w.after is None else "lived on" if w.after > w.before else "no beats",
        )
        for w in one.witnesses
    ]
    right = frozenset({"INC", "BEATS BEFORE", "AFTER"})
    return output.table(headers, rows, right=right) if rows else ""


def log_tail(directory: Path, count: int) -> list[str]:
    """The last lines of the log that the crash record kept; [] when it kept none."""
    if not count:
        return []
    try:
        text = (directory / "kmsg.txt").read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        return []
    return text.splitlines()[-count:]
