# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves one text by HTTP, on a loopback address or a Unix socket.

On a Unix socket only root and this user are served; a loopback port is open to
every local user, who may read figures and change nothing.  A client that is
slow costs a thread of a few, for a few seconds.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import click

from adeos.peercred import permitted
from cli.errors import CliError
from cli.exposition import TYPE

CLIENTS_MAX = 16
TIMEOUT_S = 5.0

Address = tuple[str, int] | str


def parse(text: str) -> Address:
    """A (host, port) that is loopback, or the name of a Unix socket."""
    if text.startswith("unix:"):
        name = text.removeprefix("unix:")
        if not name or "\0" in name or len(os.fsencode(name)) > 100:
            raise click.UsageError(f"--listen: {name[:40]!r} cannot name a socket")
        return str(Path(name).absolute())
    host, colon, port = text.rpartition(":")
    host = host.strip("[]").replace("localhost", "127.0.0.1")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not colon or not loopback:
        raise click.UsageError(
            f"--listen: {text[:40]!r} is neither a loopback ADDRESS:PORT nor unix:FILE"
        )
    if not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        raise click.UsageError(f"--listen: {port[:20]!r} is no port")
    return host, int(port)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers GET /metrics with `text()`."""

    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False

    def __init__(self, address: Address, text: Callable[[], str]) -> None:
        self.text = text
        self.lock = threading.Lock()
        self.free = threading.Semaphore(CLIENTS_MAX)
        if isinstance(address, str):
            self.address_family = socket.AF_UNIX
        elif ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)  # type: ignore[arg-type]  # a Unix socket's name is one

    def verify_request(self, request: object, client_address: object) -> bool:
        """Served only while there is a thread for it, and on a Unix socket by its peer's user."""
        assert isinstance(request, socket.socket)
        if self.address_family == socket.AF_UNIX and not permitted(request):
            return False
        return self.free.acquire(blocking=False)

    def process_request_thread(self, request: object, client_address: object) -> None:
        """One client."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self.free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        """The text, or 404, or 503 when it cannot be had."""
        if self.path.partition("?")[0] not in ("/metrics", "/"):
            self._answer(404, "see /metrics\n")
            return
        try:
            with self.server.lock:
                text = self.server.text()
        except Exception as error:  # the boundary: one failure must not end the exporter
            self._answer(503, f"{type(error).__name__}: {error}\n")
            return
        self._answer(200, text)

    def _answer(self, code: int, text: str) -> None:
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        """A Unix peer has none."""
        return "local"

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""


def serve(address: Address, text: Callable[[], str], ready: Callable[[str], None]) -> None:
    """Serve until interrupted; CliError when the address cannot be had."""
    path = Path(address) if isinstance(address, str) else None
    old = os.umask(0o177)
    try:
        if path is not None:
            _replace(path)
        server = _Server(address, text)
    except OSError as error:
        where = str(path or f"{address[0]}:{address[1]}")
        raise CliError(f"cannot listen at {where}: {error.strerror or error}") from None
    finally:
        os.umask(old)
    try:
        ready(str(path) if path else "http://{}:{}/metrics".format(*server.server_address[:2]))
        server.serve_forever()
    finally:
        server.server_close()
        if path is not None:
            path.unlink(missing_ok=True)


def _replace(path: Path) -> None:
    """Take away a socket that nobody listens at; one that is in use is a CliError."""
    if not path.exists():
        return
    if not path.is_socket():
        raise CliError(f"{path} is there and no socket; name another")
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        raise CliError(f"{path}: somebody listens there already")
    path.unlink()
