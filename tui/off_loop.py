# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that blocks, kept off the UI loop; and what went wrong with it, as one line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from textual.dom import DOMNode

T = TypeVar("T")


def start(
    node: DOMNode,
    work: Callable[[], Coroutine[Any, Any, None]],
    group: str,
    *,
    exclusive: bool = False,
) -> None:
    """Runs `work` on the loop as a worker of a node; `exclusive` ends the group's one before it.

    A function, not a coroutine: one that is cancelled before it began must not be left unawaited.
    """
    node.run_worker(work, group=group, exclusive=exclusive)  # type: ignore[arg-type]  # textual's


async def off_loop(work: Callable[[], T]) -> T:
    """What `work` returns or raises, done on a thread of its own.

    The thread is a daemon: the program ends without waiting for a search through memory.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T may itself be None

    def run() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = work()
        except BaseException as error:
            failed = error
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:
            pass  # the program has ended meanwhile

    threading.Thread(target=run, daemon=True, name="tui").start()
    return await future


def one_line(error: BaseException) -> str:
    """What went wrong, for people: the toolkit's own errors say it, others name their kind."""
    text = " ".join(str(error).split())
    if getattr(error, "exit_code", None) is not None:
        return text
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return f"internal error, {type(error).__name__}: {text}"
