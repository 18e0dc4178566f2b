# SPDX-License-Identifier: GPL-2.0-or-later
"""successor: in the vnode that succeeds the root: watches it, and records its end.

It needs nothing of the root: what it reads is shared memory, what it writes is this vnode's own
store.  Restarting the root is out of scope.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.errors import ExitCode
from cli.session import Session
from cli.verb import Place, SecondsParam, verb
from watchdog.successor import LIMIT_S

if TYPE_CHECKING:
    from adeos.machine import Machine
    from crashdump.incident import Incident
    from crashdump.root import Root
    from crashdump.store import IncidentStore
    from watchdog.successor import Verdict


@verb(
    "successor",
    place=Place.HERE,
    examples=[
        "vnode-debug successor             in the vnode that [machine] successor names",
        "vnode-debug successor --dump      also write the root's memory as a vmcore",
        "vnode-debug successor --json | tee /dev/kmsg",
    ],
)
@click.option(
    "--limit",
    type=SecondsParam(0.3, 3600),
    default=LIMIT_S,
    show_default=True,
    metavar="SECONDS",
    help="A root whose kernel is silent for this long hangs.",
)
@click.option("--dump", is_flag=True, help="Write a vmcore where there is room for it.")
def command(session: Session, limit: float, dump: bool) -> int:
    """Watch the root, and record its end."""
    from crashdump import root
    from crashdump.store import IncidentStore
    from watchdog import paths
    from watchdog.successor import PERIOD_S, Lookout, Verdict

    machine = session.machine()
    now = root.look(machine)
    lookout = Lookout(limit_s=limit)
    hang: Incident | None = None
    with IncidentStore(paths.private_dir(paths.state_dir())) as store:
        say(session, "watching", release=now.last.release)
        while True:
            verdict = lookout.look(now.last, time.monotonic())
            if verdict is Verdict.BACK and hang is not None:
                store.update(hang.id, outcome="back", dump=type(hang.dump)())
                say(session, "back", incident=hang.id)
            elif verdict is not None:
                incident = record(session, store, machine, now, verdict, dump=dump)
                if verdict is not Verdict.HANG:
                    return ExitCode.DONE
                hang = incident
            time.sleep(PERIOD_S)
            now = root.look(machine)


def record(
    session: Session,
    store: IncidentStore,
    machine: Machine,
    now: Root,
    verdict: Verdict,
    *,
    dump: bool,
) -> Incident:
    """Record the root's end at once, then read its memory, which takes as long as it takes."""
    from adeos.errors import AdeosError
    from crashdump import root
    from crashdump.errors import CrashdumpError
    from introspect.errors import IntrospectError

    incident = root.known(store)
    if incident is not None:
        say(session, verdict.value, incident=incident.id, known="since earlier")
        return incident
    incident = root.record(store, machine, now, verdict.value)
    seen_ms = incident.stamps.get("seen", 0) // 1_000_000
    say(session, verdict.value, incident=incident.id, after_ms=seen_ms, what=incident.message)
    if not incident.crash:
        return incident
    try:
        title = root.explain(store, incident.id, machine, now)
        say(session, "analysed", incident=incident.id, title=title)
        if dump:
            written = root.write(store, incident.id, machine).dump
            say(session, f"dump {written.state}", incident=incident.id, what=written.reason)
    except (AdeosError, CrashdumpError, IntrospectError, OSError) as error:
        say(session, "not analysed", incident=incident.id, what=str(error))
    return store.get(incident.id)


def say(session: Session, event: str, **facts: Any) -> None:
    """One line, at once: whoever reads it may be a file or a serial line."""
    if session.json:
        output.write_json_line({"event": event, **facts})
    else:
        words = "  ".join(f"{key} {value}" for key, value in facts.items() if value != "")
        output.write(output.one_line(f"root: {event}  {words}"))
    sys.stdout.flush()
