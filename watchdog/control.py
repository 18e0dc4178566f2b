# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket: one JSON object a line in, one a line out.

Only root and the daemon's own user are served (SO_PEERCRED).  Requests are
bounded in length and number; a client that sends slowly, sends rubbish or
does not read costs its own connection and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from adeos.errors import AdeosError
from adeos.peercred import permitted
from watchdog import log
from watchdog.errors import AlreadyRunningError, WatchdogError
from watchdog.paths import private_dir

REQUEST_MAX = 64 * 1024
"""Bytes of one request line."""
CLIENTS_MAX = 64
IDLE_S = 60.0
"""A client that sends nothing for so long is dropped."""
REPLY_BUFFER = 1 << 20
WRITE_S = 10.0

Reply = dict[str, Any]
Send = Callable[[Reply], Awaitable[None]]
Verb = Callable[[Reply, Send], Awaitable[Reply | None]]
"""Takes the request and a way to send replies of its own; returns the (last) reply."""


class ControlServer:
    """Serves `verbs` at `path`."""

    def __init__(self, path: Path, verbs: dict[str, Verb]) -> None:
        self.path = path
        self.verbs = verbs
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen; a socket left by a killed daemon is replaced, a live one refused."""
        private_dir(self.path.parent)
        if self.path.exists() and await asyncio.to_thread(_answers, self.path):
            raise AlreadyRunningError(f"another daemon listens at {self.path}; stop it first")
        self.path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._client, str(self.path), limit=REQUEST_MAX
            )
        finally:
            os.umask(old)

    async def stop(self) -> None:
        """Close the socket and all clients."""
        if self._server is not None:
            self._server.close()
            self.path.unlink(missing_ok=True)
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > CLIENTS_MAX:
                await _send(writer, _error("too many clients", 6))
            elif not permitted(writer.get_extra_info("socket")):
                await _send(writer, _error("only root and the daemon's user are served", 6))
            else:
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await asyncio.wait_for(reader.readline(), IDLE_S)
            except ValueError:  # longer than the limit
                await _send(writer, _error(f"request longer than {REQUEST_MAX} bytes", 2))
                return
            if not line.endswith(b"\n"):
                return
            reply = await self._answer(line, lambda part: _send(writer, part))
            if reply is None:
                return
            await _send(writer, reply)

    async def _answer(self, line: bytes, send: Send) -> Reply | None:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _error("the request is no JSON", 2)
        if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
            return _error('the request is no {"verb": ...}', 2)
        verb = self.verbs.get(request["verb"])
        if verb is None:
            return _error(f"no verb {request['verb'][:40]!r}; known: {', '.join(self.verbs)}", 2)
        try:
            return await verb(request, send)
        except (WatchdogError, AdeosError) as error:
            return _error(str(error), error.exit_code)
        except (OSError, TimeoutError):
            raise
        except Exception as error:  # the boundary: a bad request must not end the daemon
            log.write("error", "bug", verb=request["verb"], what=f"{type(error).__name__}: {error}")
            return _error(f"{request['verb']}: {type(error).__name__}: {error}", 1)


def _error(text: str, code: int) -> Reply:
    return {"ok": False, "error": text, "code": code}


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    """Send one reply; a client that does not read is given up."""
    if writer.transport.get_write_buffer_size() > REPLY_BUFFER:
        raise TimeoutError
    writer.write(json.dumps(reply).encode() + b"\n")
    await asyncio.wait_for(writer.drain(), WRITE_S)


def _answers(path: Path) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(str(path))
    except OSError:
        return False
    finally:
        probe.close()
    return True
