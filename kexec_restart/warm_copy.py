# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts a frozen vnode's pages back where they belong.

Limits: the vnode's CPUs must be parked.  Pages that were free when it froze are left alone: their
content is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator

from adeos.abi import Range
from adeos.copying import move, same
from adeos.machine import Machine
from kexec_restart.warm_image import WarmImage


def put_back(machine: Machine, image: WarmImage, place: Range) -> int:
    """Write the region's pages that differ; how many.  `place`: where the image lies.

    Writing a page costs more than comparing it: under emulation its translated code is lost.
    The slot is left alone: all regions of a vnode share it.
    """
    return machine.put_back(image.identity.region, place, image.spans)


def unused(image: WarmImage) -> Iterator[Range]:
    """What of the region is not in the image, by address: free pages, and the bridge."""
    region = image.identity.region
    at = 0
    for place in image.places():
        if place.slot:
            break
        if place.offset > at:
            yield Range(region.base + at, place.offset - at)
        at = place.offset + place.size
    if at < region.size:
        yield Range(region.base + at, region.size - at)


def stands(image: WarmImage, region: memoryview) -> bool:
    """Whether the region holds what the image does; the slot is put back at each use."""
    return all(
        same(region, place.offset, image.view, place.at, place.size)
        for place in image.places()
        if not place.slot
    )


def put_back_slot(image: WarmImage, slot: memoryview) -> None:
    """The low slot alone."""
    for place in image.slot_places():
        move(slot, place.offset, image.view, place.at, place.size)
