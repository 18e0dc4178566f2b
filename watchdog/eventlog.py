# SPDX-License-Identifier: GPL-2.0-or-later
"""The event log: what the daemon saw and did, a JSON object a line, kept across daemons.

`events.jsonl` in the state directory, and `events.jsonl.1` before it: together
at most twice LIMIT bytes.  Records come in from any thread without waiting; a
thread of its own appends them, each with one write of a whole line, and waits
for the disk.  A line that a power failure tore is skipped by readers; the next
record begins on a line of its own.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from watchdog import log

LIMIT = 4 << 20
ROOM = 4096
"""Records that may wait for the disk."""
OFTEN = 60
"""Records of one event of one vnode in EVERY_S seconds: a vnode that flaps must not push out all
that is known of the others."""
EVERY_S = 60.0
TAIL = 1 << 16
"""Bytes looked through for the last record of an earlier daemon."""
NAME = "events.jsonl"

Record = dict[str, Any]


class EventLog:
    """Appends to the log in `directory`; `put` is a sink of watchdog.log."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME
        self.dropped = 0
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._drain, name="events", daemon=True)
        self._failed = ""
        self._rate = _Rate()
        self._seq = _last_seq(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def put(self, record: Record) -> None:
        """Take a record; one that does not fit is counted and dropped.  Never blocks."""
        skipped = self._rate.skipped(record, time.monotonic())
        if skipped is None:
            return
        if skipped:
            record = record | {"skipped_before": skipped}
        if self._queue.qsize() < ROOM:
            self._queue.put(record)
        else:
            self.dropped += 1

    def stop(self) -> None:
        """Write what is queued, for some seconds at most."""
        self._queue.put(None)
        self._thread.join(5.0)

    def _drain(self) -> None:
        while (record := self._queue.get()) is not None:
            time.sleep(log.LATE_S)
            batch = [record]
            while len(batch) < 256 and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    self._queue.put(None)
                    break
                batch.append(more)
            try:
                self._append(batch)
                self._failed = ""
            except OSError as error:
                self._complain(error)
        os.close(self._fd)

    def _append(self, batch: list[Record]) -> None:
        if self.dropped:
            batch[0] = batch[0] | {"dropped_before": self.dropped}
            self.dropped = 0
        for record in batch:
            self._seq += 1
            line = json.dumps({"seq": self._seq, **record}, separators=(",", ":")) + "\n"
            os.write(self._fd, line.encode())
        os.fdatasync(self._fd)
        if os.fstat(self._fd).st_size > LIMIT:
            self._rotate()

    def _rotate(self) -> None:
        self.path.rename(self.path.with_name(f"{NAME}.1"))
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fresh = os.open(self.path, flags, 0o600)
        os.close(self._fd)
        self._fd = fresh

    def _complain(self, error: OSError) -> None:
        """Once a failure: by the log this would come back here."""
        if self._failed != str(error):
            self._failed = str(error)
            print(f"error: events {self.path}: {error.strerror or error}", file=sys.stderr)


class _Rate:
    """How often each event of each vnode came."""

    def __init__(self) -> None:
        self._seen: dict[tuple[object, object], tuple[float, int]] = {}

    def skipped(self, record: Record, now: float) -> int | None:
        """None when the record is one too many, else how many were before it."""
        key = record.get("event"), record.get("vnode")
        began, count = self._seen.get(key, (now, 0))
        if now - began >= EVERY_S:
            self._seen[key] = now, 1
            return max(count - OFTEN, 0)
        self._seen[key] = began, count + 1
        return 0 if count < OFTEN else None


def _last_seq(path: Path) -> int:
    """The number of the last record there is."""
    for one in (path, path.with_name(f"{NAME}.1")):
        try:
            with one.open("rb") as file:
                file.seek(max(os.fstat(file.fileno()).st_size - TAIL, 0))
                found = [record["seq"] for record in parse(file.read())]
        except OSError:
            continue
        if found:
            return int(found[-1])
    return 0


def parse(data: bytes) -> Iterator[Record]:
    """The records of whole lines; what is none is skipped."""
    for line in data.split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("seq"), int):
            yield record


def read(directory: Path) -> Iterator[Record]:
    """All records, oldest first; OSError when a file that is there cannot be read."""
    seen = 0
    for name in (f"{NAME}.1", NAME):
        try:
            data = (directory / name).read_bytes()
        except FileNotFoundError:
            continue
        for record in parse(data):
            if record["seq"] > seen:  # a rotation in between shows a file twice
                seen = record["seq"]
                yield record


class Tail:
    """New records of a log that is being written, also over its rotation."""

    def __init__(self, directory: Path, after: int = 0) -> None:
        self.directory = directory
        self.seq = after
        self._read: tuple[int, int] | None = None
        """Inode and size of what was read last."""

    def poll(self) -> list[Record]:
        """What has come since."""
        try:
            found = (self.directory / NAME).stat()
        except FileNotFoundError:
            return []
        if (found.st_ino, found.st_size) == self._read:
            return []
        self._read = found.st_ino, found.st_size
        fresh = [record for record in read(self.directory) if record["seq"] > self.seq]
        if fresh:
            self.seq = fresh[-1]["seq"]
        return fresh
