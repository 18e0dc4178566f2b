# SPDX-License-Identifier: GPL-2.0-or-later
"""How good the detector is, in the terms of Chen, Toueg and Aguilera.  Pure.

Detection time T_D from the incidents' stamps (seen - fault); mistakes from the
event log: a suspicion that ended without a fault.  Limits: the event log is
bounded, so mistakes are counted since its first record; time in which no
daemon watched is left out; a fault's own time is the vnode's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from crashdump.incident import Incident

WATCHED = frozenset({"running", "suspect"})


class Detection(NamedTuple):
    """T_D of one class of faults, in seconds."""

    faults: int
    p50: float
    p99: float
    max: float


@dataclass
class Mistakes:
    """Of one vnode; `watched`: seconds in which it lived and was watched, mistakes included."""

    name: str = ""
    count: int = 0
    seconds: float = 0.0
    watched: float = 0.0

    @property
    def rate(self) -> float:
        """lambda_M: mistakes a second."""
        return self.count / self.watched if self.watched else 0.0

    @property
    def accuracy(self) -> float:
        """P_A: the part of the time in which the verdict was right."""
        return 1.0 - self.seconds / self.watched if self.watched else 1.0


def quantile(ordered: list[float], q: float) -> float:
    """The smallest value that `q` of them do not exceed (nearest rank)."""
    rank = -int(-q * len(ordered) // 1)
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def detection(incidents: Iterable[Incident]) -> dict[str, Detection]:
    """T_D by reason; faults whose time nobody knows are left out."""
    times: dict[str, list[float]] = {}
    for one in incidents:
        if one.crash and "fault" in one.stamps and "seen" in one.stamps:
            seconds = (one.stamps["seen"] - one.stamps["fault"]) / 1e9
            times.setdefault(one.reason, []).append(seconds)
    found = {}
    for reason, values in sorted(times.items()):
        values.sort()
        p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
        found[reason] = Detection(len(values), p50, p99, values[-1])
    return found


def mistakes(records: Iterable[Mapping[str, Any]]) -> dict[int, Mistakes]:
    """By vnode, from the state changes in the event log."""
    found: dict[int, Mistakes] = {}
    since: dict[int, tuple[str, float]] = {}
    for record in records:
        vnode, when, state = record.get("vnode"), record.get("time"), record.get("event")
        if not isinstance(vnode, int) or not isinstance(when, int | float):
            continue
        if state == "adopted":
            since[vnode] = str(record.get("state")), when
        elif "was" in record:
            one = found.setdefault(vnode, Mistakes())
            one.name = str(record.get("name", ""))
            was, began = since.get(vnode, ("", when))
            if was == record["was"]:  # else nobody watched meanwhile
                _end(one, was, str(state), max(when - began, 0.0))
            since[vnode] = str(state), when
    return found


def _end(one: Mistakes, was: str, state: str, seconds: float) -> None:
    """A vnode's state was `was` for so long."""
    if was == "suspect" and state == "running":
        one.count += 1
        one.seconds += seconds
    if was in WATCHED:
        one.watched += seconds
