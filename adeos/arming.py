# SPDX-License-Identifier: GPL-2.0-or-later
"""Composes a vnode ahead, for kmb.ko to start by itself: Machine.arm().

    laid = lay(machine, image, placement, free=True)     # writes its region
    pieces(laid)                                         # what Arming wants

In a region that nobody uses it is written where it will run.  Where the vnode will be started in
its own region, and of its slot always, the bytes are handed over instead.
Limit: the digests are of what is meant to lie there, so kmb.ko refuses what does not.
"""

from __future__ import annotations

import hashlib
import mmap
from typing import NamedTuple

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.loader import Image, Placement, Plan, plan, write
from adeos.machine import ArmedPiece, Machine


class Laid(NamedTuple):
    """A composed vnode: where, and by what plan; `head` is its first MiB, `free` as in `lay`."""

    placement: Placement
    plan: Plan
    head: bytes
    low: bytes
    free: bool


def lay(
    machine: Machine, image: Image, placement: Placement, *, free: bool, preloaded: bool = False
) -> Laid:
    """Compose the vnode; `free`: nobody uses its region, `preloaded`: as in loader.load.

    ImageError or PlacementError.
    """
    region, slot = placement.region, placement.slot
    todo = plan(image, placement, machine.info())
    there = machine.view(*region, writable=True) if free else _scratch(region.size)
    low = _scratch(slot.size)
    write(machine, image, placement, todo, (there, low), preloaded=preloaded)
    tables = bytes(low[abi.VN_SLOT_PAGE_TABLES : abi.VN_SLOT_RAM])
    return Laid(placement, todo, bytes(there[: abi.VN_OFF_RAM]), tables, free)


def pieces(laid: Laid) -> tuple[ArmedPiece, ...]:
    """What it is made of, with digests; takes a while."""
    region, slot = laid.placement.region, laid.placement.slot
    head, held = Range(region.base, len(laid.head)), not laid.free
    found = [_piece(head, laid.head, held=held)]
    for one in laid.plan.pieces:
        if region.contains(one.place) and not head.contains(one.place):
            data = memoryview(one.data)[one.start : one.start + one.place.size]
            found.append(_piece(one.place, data, held=held))
    tables = Range(slot.base + abi.VN_SLOT_PAGE_TABLES, len(laid.low))
    return (*found, _piece(tables, laid.low, held=True))


def _piece(place: Range, data: bytes | memoryview, *, held: bool) -> ArmedPiece:
    return ArmedPiece(place, hashlib.sha256(data).digest(), bytes(data) if held else None)


def _scratch(size: int) -> memoryview:
    """Memory that costs what is written of it."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def predecessor(kept: bytes) -> tuple[Bridge, bytes]:
    """What a fire kept (Machine.fire_kept): the bridge as far as it tells of the fault, and the
    RAM of the low slot."""
    bridge = kept[: abi.KMB_FIRE_BRIDGE].ljust(abi.VN_BRIDGE_SIZE, b"\0")
    return Bridge(memoryview(bridge)), kept[abi.KMB_FIRE_BRIDGE :]
