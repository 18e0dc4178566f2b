# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way from the dashboard to the machine, the incident store and the daemon.

It reads and asks; it decides nothing.  State is read from shared memory, so all of it but ask()
works while the daemon is dead.  Every method may block and belongs on a thread.
"""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adeos.bridge import Bridge, ConsoleReader
from adeos.errors import AdeosError
from adeos.peers import Granted
from tui.kernels import Kernels
from tui.look import Look, Vnode
from watchdog import observe

if TYPE_CHECKING:
    from adeos.machine import Machine
    from crashdump.analysis.report import Report
    from crashdump.incident import Incident
    from crashdump.store import IncidentStore
    from watchdog.client import Client as Daemon

RATE_WINDOW_S = 1.0
"""Rates are taken over so long: ten user beats at their default period."""
LOG_MAX = 1 << 20
"""Bytes of a saved log that are shown."""


class Console:
    """What a vnode wrote on its console since the last read, over its restarts."""

    def __init__(self, machine: Machine, vnode: int) -> None:
        self._machine = machine
        self._vnode = vnode
        self._start = -1
        self._reader: ConsoleReader | None = None

    def read(self) -> bytes:
        """As it was written, escapes and all; the first read has all that is still there."""
        binding = self._machine.query(self._vnode)
        if binding is None:
            return b""
        if self._reader is None or binding.start_tsc != self._start:
            self._start = binding.start_tsc
            self._reader = Bridge.open(self._machine, binding.region).console_reader()
        piece = self._reader.read()
        lost = f"\n[{piece.lost} bytes were lost]\n".encode() if piece.lost else b""
        return lost + piece.data


class Client:
    """Machine, store and daemon, as the screens use them."""

    def __init__(
        self,
        machine: Machine,
        daemon: Callable[[], Daemon],
        store: Callable[[], IncidentStore],
        kernels: Kernels | None = None,
    ) -> None:
        self._machine = machine
        self._daemon = daemon
        self._open_store = store
        self._store: IncidentStore | None = None
        self._stored = False
        self._earlier: deque[observe.Snapshot] = deque()
        self.kernels = kernels or Kernels(machine)

    # What is there

    def look(self) -> Look:
        """The vnodes now; rates are those since about RATE_WINDOW_S ago."""
        granted = isinstance(self._machine, Granted)
        try:
            now = observe.take(self._machine)
        except AdeosError as error:
            return Look(wall=time.time(), granted=granted, problem=str(error))
        rows = observe.describe(self._before(now), now)
        by_id = {row.id: row for row in rows}
        return Look(
            vnodes=tuple(
                self._vnode(now, sample, by_id[sample.status.id]) for sample in now.samples
            ),
            root=by_id.get(0),
            late_ticks=now.head.late_ticks if now.head is not None else 0,
            wall=time.time(),
            granted=granted,
        )

    def _before(self, now: observe.Snapshot) -> observe.Snapshot:
        """The youngest snapshot that is old enough, else the oldest there is."""
        self._earlier.append(now)
        while len(self._earlier) > 2:
            age = now.seconds(self._earlier[1].tsc)
            if age is None or age < RATE_WINDOW_S:
                break
            self._earlier.popleft()
        return self._earlier[0]

    def _vnode(self, now: observe.Snapshot, sample: observe.Sample, row: observe.Row) -> Vnode:
        binding = sample.binding
        holder = binding.holder if binding is not None else 0
        until = binding.held_until if binding is not None else 0
        lease = max(until - now.tsc, 0) / (now.tsc_khz * 1000)
        limits = tuple(us / 1e6 for us in sample.status.limit_us[:3])
        return Vnode(row, limits, holder, lease, self.kernels.usage(row.id))

    def console(self, vnode: int) -> Console:
        """A reader of a vnode's console with a position of its own."""
        return Console(self._machine, vnode)

    # Incidents

    @property
    def store(self) -> IncidentStore:
        """The incident store, for reading; opened anew once there is one."""
        if self._store is None or not self._stored:
            self._store = self._open_store()
            self._stored = self._store.database.exists()
        return self._store

    def incidents_stamp(self) -> tuple[int, ...]:
        """Changes when an incident does; much cheaper than to list them."""
        database = self.store.database
        return tuple(_changed_ns(Path(f"{database}{suffix}")) for suffix in ("", "-wal"))

    def incidents(self) -> list[Incident]:
        """All of them, newest first."""
        return self.store.list(reverse=True)

    def report(self, number: int) -> Report:
        """The analysis of an incident: as it was kept, else made now."""
        import msgspec

        from crashdump.analysis import report
        from crashdump.analysis.record import ANALYSIS_FILE
        from crashdump.analysis.run import analyze_incident

        try:
            data = (self.store.path(number) / ANALYSIS_FILE).read_bytes()
            return report.finished(report.decode(data))
        except (OSError, msgspec.DecodeError):
            return analyze_incident(self.store, number)

    def saved_log(self, number: int) -> list[str]:
        """The lines of the log that an incident's crash record kept; [] when it kept none."""
        from crashdump.capture import KMSG_FILE

        try:
            data = (self.store.path(number) / KMSG_FILE).read_bytes()[-LOG_MAX:]
        except OSError:
            return []
        return data.decode("utf-8", "backslashreplace").splitlines()

    def capsule(self, number: int, directory: Path) -> Path:
        """Writes an incident's redacted report as one HTML file; its path."""
        from crashdump.analysis import html
        from crashdump.analysis.redact import redacted
        from crashdump.files import replace_file

        path = directory / f"incident-{number}.html"
        replace_file(path, html.render(redacted(self.report(number))).encode(), sync=False)
        return path

    def export(self, number: int, directory: Path) -> Path:
        """Writes an incident's dump in the kdump format, read back; its path."""
        from crashdump import export

        record = self.store.get(number)
        if not record.dump.path:
            raise FileNotFoundError(2, f"incident {number} has no dump: it is {record.dump.state}")
        source = self.store.path(number) / record.dump.path
        path = directory / f"incident-{number}.kdump"
        if path.exists():
            raise FileExistsError(17, "is there already", str(path))
        return export.export(source, path, export.Format.KDUMP).path

    # The daemon

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """One command for the daemon, and its reply."""
        return self._daemon().call(verb, **arguments)

    def type(self, vnode: int, keys: bytes) -> int:
        """Keys for a vnode's console; how many bytes it took."""
        reply = self.ask("console-input", vnode=vnode, data=base64.b64encode(keys).decode())
        return int(reply.get("taken", 0))


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
