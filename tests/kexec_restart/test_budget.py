# SPDX-License-Identifier: GPL-2.0-or-later
"""The restart budget: free restarts, doubling waits, the end, and what clears it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kexec_restart.budget import SECOND, Account, Budget, charge, left, pause

BUDGET = Budget(
    intensity=2,
    period=60 * SECOND,
    delay=0,
    backoff=10 * SECOND,
    backoff_max=25 * SECOND,
    attempts=3,
    healthy=600 * SECOND,
)


def spend(times: list[int], account: Account = Account()) -> list[int | None]:  # noqa: B008
    delays = []
    for now in times:
        verdict = charge(BUDGET, account, now * SECOND, 0)
        account = verdict.account
        delays.append(verdict.delay if verdict.delay is None else verdict.delay // SECOND)
    return delays


def test_free_then_doubling_to_a_limit_then_the_end() -> None:
    assert spend([0, 1, 2, 3, 4, 5]) == [0, 0, 10, 20, 25, None]


@given(st.lists(st.integers(0, 20), max_size=12))
def test_what_is_left_is_what_is_granted(gaps: list[int]) -> None:
    account, now = Account(), 0
    for gap in gaps:
        now += gap * SECOND
        before = left(BUDGET, account, now)
        verdict = charge(BUDGET, account, now, 0)
        account = verdict.account
        assert (verdict.delay is None) == (before == 0)
        granted = 0
        while charge(BUDGET, account, now, 0).delay is not None:
            account, granted = charge(BUDGET, account, now, 0).account, granted + 1
        assert granted == left(BUDGET, verdict.account, now)
        account = verdict.account


def test_the_window_slides() -> None:
    assert spend([0, 1, 61, 62, 122]) == [0, 0, 0, 0, 0]


def test_healthy_running_clears_the_account() -> None:
    account = Account(restarts=(0, SECOND), waits=3)
    verdict = charge(BUDGET, account, 2 * SECOND, 600 * SECOND)
    assert verdict.delay == 0 and verdict.account.waits == 0


def test_capture_time_does_not_hide_a_crash_loop() -> None:
    """Dumps of 40 s: the faults are far apart on the wall, not on the budget's clock."""
    account, delays = Account(), []
    for fault in range(4):
        now = fault * 41 * SECOND
        verdict = charge(BUDGET, account, now, 0)
        account = pause(verdict.account, 40 * SECOND)
        delays.append(verdict.delay)
    assert delays[:2] == [0, 0] and delays[2] == 10 * SECOND


@given(st.lists(st.integers(0, 100 * SECOND), max_size=50))
def test_never_more_than_intensity_at_once_a_period(gaps: list[int]) -> None:
    account, now, free = Account(), 0, []
    for gap in gaps:
        now += gap
        verdict = charge(BUDGET, account, now, 0)
        account = verdict.account
        assert verdict.delay is None or 0 <= verdict.delay <= BUDGET.backoff_max
        if verdict.delay == 0:
            free.append(now)
    for index in range(len(free) - BUDGET.intensity):
        assert free[index + BUDGET.intensity] - free[index] >= BUDGET.period
