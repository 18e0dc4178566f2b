# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the operator's programs when an incident is closed, away from the watch.

Each gets the incident (as in incident.json) on its standard input, a time
limit, and no more than a few kilobytes of output, which is logged.  One that
overstays is killed with its children.  Best effort: a killed daemon forgets
hooks that it had not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from crashdump.incident import Incident, clean, encode
from watchdog import log
from watchdog.config import Hooks as HooksConfig

OUTPUT_MAX = 4096
PENDING_MAX = 100
_ENVIRONMENT = ("PATH", "HOME", "LANG", "VNODE_DEBUG_STATE", "VNODE_DEBUG_RUN")


class Hooks:
    """Runs hooks one after the other; `config` may be replaced at any time."""

    def __init__(self, config: HooksConfig) -> None:
        self.config = config
        self._queue: asyncio.Queue[Incident] = asyncio.Queue(PENDING_MAX)

    def incident(self, incident: Incident) -> None:
        """An incident was closed."""
        if not self.config.on_incident:
            return
        try:
            self._queue.put_nowait(incident)
        except asyncio.QueueFull:
            log.write("warning", "hook-dropped", id=incident.id, pending=PENDING_MAX)

    async def run(self) -> None:
        """Run what comes in, for ever."""
        while True:
            incident = await self._queue.get()
            for argv in self.config.on_incident:
                await self._one(argv, incident)

    async def _one(self, argv: tuple[str, ...], incident: Incident) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
            )
        except (OSError, ValueError) as error:
            log.write("error", "hook", id=incident.id, program=argv[0], what=error)
            return
        output = bytearray()
        code = "killed"
        try:
            async with asyncio.timeout(self.config.timeout_s):
                await _feed(process, encode(incident))
                await _collect(process, output)
                code = str(await process.wait())
        except TimeoutError:
            log.write("error", "hook-timeout", id=incident.id, program=argv[0])
        finally:
            if process.returncode is None:  # not reaped, so its number is still its own
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        level = "info" if code == "0" else "warning"
        said = clean(bytes(output), OUTPUT_MAX)
        log.write(level, "hook", id=incident.id, program=argv[0], code=code, output=said)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    """A program that does not read its input is none the worse."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()


async def _collect(process: asyncio.subprocess.Process, output: bytearray) -> None:
    """Its first words; the rest is read and dropped, so that it does not wait for us."""
    assert process.stdout is not None
    while chunk := await process.stdout.read(65536):
        output += chunk[: max(OUTPUT_MAX - len(output), 0)]
