# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the HTTP server of a vnode, lets the vnode panic, goes on asking.  Runs in the root vnode.

    python3 -m bench.service_root VNODE BEFORE_S AFTER_S

The server is behind the vnode's console.  A request that is not answered within PATIENCE_S is given
up and the next one sent.  Prints JSON: `answers`, the second of each answer, 0 is the panic.
"""

from __future__ import annotations

import base64
import json
import sys
import time

from adeos import abi
from adeos.bridge import Bridge, ConsoleReader, RootBridge
from adeos.kmb import KmbMachine
from watchdog.client import Client
from watchdog.errors import WatchdogError

PATIENCE_S = 0.25
POLL_S = 0.002
REQUEST = base64.b64encode(b"GET / HTTP/1.0\r\n\r\n").decode()
ANSWER = b"\r\n\r\nserved\n"


class Server:
    """The HTTP server of one vnode, whichever kernel is in it now."""

    def __init__(self, vnode: int) -> None:
        self.vnode = vnode
        self.machine = KmbMachine()
        self.root = RootBridge.open(self.machine)
        self.client = Client()
        self.place = abi.Range(0, 0)
        self.reader: ConsoleReader | None = None

    def console(self) -> ConsoleReader:
        """Where its console is now: a successor may have another region."""
        status = self.root.status(self.vnode)
        assert status is not None
        place = abi.Range(status.region_base, status.region_size)
        if self.reader is None or place != self.place:
            self.place, self.reader = place, Bridge.open(self.machine, place).console_reader()
        return self.reader

    def ask(self) -> bool:
        """One request; whether it was answered."""
        self.console().read()
        try:
            self.client.call("console-input", vnode=self.vnode, data=REQUEST)
        except WatchdogError:
            time.sleep(POLL_S)
            return False
        seen, end = b"", time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            seen += self.console().read().data
            if ANSWER in seen:
                return True
            time.sleep(POLL_S)
        return False


def main(vnode: int, before: float, after: float) -> None:
    """Print what was answered, and when."""
    server = Server(vnode)
    answers: list[float] = []
    fault = time.monotonic() + before
    struck = False
    while (now := time.monotonic()) < fault + after:
        if not struck and now >= fault:
            server.client.call("inject", vnode=vnode, kind="panic", cpu=0)
            fault, struck = time.monotonic(), True
        if server.ask():
            answers.append(time.monotonic())
    print(json.dumps({"answers": [round(at - fault, 4) for at in answers]}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
