# SPDX-License-Identifier: GPL-2.0-or-later
"""The blocking server: sessions over a Unix socket or over stdin and stdout.

A thread a client, each with a target of its own, so any number may watch.  No
event loop: a blocking recv and sendall answer a 64-byte read in 11 us against
16 us of asyncio, and gdb reads word by word.

What a killed server leaves behind is its socket file: the next server on the
same path sees that nobody answers there and replaces it.
"""

import contextlib
import errno
import logging
import os
import select
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Protocol

from adeos.peercred import permitted
from debugger.errors import DebuggerError, SocketInUse
from debugger.session import Catalog, Phase, Session
from debugger.target import Target

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""How late a resumed client may learn that the vnode crashed."""
EAGER_SECONDS = 100e-6
"""How long the server stays awake for the next request: gdb needs less between two."""
MAX_CLIENTS = 32
_RECV = 1 << 16

TargetFactory = Callable[[], Target]


class Stream(Protocol):
    """A connected byte stream; recv() waits."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def fileno(self) -> int: ...


class _Eager:
    """A connected socket whose recv() looks for a while before it sleeps.

    gdb asks word by word, and to be woken costs as much as to read a word.
    """

    def __init__(self, client: socket.socket) -> None:
        self._recv = client.recv
        self.fileno = client.fileno
        self.sendall = client.sendall

    def recv(self, size: int) -> bytes:
        ends = 0.0
        while True:
            try:
                return self._recv(size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                now = perf_counter()
                ends = ends or now + EAGER_SECONDS
                if now > ends:
                    return self._recv(size)


def converse(stream: Stream, session: Session) -> None:
    """Serve one client until it leaves; broken connections end it quietly."""
    with contextlib.suppress(ConnectionError, BrokenPipeError), contextlib.closing(session):
        while session.phase is not Phase.CLOSED:
            if session.waits and not _readable(stream, session):
                reply = session.poll()
            else:
                data = stream.recv(_RECV)
                if not data:
                    return
                reply = session.feed(data)
            if reply:
                stream.sendall(reply)


def _readable(stream: Stream, session: Session) -> bool:
    """Wait for the client or for something to happen to the target; whether it is the client."""
    client = stream.fileno()
    ready, _, _ = select.select([client, *session.wakeups()], [], [], POLL_SECONDS)
    return client in ready


class Server:
    """Listens on a Unix socket (0600) and serves each client in a thread.

    A client gets the target that `factory` makes, or attaches to those of `catalog`.

    `directory` of the socket is made 0700 when it is not there.  Only the user
    who runs the server, and root, may connect.
    """

    def __init__(
        self, factory: TargetFactory | None, path: Path, catalog: Catalog | None = None
    ) -> None:
        self.path = path
        self._catalog = catalog
        self._factory = factory
        self._slots = threading.BoundedSemaphore(MAX_CLIENTS)
        self._listener = listen(path)
        self._stat = path.stat()

    def close(self) -> None:
        """Stop listening and remove the socket; clients that are connected stay."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.unlink()

    def unlink(self) -> None:
        """Remove the socket file unless another server's has taken its place."""
        with contextlib.suppress(FileNotFoundError):
            now = self.path.stat()
            if (now.st_dev, now.st_ino) == (self._stat.st_dev, self._stat.st_ino):
                self.path.unlink()

    def serve_forever(self) -> None:
        """Accept clients until close()."""
        for client in self._clients():
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def serve_one(self, connected: Callable[[], None]) -> None:
        """Accept one client, stop listening, call `connected`, and serve that client."""
        client = next(self._clients(), None)
        if client is not None:
            self.close()
            connected()
            self._serve(client)

    def _clients(self) -> Iterator[socket.socket]:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED):
                    return  # closed
                time.sleep(POLL_SECONDS)  # for descriptors to come free
                continue
            if not permitted(client) or not self._slots.acquire(blocking=False):
                _log.warning("client refused at %s", self.path)
                client.close()
                continue
            yield client

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                target = self._factory() if self._factory is not None else None
                converse(_Eager(client), Session(target, self._catalog))
        except DebuggerError as error:
            _log.error("%s", error)
        finally:
            self._slots.release()


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, 0600; SocketInUse when another server answers there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX)
        # Born 0600: bind() applies the umask, and the umask is the process's.
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(MAX_CLIENTS)
    except OSError as error:
        raise DebuggerError(f"cannot listen at {path}: {error.strerror or error}") from None
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise DebuggerError(f"{path} exists and is no socket: remove it, or choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise SocketInUse(f"another server listens at {path}: stop it, or choose another path")


class _Pipes:
    """stdin and stdout as a Stream, for gdb's `target remote | command`."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    def fileno(self) -> int:
        return self._source

    def recv(self, size: int) -> bytes:
        return os.read(self._source, size)

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._sink, view) :]


def serve(factory: TargetFactory, path: Path) -> None:
    """Serve clients at a Unix socket until interrupted; the socket is removed at the end."""
    server = Server(factory, path)
    try:
        server.serve_forever()
    finally:
        server.close()


def serve_stdio(factory: TargetFactory) -> None:
    """Serve the one client at stdin and stdout until it leaves."""
    converse(_Pipes(sys.stdin.fileno(), sys.stdout.fileno()), Session(factory()))
