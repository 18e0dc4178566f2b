# SPDX-License-Identifier: GPL-2.0-or-later
"""How often a vnode may be restarted by itself, and how long to wait in between.

Pure.  Intensity and period as in Erlang/OTP's supervisor; the back-off doubles
as in Kubernetes' CrashLoopBackOff.  Times are integer nanoseconds of any
steady clock.
"""

from __future__ import annotations

from typing import NamedTuple

SECOND = 1_000_000_000


class Budget(NamedTuple):
    """Limits: `intensity` free restarts a period, then waits, then `attempts` waits at most."""

    intensity: int
    period: int
    delay: int
    backoff: int
    backoff_max: int
    attempts: int
    healthy: int


class Account(NamedTuple):
    """What was spent: times of recent restarts, waits in a row, time that does not count."""

    restarts: tuple[int, ...] = ()
    waits: int = 0
    paused: int = 0


class Verdict(NamedTuple):
    """`delay` before the next restart in nanoseconds, None when the budget is spent."""

    delay: int | None
    account: Account


def charge(budget: Budget, account: Account, now: int, healthy_for: int) -> Verdict:
    """Charge one restart.

    `healthy_for`: how long the vnode had been running.  Paused time (see
    `pause`) is taken out of the window, so that slow dumps cannot hide a
    crash loop.
    """
    clock = now - account.paused
    if healthy_for >= budget.healthy:
        account = Account(paused=account.paused)
    recent = tuple(t for t in account.restarts if clock - t < budget.period)
    if len(recent) < budget.intensity:
        waits = account.waits if recent else 0
        return Verdict(budget.delay, Account((*recent, clock), waits, account.paused))
    if account.waits >= budget.attempts:
        return Verdict(None, Account(recent, account.waits, account.paused))
    wait = min(budget.backoff << min(account.waits, 32), budget.backoff_max)
    spent = Account((*recent[1:], clock), account.waits + 1, account.paused)
    return Verdict(max(wait, budget.delay), spent)


def left(budget: Budget, account: Account, now: int) -> int:
    """Restarts, at once or after a wait, that `charge` grants before it says None."""
    clock = now - account.paused
    recent = sum(clock - t < budget.period for t in account.restarts)
    waits = account.waits if recent else 0
    return max(budget.intensity - recent, 0) + max(budget.attempts - waits, 0)


def pause(account: Account, duration: int) -> Account:
    """Take `duration` nanoseconds, e.g. of a capture, out of the window."""
    return account._replace(paused=account.paused + max(duration, 0))
