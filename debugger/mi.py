# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb without a terminal: commands in, what each printed and gave out, by gdb's MI.

The user's .gdbinit is not read, so that a script gives the same everywhere.
Text of gdb is not made safe for a terminal here: who prints it does.

Limits: gdb is ended, with all that it waits for, when the time is over.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any

import msgspec
from pygdbmi.constants import GdbTimeoutError
from pygdbmi.IoManager import IoManager

from debugger import gdb
from debugger.attach import serving
from debugger.errors import GdbFailed, GdbTimedOut
from debugger.target import KernelTarget

_GATHER_SECONDS = 0.01  # pygdbmi's 0.2 s for more output would be paid at each command
_STEP_SECONDS = 1.0
_MAX_CONSOLE = 64 << 20

Record = Mapping[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """What became of one command.

    console  what it printed
    results  what it gave as MI data: of MI commands (`-thread-info`), and where it stopped
    error    gdb's words when it failed, else None
    """

    command: str
    console: str
    results: dict[str, Any]
    error: str | None
    seconds: float


def execute(
    factory: Callable[[], KernelTarget],
    commands: Sequence[str],
    *,
    timeout: float,
    program: str = "gdb",
) -> Iterator[Answer]:
    """Run gdb on a target and give it commands, one after the other, an answer for each.

    A command that starts with `-` is MI's.  GdbTimedOut when all of it takes longer than
    `timeout` seconds; GdbFailed when gdb ends early or cannot connect; and as debugger.attach.
    """
    end = time.monotonic() + timeout
    path = gdb.find(program)
    with serving([factory]) as (setups, place):
        (setup,) = setups.values()
        conversation = _Conversation(_command_line(path, place, setup), end)
        try:
            conversation.begin()
            for command in commands:
                yield conversation.ask(command)
        finally:
            conversation.close()


def _command_line(path: str, place: Path, setup: Sequence[str]) -> list[str]:
    return gdb.command_line(path, place, setup, ["-nx", "--interpreter=mi3"])


class _Conversation:
    """One gdb process; `end` is the monotonic time at which patience ends."""

    def __init__(self, line: list[str], end: float) -> None:
        self._end = end
        self._token = 0
        # In a session of its own: Ctrl-C is for us, who end it.
        self._process = subprocess.Popen(
            line, stdin=PIPE, stdout=PIPE, stderr=PIPE, bufsize=0, start_new_session=True
        )
        out, said, wrong = self._process.stdin, self._process.stdout, self._process.stderr
        assert out and said and wrong
        self._mi = IoManager(out, said, wrong, _GATHER_SECONDS)
        self._waiting: list[Record] = []

    def close(self) -> None:
        with self._process:  # which closes the pipes and waits
            self._process.kill()

    def begin(self) -> None:
        """Wait until gdb has loaded what it is to load; GdbFailed when it is not connected."""
        self._token += 1
        found, spoken = self._exchange("-thread-info")
        if not (found.get("payload") or {}).get("threads"):
            words = [str(r["payload"]).strip() for r in spoken if r["type"] == "log"]
            raise GdbFailed(f"gdb did not connect: {words[-1] if words else 'no threads'}")

    def ask(self, command: str) -> Answer:
        start = time.monotonic()
        self._token += 1
        text = command
        if not command.startswith("-"):
            text = f"-interpreter-exec console {json.dumps(command, ensure_ascii=False)}"
        result, spoken = self._exchange(text)
        results = dict(result["payload"] or {})
        error = None
        if result["message"] == "error":
            error = str(results.pop("msg", "")).strip() or "gdb gave no reason"
        elif result["message"] == "running":
            more, stopped = self._until(lambda r: r["message"] == "stopped")
            spoken += more
            results["stopped"] = stopped["payload"]
        return Answer(command, _console(spoken), results, error, round(time.monotonic() - start, 3))

    def _exchange(self, text: str) -> tuple[Record, list[Record]]:
        """The result of an MI command, and what was said before it."""
        token = self._token
        try:
            self._mi.write(f"{token}{text}", read_response=False)
        except OSError:
            raise GdbFailed("gdb ended early") from None
        spoken, result = self._until(lambda r: r["type"] == "result" and r["token"] == token)
        return result, spoken

    def _until(self, wanted: Callable[[Record], bool]) -> tuple[list[Record], Record]:
        """(what came before, the record that was wanted)."""
        before: list[Record] = []
        while True:
            while self._waiting:
                record = self._waiting.pop(0)
                if wanted(record):
                    return before, record
                before.append(record)
            left = self._end - time.monotonic()
            if left <= 0:
                raise GdbTimedOut("gdb took too long: give it more time with --timeout")
            try:
                self._waiting += self._mi.get_gdb_response(min(left, _STEP_SECONDS))
            except GdbTimeoutError:
                if self._process.poll() is not None:
                    raise GdbFailed("gdb ended early") from None


def _console(spoken: Sequence[Record]) -> str:
    """What a person would have seen: console, target and log output, but not the echo of errors."""
    kinds = ("console", "target", "output")
    text = "".join(str(r["payload"] or "") + "\n" * (r["type"] == "output")
                   for r in spoken if r["type"] in kinds)  # fmt: skip
    return text[:_MAX_CONSOLE]
