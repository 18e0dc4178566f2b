# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's machine protocol, blocking: commands one after the other, events kept for later."""

import json
import socket
from typing import Any

from debugger.errors import NothingThere, TargetError

TIMEOUT = 30.0  # QEMU answers between two instructions of a busy guest: late on a busy host
_MAX_LINE = 16 << 20
_MAX_EVENTS = 1000


class Qmp:
    """A connection; NothingThere when nobody answers at the socket, or no QEMU."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._events: list[str] = []
        self._held = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(path)
            greeting = self._message()
            if "QMP" not in greeting:
                raise ValueError("something else answers")
            self.command("qmp_capabilities")
        except (TimeoutError, BlockingIOError):  # QEMU talks to one client at a time
            self._socket.close()
            raise NothingThere(f"{path}: no answer: is another client connected?") from None
        except (OSError, ValueError, EOFError) as error:
            self._socket.close()
            words = getattr(error, "strerror", None) or str(error) or "no answer"
            raise NothingThere(f"{path}: no QMP there: {words}") from None

    def close(self) -> None:
        self._socket.close()

    def command(self, name: str, **arguments: Any) -> Any:
        """What a command returns; TargetError when QEMU refuses it or is gone."""
        request = json.dumps({"execute": name, "arguments": arguments})
        try:
            self._socket.sendall(request.encode() + b"\n")
            while True:
                reply = self._message()
                if "error" in reply:
                    raise TargetError(f"QEMU refuses {name}: {reply['error'].get('desc')}")
                if "return" in reply:
                    return reply["return"]
                self._note(reply)
        except (OSError, ValueError, EOFError) as error:
            raise TargetError(f"QEMU does not answer {name}: {error}") from None

    def monitor(self, line: str) -> str:
        """The output of a command of the human monitor."""
        return str(self.command("human-monitor-command", **{"command-line": line}))

    def events(self) -> list[str]:
        """The names of the events that have come; "EOF" when QEMU is gone."""
        self._socket.setblocking(False)
        try:
            while True:
                self._note(self._message())
        except BlockingIOError:
            pass
        except (OSError, ValueError, EOFError):
            self._events.append("EOF")
        finally:
            self._socket.settimeout(TIMEOUT)
        found, self._events = self._events, []
        return found

    def _note(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._events = [*self._events[-_MAX_EVENTS:], str(message["event"])]

    def _message(self) -> dict[str, Any]:
        while b"\n" not in self._held:
            data = self._socket.recv(65536)
            if not data:
                raise EOFError("the connection was closed")
            self._held += data
            if len(self._held) > _MAX_LINE:
                raise ValueError("a line is too long")
        line, _, self._held = self._held.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("no JSON object")
        return message
