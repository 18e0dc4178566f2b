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
