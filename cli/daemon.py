# SPDX-License-Identifier: GPL-2.0-or-later
"""daemon: the watchdog in the foreground, as systemd or "up" starts it."""

from __future__ import annotations

from pathlib import Path

import click

from cli.session import Session
from cli.verb import Place, verb


@verb(
    "daemon",
    json=False,
    place=Place.HERE,
    examples=[
        "vnode-debug daemon                             log on stderr, Ctrl-C ends it",
        "vnode-debug daemon --config ./vnodes.toml",
        "vnode-debug daemon --standby                   takes over within a second",
    ],
)
@click.option("--config", type=click.Path(path_type=Path), help="Instead of the usual vnodes.toml.")
@click.option(
    "--standby", is_flag=True, help="Wait beside the daemon that leads; lead when it dies."
)
@click.option("--ready-fd", type=click.IntRange(3, 1 << 20), hidden=True)
def command(session: Session, config: Path | None, standby: bool, ready_fd: int | None) -> int:
    """Run the daemon in the foreground."""
    from watchdog import daemon

    factory = session.machine_factory
    if factory is None:
        return daemon.main(config, ready_fd=ready_fd, standby=standby)
    return daemon.main(
        config, ready_fd=ready_fd, standby=standby, open_machine=lambda _config: factory()
    )
