# SPDX-License-Identifier: GPL-2.0-or-later
"""console: a vnode's console out of the ring in its bridge; keys go through the daemon.

On a terminal the vnode's bytes reach it as they are, as with any serial console.
Elsewhere they are made harmless first.
"""

from __future__ import annotations

import base64
import os
import select
import sys
import time
from typing import TYPE_CHECKING

import click

from adeos.bridge import Bridge, ConsoleReader, RootBridge
from cli import observe, output
from cli.memory import binding_of
from cli.session import Session
from cli.verb import verb, vnode_argument

if TYPE_CHECKING:
    from adeos import abi
    from adeos.machine import Machine
    from watchdog.client import Client

ESCAPE = b"\x1d"
"""Ctrl-], as in telnet and virsh."""
POLL_S = 0.05
IDLE_S = 0.25


class Console:
    """The console of a vnode, over its restarts."""

    def __init__(self, machine: Machine, status: abi.Status) -> None:
        self._machine = machine
        self._root = RootBridge.open(machine)
        self.id = status.id
        self._key = (status.incarnation, status.region_base)
        self._reader: ConsoleReader | None = self._open(status)

    def _open(self, status: abi.Status) -> ConsoleReader:
        return Bridge.open(self._machine, binding_of(self._machine, status).region).console_reader()

    def read(self) -> tuple[bytes, str]:
        """(what came since the last call, a remark or "")."""
        status = self._root.status(self.id)
        key = (status.incarnation, status.region_base) if status else (0, 0)
        if key != self._key:
            self._key = key
            bound = status is not None and self._machine.query(self.id) is not None
            self._reader = self._open(status) if status is not None and bound else None
            return b"", f"vnode {self.id} was restarted: incarnation {key[0]}"
        if self._reader is None:
            return b"", ""
        piece = self._reader.read()
        return piece.data, f"{piece.lost} bytes were lost" if piece.lost else ""


@verb(
    "console",
    examples=[
        "vnode-debug console 2           Ctrl-] ends it",
        "vnode-debug console 2 > boot    what is there now",
        "vnode-debug console 2 -f | tee boot",
    ],
)
@vnode_argument
@click.option("-f", "--follow", is_flag=True, help="Without a terminal: go on with what comes.")
@click.option("--no-input", is_flag=True, help="Only look.")
def command(session: Session, vnode: str, follow: bool, no_input: bool) -> None:
    """Open a vnode's console."""
    status = observe.find(session.machine(), vnode)
    console = Console(session.machine(), status)
    if session.json:
        output.write_json({"vnode": status.id, "text": harmless(console.read()[0])})
    elif sys.stdin.isatty() and sys.stdout.isatty() and not no_input:
        interactive(session, console)
    else:
        follow_text(session, console, for_ever=follow or sys.stdout.isatty())


def harmless(data: bytes) -> str:
    """Console output as lines without escapes."""
    return output.clean(data.decode("utf-8", "backslashreplace").replace("\r\n", "\n"), keep="\n\t")


def follow_text(session: Session, console: Console, *, for_ever: bool) -> None:
    """The console as harmless text: what is there, then what comes."""
    while True:
        data, remark = console.read()
        if remark and not session.quiet:
            output.note(remark)
        if data:
            sys.stdout.write(harmless(data))
            sys.stdout.flush()
        if not for_ever:
            break
        if not data:
            time.sleep(IDLE_S)


def interactive(session: Session, console: Console) -> None:
    """The terminal is the vnode's until Ctrl-]."""
    from cli.screen import raw_terminal

    output.note(f"console of vnode {console.id}, Ctrl-] ends it")
    client = session.client()
    fd = sys.stdin.fileno()
    with raw_terminal(fd):
        while True:
            data, remark = console.read()
            if remark:
                data += f"\r\n[{remark}]\r\n".encode()
            if data:
                os.write(sys.stdout.fileno(), data)
            if not select.select([fd], [], [], POLL_S)[0]:
                continue
            keys = os.read(fd, 256)
            typed, escape, _ = keys.partition(ESCAPE)
            if typed:
                write(client, console.id, typed)
            if escape or not keys:
                return


def write(client: Client, vnode: int, keys: bytes) -> None:
    """Hand keys to the vnode; those that do not fit into its ring are dropped, as on a UART."""
    client.call("console-input", vnode=vnode, data=base64.b64encode(keys).decode())
