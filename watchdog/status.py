# SPDX-License-Identifier: GPL-2.0-or-later
"""Publishes the daemon's word in the root bridge, where observers read it without a server.

The table is also the journal a later daemon adopts vnodes by, so a state is
published before it is acted on.
"""

from __future__ import annotations

import os
import time
from functools import cache

from adeos import abi
from adeos.bridge import RootBridge
from watchdog.config import VnodeWatch
from watchdog.supervisor import restarts_left
from watchdog.unit import Unit

_TEXT = abi.VN_NAME_LEN - 1


def take_over(bridge: RootBridge, now: int, tsc_khz: int, period_us: int) -> int:
    """Become the daemon of the root bridge, keeping what the earlier one said; the new epoch."""
    head = abi.RootHead(
        magic=abi.VN_ROOT_MAGIC,
        abi=abi.VN_ABI_VERSION,
        pid=os.getpid(),
        beat=0,
        beat_tsc=now,
        start_tsc=now,
        tsc_khz=tsc_khz,
        late_ticks=0,
        period_us=period_us,
        epoch=0,
    )
    bridge.head()  # BridgeError: another version's, not to be kept
    return bridge.init(head, keep=True)


def publish(bridge: RootBridge, unit: Unit) -> None:
    """Write a vnode's entry, unless just that stands there."""
    word = describe(unit)
    if word != unit.published:
        bridge.publish(word)
        unit.published = word


def describe(unit: Unit) -> abi.Status:
    """What the daemon says of a vnode."""
    vnode, config, binding = unit.vnode, unit.config, unit.binding
    left = restarts_left(vnode, time.monotonic_ns())
    return abi.Status(
        seq=0,
        id=config.id,
        state=abi.StatusState(vnode.state.value),
        incarnation=vnode.incarnation,
        since_tsc=unit.since_tsc,
        region_base=unit.region.base if unit.region else 0,
        region_size=unit.region.size if unit.region else 0,
        slot_base=unit.slot.base if unit.slot else 0,
        slot_size=unit.slot.size if unit.slot else 0,
        ncpus=len(config.cpus),
        restarts=vnode.restarts,
        incidents=vnode.incidents,
        last_incident=unit.last_incident,
        name=config.name,
        reason=_fit(vnode.reason),
        cpu=binding.cpus if binding else config.cpus,
        apicid=unit.apicids,
        limit_us=_limits(config.watch),
        grants=sum(1 << other for other in unit.grants),
        controls=sum(1 << other for other in unit.controls),
        way=unit.warm.way,
        restarts_left=abi.VN_NEVER if left is None else min(left, abi.VN_NEVER - 1),
        image_tsc=unit.warm.image_tsc,
        standby_tsc=unit.warm.standby_tsc,
    )


@cache
def _limits(watch: VnodeWatch) -> tuple[int, ...]:
    """Microseconds, a layer each."""
    return tuple(layer.limit_ms * 1000 for layer in watch.layers)


def _fit(text: str) -> str:
    """As much of a text as the entry holds."""
    return text.encode()[:_TEXT].decode(errors="ignore")
