# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that is handed to the urgent threads: results, errors, several at once, nobody waiting."""

import asyncio
import threading

import pytest

from watchdog import urgent


def test_a_result_and_an_error_come_back() -> None:
    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await urgent.run(lambda: 1 // 0)
        return await urgent.run(lambda: 42)

    assert asyncio.run(main()) == 42


def test_as_many_run_at_once_as_there_are_threads() -> None:
    barrier = threading.Barrier(urgent.THREADS, timeout=10)

    async def main() -> None:
        await asyncio.gather(*(urgent.run(barrier.wait) for _ in range(urgent.THREADS)))

    asyncio.run(main())


def test_who_stopped_waiting_takes_no_thread_along() -> None:
    over = threading.Event()

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(urgent.run(lambda: over.wait(10)), 0.05)

    asyncio.run(cancelled())
    over.set()  # the loop is closed by now
    test_as_many_run_at_once_as_there_are_threads()
