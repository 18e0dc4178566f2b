# SPDX-License-Identifier: GPL-2.0-or-later
"""The incident store: a directory an incident, and SQLite as its index.

    store = IncidentStore(Path("/var/lib/vnode-debug"))
    incident = store.create(vnode=2, name="web", incarnation=7, reason="panic", crash=True)
    store.update(incident.id, stamps={...})
    store.finish(incident.id, IncidentState.COMPLETE)

``incidents/NNNN/incident.json`` is the truth: it is replaced atomically, before
the row in ``incidents.db`` changes.  A database that is lost or damaged is moved
aside and rebuilt from those files (an update with ``file=False`` is lost then, if
nothing was changed since); an incident written there by a process killed
before its row is taken in at the next start.  Processes may share a store, each
opens its own; the threads of a process may share one, they take turns.

A killed process loses nothing.  After a power failure an incident is at least as
new as its creation (or its first sync, when created without) and, once finished,
complete; what came in between may be older.
"""

import contextlib
import errno
import fcntl
import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from crashdump import incident as records
from crashdump.errors import NoSuchIncident, StoreError
from crashdump.files import disk_full, replace_file
from crashdump.incident import Incident, IncidentState

SCHEMA_VERSION = 1
BUSY_SECONDS = 10.0
_TABLE = """
CREATE TABLE IF NOT EXISTS incident (
  id INTEGER PRIMARY KEY, vnode INTEGER NOT NULL, opened REAL NOT NULL,
  reason TEXT NOT NULL, state TEXT NOT NULL, dump TEXT NOT NULL, json BLOB NOT NULL)
"""
_PUT = "INSERT OR REPLACE INTO incident VALUES (?, ?, ?, ?, ?, ?, ?)"
_NAME = re.compile(r"\d{4,9}")


