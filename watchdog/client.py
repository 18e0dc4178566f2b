# SPDX-License-Identifier: GPL-2.0-or-later
"""Talks to the daemon: one JSON object a line over a Unix socket.

    reply = Client().call("status")

A reply {"ok": false, "error": text, "code": n} becomes a WatchdogError of
that exit code.  docs/control.md lists the verbs.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from watchdog.errors import NoDaemonError, TimedOutError, WatchdogError
from watchdog.paths import control_socket

LINE_MAX = 1 << 20
"""Bytes of the longest reply that is accepted."""


class CommandError(WatchdogError):
    """The daemon's own words for why a command failed, with its exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Client:
    """A connection a call: cheap, and nothing to keep alive."""

    def __init__(self, path: Path | None = None, *, timeout: float = 10.0) -> None:
        self.path = path or control_socket()
        self.timeout = timeout

    def call(self, verb: str, *, timeout: float | None = None, **args: Any) -> dict[str, Any]:
        """Send one command and return its reply.

        `timeout`: seconds of silence until TimedOutError.  Raises NoDaemonError
        when nobody listens and CommandError when the daemon says no.
        """
        with self._connect(timeout) as connection:
            self._send(connection, {"verb": verb, **args})
            for line in _lines(connection):
                return _reply(line)
        raise NoDaemonError(f"{self.path}: the daemon closed the connection; see its log")

    def stream(self, verb: str, **args: Any) -> Iterator[dict[str, Any]]:
        """Send one command and yield its replies until the daemon closes (verb `events`)."""
        with self._connect(None) as connection:
            self._send(connection, {"verb": verb, **args})
            connection.settimeout(None)
            for line in _lines(connection):
                yield _reply(line)

    def _connect(self, timeout: float | None) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.timeout if timeout is None else timeout)
        try:
            connection.connect(str(self.path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            raise NoDaemonError(f"no daemon at {self.path}; start it: vnode-debug up") from None
        except OSError as error:
            connection.close()
            raise NoDaemonError(f"{self.path}: {error.strerror or error}") from None
        return connection

    def _send(self, connection: socket.socket, message: dict[str, Any]) -> None:
        try:
            connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise NoDaemonError(f"{self.path}: {error.strerror or error}") from None


def _lines(connection: socket.socket) -> Iterator[bytes]:
    buffer = b""
    while True:
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            yield line
        if len(buffer) > LINE_MAX:
            raise WatchdogError(f"the daemon's reply is longer than {LINE_MAX} bytes")
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            raise TimedOutError("the daemon did not answer in time; see its log") from None
        except OSError as error:
            raise NoDaemonError(f"the daemon went away: {error.strerror or error}") from None
        if not chunk:
            return
        buffer += chunk


def _reply(line: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        raise WatchdogError("the daemon's reply is no JSON; is it of this version?") from None
    if not isinstance(reply, dict):
        raise WatchdogError("the daemon's reply is no JSON object; is it of this version?")
    if not reply.get("ok"):
        raise CommandError(str(reply.get("error", "failed")), int(reply.get("code", 1)))
    return reply
