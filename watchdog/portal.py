# SPDX-License-Identifier: GPL-2.0-or-later
"""The doorbell from the root to a vnode."""

from __future__ import annotations

from adeos.machine import Machine
from watchdog.unit import Unit


def ring(machine: Machine, unit: Unit) -> bool:
    """Ring; False when its agent is not there, so that nobody would hear.  AdeosError."""
    side = unit.bridge.vnode_side() if unit.bridge is not None else None
    if side is None or not side.vector or side.incarnation != unit.vnode.incarnation:
        return False
    cpus = unit.apicids
    index = cpus.index(side.apicid) if side.apicid in cpus else 0
    machine.ipi(unit.id, index, side.vector)
    return True