class IncidentStore:
    """Incidents under ``directory``, which is made when needed (mode 0700).

    :param read_only: for observers: nothing is made, repaired or changed.
    :raises StoreError: the directory cannot be used; :class:`DiskFull`: no room.
    """

    def __init__(
        self,
        directory: Path,
        *,
        read_only: bool = False,
        warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        self.directory = directory
        self.incidents = directory / "incidents"
        self.database = directory / "incidents.db"
        self._warn = warn
        self._mutex = threading.RLock()
        with self._problems():
            self._db = self._open_observer() if read_only else self._open_owner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    # -- the interface

    def path(self, number: int) -> Path:
        """The directory of an incident."""
        return self.incidents / f"{number:04d}"

    def create(self, *, sync: bool = True, **fields: Any) -> Incident:
        """A new, open incident with a number and a directory of its own.

        :param sync: wait until it is on the disk; a killed process loses nothing either way.
        :param fields: of :class:`Incident`; vnode, name, incarnation, reason and
            crash are needed, ``opened`` is now when not given.
        """
        opened = fields.pop("opened", None) or time.time()
        with self._problems(), self._transaction():
            (number,) = self._db.execute("SELECT coalesce(max(id), 0) FROM incident").fetchone()
            number = self._make_directory(number + 1)
            blank = Incident(number, 0, "", 0, "", False, opened)
            incident = records.changed(blank, fields)
            self._put(incident, sync=sync)
        return incident

    def sync(self, number: int) -> None:
        """Waits until what is known of an incident is on the disk."""
        self.update(number, sync=True)

    def update(
        self, number: int, *, sync: bool = False, file: bool = True, **fields: Any
    ) -> Incident:
        """Changes ``fields`` of an incident; the others stay as any process left them.

        :param file: False writes the row alone, which a kill leaves whole too, and spares 10 ms:
            ext4 flushes a file that replaces another.  The next change writes the file.
        :param sync: wait until it is on the disk.
        :raises NoSuchIncident: there is none of that number.
        """
        with self._problems(), self._transaction():
            incident = records.changed(self.get(number), fields)
            if file:
                self._put(incident, sync=sync)
            else:
                self._put_row(incident)
        return incident

    def finish(
        self, number: int, state: IncidentState = IncidentState.COMPLETE, **fields: Any
    ) -> Incident:
        """Closes an incident; the dump may still be written afterwards."""
        return self.update(number, sync=True, state=state, closed=time.time(), **fields)

    def get(self, number: int) -> Incident:
        """:raises NoSuchIncident: there is none of that number."""
        with self._problems():
            row = self._db.execute("SELECT json FROM incident WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise NoSuchIncident(
                    f"no incident {number} in {self.directory}; `vnode-debug incidents` lists them"
                )
            return records.decode(row[0])

    def list(
        self,
        *,
        vnode: int | None = None,
        since: float | None = None,
        until: float | None = None,
        reason: str | None = None,
        state: IncidentState | None = None,
        dumps: frozenset[records.DumpState] | None = None,
        limit: int = -1,
        reverse: bool = False,
    ) -> list[Incident]:
        """Incidents by number; ``since`` and ``until`` bound ``opened`` (Unix times, inclusive).

        :param reverse: newest first.
        """
        tests: list[tuple[str, Any]] = [
            ("vnode = ?", vnode),
            ("opened >= ?", since),
            ("opened <= ?", until),
            ("reason = ?", reason),
            ("state = ?", state),
        ]
        used = [(test, value) for test, value in tests if value is not None]
        if dumps is not None:
            used += [(f"dump IN ({','.join('?' * len(dumps))})", list(dumps))]
        where = " AND ".join(test for test, _ in used) or "1"
        values: list[Any] = []
        for _, value in used:
            values += value if isinstance(value, list) else [value]
        order = "DESC" if reverse else "ASC"
        query = f"SELECT json FROM incident WHERE {where} ORDER BY id {order} LIMIT ?"
        with self._problems():
            return [records.decode(row[0]) for row in self._db.execute(query, (*values, limit))]

    # -- opening and repairing

    def _open_observer(self) -> sqlite3.Connection:
        if not self.database.exists():
            connection = sqlite3.connect(":memory:", check_same_thread=False)
            connection.execute(_TABLE)
            return connection
        return self._connect("?mode=ro")

    def _open_owner(self) -> sqlite3.Connection:
        self.incidents.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        with self._repair_lock():
            self.database.touch(mode=0o600)
            try:
                connection = self._checked()
            except sqlite3.DatabaseError as problem:
                if isinstance(problem, sqlite3.OperationalError):
                    raise  # locked, full, no permission: not damaged
                self._move_aside(str(problem))
                self.database.touch(mode=0o600)
                connection = self._checked()
            self._db = connection
            self._take_in()
        return connection

    def _connect(self, query: str = "") -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{self.database.as_posix().replace('?', '%3f').replace('#', '%23')}{query}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            connection.close()
            raise StoreError(
                f"{self.database} was written by a newer version (schema {version}, this one"
                f" knows {SCHEMA_VERSION}); upgrade, or use another state directory"
            )
        return connection

    def _checked(self) -> sqlite3.Connection:
        """A connection to a sound database, its table made.

        :raises sqlite3.DatabaseError: it is damaged.
        """
        connection = self._connect()
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            (word,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if word != "ok":
                raise sqlite3.DatabaseError(word)
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _move_aside(self, why: str) -> None:
        aside = self.database.with_name(f"incidents.db.damaged-{time.time_ns()}")
        self.database.rename(aside)
        for suffix in ("-wal", "-shm"):
            Path(f"{self.database}{suffix}").unlink(missing_ok=True)
        self._warn(f"{self.database} is damaged ({why}); moved to {aside.name} and rebuilt")

    def _take_in(self) -> None:
        """Rows for incidents that have a file but no row, or a newer one than an open row."""
        with self._transaction():
            rows = self._db.execute("SELECT id, CASE state WHEN 'open' THEN json END FROM incident")
            known = dict(rows.fetchall())
            for path in sorted(self.incidents.iterdir()):
                if not _NAME.fullmatch(path.name):
                    continue
                row = known.get(int(path.name), b"")
                if row is None:
                    continue  # closed: its last row and file are the same
                found = self._read_file(path)
                if found and (not row or found.rev > records.decode(row).rev):
                    self._put_row(found)

    def _read_file(self, path: Path) -> Incident | None:
        try:
            found = records.decode((path / "incident.json").read_bytes())
        except FileNotFoundError:
            return None  # killed before the first write: there is nothing to lose
        except (msgspec.DecodeError, OSError) as problem:
            self._warn(f"{path}/incident.json cannot be read ({records.clean(str(problem))})")
            return None
        return found if found.id == int(path.name) else None

    @contextlib.contextmanager
    def _repair_lock(self) -> Iterator[None]:
        """Keeps two processes from repairing at once."""
        fd = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    # -- writing

    def _make_directory(self, number: int) -> int:
        """A fresh directory from ``number`` on: one may be left of a killed process."""
        while True:
            try:
                self.path(number).mkdir(mode=0o700)
                return number
            except FileExistsError:
                if not any(self.path(number).iterdir()):
                    return number
                number += 1

    def _put(self, incident: Incident, *, sync: bool) -> None:
        data = records.encode(incident)
        replace_file(self.path(incident.id) / "incident.json", data, sync=sync)
        self._put_row(incident)

    def _put_row(self, one: Incident) -> None:
        data = msgspec.json.encode(one)
        state = str(one.state)
        row = (one.id, one.vnode, one.opened, one.reason, state, str(one.dump.state), data)
        self._db.execute(_PUT, row)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        """One thread at a time; errors of SQLite and the file system become this package's."""
        try:
            with self._mutex:
                yield
        except sqlite3.Error as problem:
            if "full" in str(problem):
                raise disk_full(self.directory, "an incident") from problem
            hint = "stop whatever holds it" if "locked" in str(problem) else "restart to rebuild it"
            raise StoreError(f"{self.database}: {problem}; {hint}") from problem
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(self.directory, "an incident") from problem
            raise StoreError(
                f"{problem.filename or self.directory}: {problem.strerror};"
                " the state directory must be writable by this user"
            ) from problem
        except msgspec.DecodeError as problem:
            raise StoreError(f"{self.database}: a row is unreadable ({problem})") from problem
