# SPDX-License-Identifier: GPL-2.0-or-later
"""Short `key=value` lines on stderr, written by a thread of its own.

A reader that does not read (a full pipe, a slow journal) must never stop the
watch: lines go through a bounded queue, and those that do not fit are counted
and dropped.
"""

from __future__ import annotations

import os
import queue
import sys
import threading

_LEVELS = {"error": 3, "warning": 4, "info": 6}
_queue: queue.Queue[str | None] = queue.Queue(1000)
_thread: threading.Thread | None = None
_dropped = 0


def write(level: str, event: str, **fields: object) -> None:
    """One line: the event and its fields; never blocks.  Levels: error, warning, info."""
    global _dropped
    line = " ".join([event, *(f"{key}={_show(value)}" for key, value in fields.items())])
    if "JOURNAL_STREAM" in os.environ:
        line = f"<{_LEVELS[level]}>{line}"
    elif level != "info":
        line = f"{level}: {line}"
    try:
        _queue.put_nowait(line)
    except queue.Full:
        _dropped += 1


def _show(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return f'"{text}"' if not text or " " in text else text


def start() -> None:
    """Start the writing thread."""
    global _thread
    if _thread is None:
        _thread = threading.Thread(target=_drain, name="log", daemon=True)
        _thread.start()


def stop() -> None:
    """Write what is queued, for a second at most."""
    global _thread
    if _thread is not None:
        try:
            _queue.put(None, timeout=0.5)
        except queue.Full:
            return
        _thread.join(1.0)
        _thread = None


def _drain() -> None:
    global _dropped
    while (line := _queue.get()) is not None:
        if _dropped:
            line += f" dropped_lines={_dropped}"
            _dropped = 0
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except OSError:
            pass
