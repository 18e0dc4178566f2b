# SPDX-License-Identifier: GPL-2.0-or-later
"""Structured records: `key=value` lines (or JSON) on stderr, and to sinks such as the event log.

A reader that does not read (a full pipe, a slow journal) must never stop the
watch: records go through a bounded queue to a thread of their own, and those
that do not fit are counted and dropped.  The thread waits a little first: while
a vnode is restarted the watch has the interpreter for itself.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_LEVELS = {"error": 3, "warning": 4, "info": 6}
_ROOM = 1000
LATE_S = 0.05
"""How long after it was written a record may be printed."""
_thread: threading.Thread | None = None
_dropped = 0
_as_json = False

Record = dict[str, Any]
_queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
sinks: set[Callable[[Record], None]] = set()
"""Called with each record on the thread that wrote it; must not block."""


def write(level: str, event: str, **fields: object) -> None:
    """One record: the event and its fields; never blocks.  Levels: error, warning, info."""
    global _dropped
    record: Record = {"time": time.time(), "level": level, "event": event}
    record |= {key: _plain(value) for key, value in fields.items()}
    for sink in tuple(sinks):
        sink(record)
    if _queue.qsize() < _ROOM:
        _queue.put(record)
    else:
        _dropped += 1


def _text(record: Record) -> str:
    level = record["level"]
    fields = {key: value for key, value in record.items() if key not in ("time", "level", "event")}
    line = words(record["event"], fields)
    if "JOURNAL_STREAM" in os.environ:
        return f"<{_LEVELS[level]}>{line}"
    return line if level == "info" else f"{level}: {line}"


def words(event: str, fields: Record) -> str:
    """The event and its fields as people read them."""
    return " ".join([event, *(f"{key}={_show(value)}" for key, value in fields.items())])


def _show(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return f'"{text}"' if not text or " " in text else text


def _plain(value: object) -> object:
    """What JSON can say; anything else as its text."""
    return value if isinstance(value, str | int | float) or value is None else str(value)


def _json(record: Record) -> str:
    return json.dumps(record, separators=(",", ":"))


def start(*, as_json: bool = False) -> None:
    """Start the writing thread."""
    global _thread, _as_json
    _as_json = as_json
    if _thread is None:
        _thread = threading.Thread(target=_drain, name="log", daemon=True)
        _thread.start()


def stop() -> None:
    """Write what is queued, for a second at most."""
    global _thread
    if _thread is not None:
        _queue.put(None)
        _thread.join(1.0)
        _thread = None


def _drain() -> None:
    global _dropped
    while (record := _queue.get()) is not None:
        if _queue.empty():
            time.sleep(LATE_S)
        if _dropped:
            count, _dropped = _dropped, 0
            write("warning", "log", dropped_lines=count)
        line = _json(record) if _as_json else _text(record)
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except OSError:
            pass
