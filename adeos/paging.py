# SPDX-License-Identifier: GPL-2.0-or-later
"""The identity page tables a vnode's CPU is started on: 2 MiB pages, in the low slot.

Limits: 4-level paging; the first GiB of the machine and as much of the region, from its start, as
the slot has pages for; one 512 GiB window each for both.  The kernel's own startup code maps the
rest when it needs it (arch/x86/boot/compressed/ident_map_64.c).
"""

import struct
from typing import Final

from adeos import abi
from adeos.abi import Range
from adeos.errors import PlacementError

GIB: Final = 1 << 30
PAGE: Final = 0x1000
_TABLE: Final = 0x7  # present, writable, user: the tables above do not restrict
_HUGE: Final = 0x83  # present, writable, 2 MiB page
_PAGES: Final = (abi.VN_SLOT_IOAPIC - abi.VN_SLOT_PAGE_TABLES) // PAGE


def identity_map(slot: int, region: Range, needed: int) -> tuple[int, bytes]:
    """Page tables for a slot at `slot`: their CR3 and bytes, to go to VN_SLOT_PAGE_TABLES.

    At least `needed` bytes from the region's start are mapped, else PlacementError.
    """
    base = slot + abi.VN_SLOT_PAGE_TABLES
    if region.end > 1 << 46:
        raise PlacementError(f"region at {region.base:#x} lies above 64 TiB")
    pages: dict[tuple[int, ...], int] = {(): 0}  # path of table indices -> page number
    entries: list[tuple[int, int, int]] = []  # page, index, value

    def table(path: tuple[int, ...]) -> int:
        if path not in pages:
            parent = table(path[:-1])
            pages[path] = len(pages)
            entries.append((parent, path[-1], base + pages[path] * PAGE | _TABLE))
        return pages[path]

    mapped = region.base
    for gib in dict.fromkeys([0, *range(region.base // GIB, -(-region.end // GIB))]):
        path = (gib >> 9, gib & 511)
        missing = sum(path[:n] not in pages for n in (1, 2))
        if len(pages) + missing > _PAGES:
            break
        page = table(path)
        start = gib * GIB
        entries.extend((page, n, start + (n << 21) | _HUGE) for n in range(512))
        if start <= mapped < start + GIB:
            mapped = start + GIB
    if mapped < region.base + needed:
        raise PlacementError(
            f"region at {region.base:#x}: its first {needed:#x} bytes span more GiB than the low"
            f" slot has page tables for"
        )
    tables = bytearray(len(pages) * PAGE)
    for page, index, value in entries:
        struct.pack_into("<Q", tables, page * PAGE + index * 8, value)
    return base, bytes(tables)
