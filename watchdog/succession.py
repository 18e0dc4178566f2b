# SPDX-License-Identifier: GPL-2.0-or-later
"""Who succeeds the root: named to kmb.ko, and told where the root's memory lies (grants.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adeos.errors import AdeosError
from watchdog import grants, log

if TYPE_CHECKING:
    from watchdog.service import Service


def appoint(service: Service) -> None:
    """Name the config's successor, or none; the former one's view of the root ends.

    A kmb.ko that refuses costs the succession and nothing else.
    """
    chosen = service.config.successor
    try:
        service.machine.successor(chosen)
    except AdeosError as error:
        log.write("error", "successor", vnode=chosen, what=error)
        chosen = 0
    for unit in service.units.values():
        if unit.succeeds == (unit.id == chosen):
            continue
        unit.succeeds = unit.id == chosen
        grants.write(service.machine, service.units, unit)
        if unit.succeeds:
            log.write("info", "successor", vnode=unit.id, name=unit.config.name)
