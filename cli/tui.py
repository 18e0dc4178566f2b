# SPDX-License-Identifier: GPL-2.0-or-later
"""tui: the dashboard over all vnodes; reads shared memory, so it lives when the daemon does not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from cli import output
from cli.session import Session
from cli.verb import Place, verb

PORT = 8765


def place(given: Mapping[str, Any]) -> Place:
    """The table of keys is the same everywhere."""
    return Place.HERE if given["list_keys"] else Place.MACHINE


@verb(
    "tui",
    place=place,
    json=False,
    examples=[
        "vnode-debug tui                      ? shows the keys, q ends it",
        "vnode-debug tui --readonly           nothing can be started, stopped or typed",
        "vnode-debug tui --keys               all keys by the id of their action",
        "vnode-debug tui --web                in a browser, on this machine's loopback only",
    ],
)
@click.option("--readonly", is_flag=True, help="Only look.")
@click.option("--keys", "list_keys", is_flag=True, help="Print the keys as they are, and end.")
@click.option("--web", is_flag=True, help="Serve it to a browser of this machine instead.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=PORT,
    show_default=True,
    help="For --web.",
)
def command(session: Session, readonly: bool, list_keys: bool, web: bool, port: int) -> None:
    """Open the dashboard."""
    from tui import keys

    keymap = keys.load(keys.file())
    if list_keys:
        output.write(keys.table(keymap))
        return
    session.machine()  # where it is missing, that is one line and no screen
    if web:
        from tui.web import serve

        serve([*own_command(), "tui", *(["--readonly"] if readonly else [])], port)
        return
    run(session, readonly, keymap)


def own_command() -> list[str]:
    """The command line that runs this toolkit again."""
    import vnode_debug

    return [sys.executable, str(vnode_debug.__file__)]


def run(session: Session, readonly: bool, keymap: Mapping[str, str]) -> None:
    """The dashboard on this terminal."""
    import os

    from tui.errors import NotATerminal

    served = "TEXTUAL_DRIVER" in os.environ  # by --web: the terminal is a browser
    # Textual draws on stderr
    if not served and not all(one.isatty() for one in (sys.stdin, sys.stdout, sys.stderr)):
        raise NotATerminal("it needs a terminal; without one: vnode-debug status --watch")
    from tui.app import Dashboard
    from tui.client import Client

    client = Client(session.machine(), session.client, session.open_store)
    app = Dashboard(client, command=own_command(), readonly=readonly, keymap=keymap)
    app.run()
