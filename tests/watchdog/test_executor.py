# SPDX-License-Identifier: GPL-2.0-or-later
"""Every action that fails is answered, whatever it failed by."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from crashdump.errors import DiskFull
from watchdog import actions, events, executor

SPENT_S = 0.05


@pytest.mark.parametrize("error", [DiskFull("no room"), RuntimeError("a bug")])
def test_the_time_of_a_failed_capture_is_told(monkeypatch: Any, error: Exception) -> None:
    """It counts as little for the budget of restarts as that of one that went well."""

    async def fail(self: Any, unit: Any, action: Any) -> None:
        await asyncio.sleep(SPENT_S)
        raise error

    monkeypatch.setitem(executor.HANDLERS, actions.Capture, fail)
    run: Any = executor.Executor.carry_out
    event = asyncio.run(run(None, SimpleNamespace(id=1), actions.Capture(7)))
    assert isinstance(event, events.CaptureFailed)
    assert event.incarnation == 7 and str(error) in event.text
    assert event.duration >= SPENT_S * 1e9


def test_what_waits_for_the_loop_goes_between_two_actions(monkeypatch: Any) -> None:
    """A tick that is overdue; else one action follows the other at once."""

    async def act(self: Any, unit: Any, action: actions.Capture) -> None:
        done.append(f"action {action.incarnation}")

    async def main(overdue: bool) -> list[str]:
        done.clear()
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(done.append, "tick"))
        unit: Any = SimpleNamespace(id=1, queue=asyncio.Queue())
        for number in range(3):
            unit.queue.put_nowait(actions.Capture(number))
        made: Any = object.__new__(executor.Executor)
        made.host = SimpleNamespace(overdue=lambda: overdue)
        task = asyncio.ensure_future(made.run(unit))
        await unit.queue.join()
        while "tick" not in done:
            await asyncio.sleep(0)
        task.cancel()
        return list(done)

    done: list[str] = []
    monkeypatch.setitem(executor.HANDLERS, actions.Capture, act)
    acted = [f"action {number}" for number in range(3)]
    assert asyncio.run(main(overdue=False)) == [*acted, "tick"]
    assert asyncio.run(main(overdue=True)).index("tick") in (1, 2)
