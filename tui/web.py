# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard in a browser, by textual-serve.

It has no passwords: it listens on this machine's loopback and nowhere else.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence

from tui.errors import NoWebServer

LOOPBACK = "127.0.0.1"


def serve(argv: Sequence[str], port: int) -> None:
    """Serves a program until Ctrl-C; each browser window gets one of its own."""
    try:
        from textual_serve.server import Server
    except ImportError:
        raise NoWebServer("textual-serve is missing: pip install 'vnode-debug[web]'") from None
    _check(port)
    Server(shlex.join(argv), host=LOOPBACK, port=port, title="vnode-debug").serve()


def _check(port: int) -> None:
    """Whether the port is free, before a server says so with a traceback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            why = error.strerror or error
            raise NoWebServer(f"port {port}: {why}; name another with --port") from None
