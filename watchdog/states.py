# SPDX-License-Identifier: GPL-2.0-or-later
"""The states of a vnode as the root sees it, and what a fault is."""

from __future__ import annotations

import enum

from msgspec import Struct


class State(enum.Enum):
    """What the root says of a vnode; the values are enum vn_status_state."""

    OFFLINE = 0
    """Never started, or its image could not be loaded."""
    LOADING = 1
    """Its memory is being composed, by an operator's wish."""
    BOOTING = 2
    """Its boot CPU was started; no user beat of this incarnation yet."""
    RUNNING = 3
    """A user beat of this incarnation was seen and no layer is late."""
    SUSPECT = 4
    """A layer is late, but not yet beyond its limit."""
    CRASHED = 5
    """A fault was seen; the fence is on its way."""
    FENCED = 6
    """All its CPUs are parked; its memory is being captured or preserved."""
    RESTARTING = 7
    """By policy or wish: being fenced, waiting its back-off, or being loaded."""
    HALTED = 8
    """It halted or rebooted by itself and stays down by policy."""
    STOPPED = 9
    """An operator, or the policy `destroy`, stopped it."""
    QUARANTINED = 10
    """Restarts did not help, or the fence failed; an operator must clear it."""
    HELD = 11
    """A debugger has stopped it: its beats are missing, and are not missed."""

    @property
    def word(self) -> str:
        """The word shown everywhere."""
        return self.name.lower()


LIVE = frozenset({State.BOOTING, State.RUNNING, State.SUSPECT, State.HELD})
IDLE = frozenset({State.OFFLINE, State.FENCED, State.HALTED, State.STOPPED, State.QUARANTINED})

RECORDED = frozenset({"panic", "oops", "mce"})
"""Reasons whose crash record the vnode's agent writes by itself."""

OPERATOR = "operator"
"""The reason of a state that was wished for."""

PROBED = frozenset({"irqhang"})
"""Verdicts that a probe must prove: a CPU that its host lets stand still looks the same."""


class Fault(Struct, frozen=True):
    """What happened to a vnode, and when.

    `reason`: panic, oops, mce, irqhang, softlockup, hang, boot, corrupt, freeze,
    halt, reboot, kexec, interrupted or dump.  `cpu`: within the vnode, -1 = all or unknown.
    `crash` is False for an orderly halt or reboot, and for a dump.  Stamps are TSC cycles, 0 =
    unknown.
    """

    reason: str
    incarnation: int
    cpu: int = -1
    crash: bool = True
    fault_tsc: int = 0
    reported_tsc: int = 0
    seen_tsc: int = 0
