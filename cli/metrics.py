# SPDX-License-Identifier: GPL-2.0-or-later
"""metrics: figures for Prometheus, from shared memory, the incident store and the event log.

None of them needs the daemon, so a dead one is seen (vnode_debug_up 0).
"""

from __future__ import annotations

import click

from cli import exposition, observe, output
from cli.session import Session
from cli.verb import Place, verb


@verb(
    "metrics",
    place=Place.MACHINE,
    examples=[
        "vnode-debug metrics",
        "vnode-debug metrics --listen 127.0.0.1:9732     serve GET /metrics until ended",
        "vnode-debug metrics --listen unix:/run/vnode-debug/metrics.sock",
    ],
)
@click.option(
    "--listen", metavar="ADDRESS", help="Serve them there: a loopback address:port or unix:FILE."
)
def command(session: Session, listen: str | None) -> None:
    """Print figures for Prometheus, or serve them."""
    if listen is None:
        if session.json:
            output.write_json(as_dicts(session))
        else:
            output.write(exposition.render(collect(session)))
        return
    from cli import exporter

    exporter.serve(
        exporter.parse(listen),
        lambda: exposition.render(collect(session)),
        lambda where: None if session.quiet else output.note(f"serving {where}"),
    )


def collect(session: Session) -> list[exposition.Family]:
    """All figures now; what cannot be read now is left out, the others are told."""
    from crashdump import quota
    from crashdump.errors import CrashdumpError
    from watchdog import eventlog, paths, qos

    families = exposition.machine(observe.take(session.machine()))
    try:
        found = session.store().list()
        families += exposition.incidents(found, qos.detection(found))
        families += exposition.dumps(quota.usage(session.store()))
    except (CrashdumpError, FileNotFoundError):
        pass  # no daemon has run yet, or its store is being repaired
    families += exposition.mistakes(qos.mistakes(eventlog.read(paths.state_dir())))
    return families


def as_dicts(session: Session) -> list[dict[str, object]]:
    """All figures for JSON."""
    return [
        {"name": f"vnode_debug_{one.name}", **labels, "value": value}
        for one in collect(session)
        for labels, value in one.samples
    ]
