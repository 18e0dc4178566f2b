# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of an incident went: from TSC stamps to a table in milliseconds."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Stage(StrEnum):
    """What happens to a vnode that fails, in order."""

    FAULT = "fault"
    """First sign of the fault in the vnode; for a hang, its last beat."""
    REPORTED = "reported"
    """The agent's crash record was complete; absent for a hang."""
    SEEN = "seen"
    """The root noticed."""
    FENCED = "fenced"
    """All its CPUs confirmed that they are parked."""
    CAPTURED = "captured"
    """Its memory is held or copied: the successor may start."""
    RESTORED = "restored"
    """Its image is in its place and checked; absent where the successor boots."""
    STARTED = "started"
    """The successor's first CPU got its SIPI."""
    RESUMED = "resumed"
    """The successor's devices were back, its tasks about to run; absent where it boots."""
    RUNNING = "running"
    """The successor's first user beat came."""


ORDER = tuple(Stage)


class Row(NamedTuple):
    """``at_ms`` since the first stamp, ``step_ms`` since the stage before."""

    stage: Stage
    at_ms: float
    step_ms: float


def since_fault(stamps: Mapping[Stage, int], tsc_khz: int) -> dict[str, int]:
    """TSC stamps as nanoseconds since the fault (or the first stage there is).

    A vnode writes the stamps of fault and report: those later than the first of
    the root's own stamps are drawn back to it, so no time comes out negative.

    :raises ValueError: ``tsc_khz`` is not positive.
    """
    if tsc_khz <= 0:
        raise ValueError(f"TSC frequency of {tsc_khz} kHz")
    known = [(stage, stamps[stage]) for stage in ORDER if stage in stamps]
    bound: int | None = None
    ordered: list[tuple[Stage, int]] = []
    for stage, tsc in reversed(known):
        bound = tsc if bound is None else min(bound, tsc)
        ordered.append((stage, bound))
    ordered.reverse()
    return {str(stage): (tsc - ordered[0][1]) * 1_000_000 // tsc_khz for stage, tsc in ordered}


def table(stamps: Mapping[str, int]) -> list[Row]:
    """The rows of an incident's ``stamps`` (nanoseconds since the fault), in order."""
    rows: list[Row] = []
    before = 0
    for stage in ORDER:
        at = stamps.get(stage)
        if at is not None:
            rows.append(Row(stage, at / 1e6, (at - before) / 1e6))
            before = at
    return rows
