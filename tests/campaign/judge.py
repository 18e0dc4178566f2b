# SPDX-License-Identifier: GPL-2.0-or-later
"""What a shot's record says: contained or escaped, and what else was not as foreseen.  Pure.

An *escape* is harm outside the vnodes that were to fail: another vnode or the root.  A *miss* is
anything else that is wrong: not detected, another reason, no dump, another title, no successor,
something left over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.campaign.catalogue import End, Fault, How

CONFIDENCE = 0.95


class Verdict(NamedTuple):
    """Lines of text, empty when all is well."""

    escapes: list[str]
    misses: list[str]


def bound(n: int, escapes: int = 0, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound of the share of faults that are contained, 0..1.

    Clopper and Pearson (1934); without an escape it is (1 - confidence) ** (1 / n).
    """
    if not 0 <= escapes <= n:
        raise ValueError(f"{escapes} escapes of {n}")
    if n == 0 or escapes == n:
        return 0.0
    risk = 1 - confidence
    if not escapes:
        return float(risk ** (1 / n))
    low, high = 0.0, 1.0
    for _ in range(60):  # P(at most `escapes` of n fail | share) falls as the share falls
        share = (low + high) / 2
        if _tail(n, escapes, share) < risk:
            low = share
        else:
            high = share
    return low


def _tail(n: int, escapes: int, share: float) -> float:
    """Probability of `escapes` or fewer escapes of n when `share` are contained."""
    term = share**n
    total = term
    for k in range(1, escapes + 1):
        if share == 0:
            return 0.0
        term *= (n - k + 1) / k * (1 - share) / share
        total += term
    return total


def judge(fault: Fault, record: dict[str, Any]) -> Verdict:
    """The verdict on a finished shot (the fields are runner.py's)."""
    return Verdict(list(_escapes(record)), list(_misses(fault, record)))


def _escapes(record: dict[str, Any]) -> Iterable[str]:
    for name, other in record.get("others", {}).items():
        for what in other.get("harm", ()):
            yield f"vnode {name}: {what}"
    for what in record.get("root", ()):
        yield f"root: {what}"


def _misses(fault: Fault, record: dict[str, Any]) -> Iterable[str]:
    yield from record.get("trouble", ())
    yield from record.get("left", ())
    for number, victim in record.get("victims", {}).items():
        for what in _victim(fault, victim):
            yield f"vnode {number}: {what}"


def _victim(fault: Fault, victim: dict[str, Any]) -> Iterable[str]:
    incidents = victim["incidents"]
    if fault.end is End.STAYS and incidents:
        yield f"was taken for dead: {incidents[0]['reason']}"
    if fault.end in (End.STAYS, End.EITHER) and not incidents:
        if not victim["alive"]:
            yield "neither runs nor was it noticed"
        return
    if not incidents:
        yield "not detected"
        return
    wanted = "halted" if fault.end is End.HALTED else "running"
    if victim["state"] != wanted:
        yield f"is {victim['state']}, not {wanted}"
    if len(incidents) != 1 + fault.repeats:
        reasons = ", ".join(one["reason"] for one in incidents)
        yield f"{len(incidents)} incidents, not {1 + fault.repeats}: {reasons}"
    for one in incidents:
        yield from _incident(fault, one)


def _incident(fault: Fault, one: dict[str, Any]) -> Iterable[str]:
    if one["reason"] not in fault.reasons:
        yield f"reason {one['reason']}, not {' or '.join(fault.reasons)}"
    if not one["crash"]:
        return
    if one["dump"] not in ("done", "removed"):
        yield f"dump is {one['dump']}: {one['why']}"
    if not one["title"]:
        yield "not analysed"
        return
    if fault.how in (How.BOOT, How.NO_INIT):
        return  # several faults in one: their titles are theirs
    if fault.title and not re.fullmatch(fault.title, one["title"]):
        yield f"title {one['title']!r}"
    if fault.culprit and one["culprit"] != fault.culprit:
        yield f"culprit {one['culprit']!r}, not {fault.culprit!r}"
