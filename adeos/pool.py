# SPDX-License-Identifier: GPL-2.0-or-later
"""Who gets which part of the memory given to vnodes: regions and low slots.

Pure bookkeeping, first fit from the lowest address.  Limits: ranges are kept, not memory: nothing
is cleared, nothing asks the machine; what other daemons gave out is made known by `reserve`.
"""

from collections.abc import Sequence

from adeos import abi
from adeos.abi import Range
from adeos.errors import PlacementError, PoolExhausted

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size_text(size: int) -> str:
    """`size` bytes in the largest unit that divides it: "256M"."""
    for unit in ("G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


class _Space:
    """Ranges given out of larger ones."""

    def __init__(self, what: str, given: Sequence[Range], align: int) -> None:
        self.what = what
        self.given = sorted(given)
        self.align = align
        self.taken: list[Range] = []

    def gaps(self) -> list[Range]:
        """Free ranges with aligned bases and sizes, by address."""
        gaps = []
        for given in self.given:
            start = given.base
            inside = [t for t in self.taken if t.overlaps(given)]
            for taken in [*inside, Range(given.end, 0)]:
                base = -(-start // self.align) * self.align
                end = taken.base // self.align * self.align
                if base < end:
                    gaps.append(Range(base, end - base))
                start = max(start, taken.end)
        return gaps

    def take(self, size: int, base: int | None) -> Range:
        if base is not None:
            return self.take_exactly(Range(base, size))
        for gap in self.gaps():
            if size <= gap.size:
                return self.mark(Range(gap.base, size))
        largest = max((gap.size for gap in self.gaps()), default=0)
        free = sum(gap.size for gap in self.gaps())
        raise PoolExhausted(
            f"no free {self.what} of {size_text(size)}: {size_text(free)} are free,"
            f" the largest piece is {size_text(largest)}",
            f"ask for at most {size_text(largest)}" if largest else "stop a vnode",
        )

    def take_exactly(self, wanted: Range) -> Range:
        where = f"{self.what} {size_text(wanted.size)} at {wanted.base:#x}"
        if wanted.base % self.align:
            raise PlacementError(f"{where} is not aligned to {size_text(self.align)}")
        if not any(given.contains(wanted) for given in self.given):
            places = ", ".join(f"{size_text(g.size)}@{g.base:#x}" for g in self.given) or "none"
            raise PlacementError(f"{where} is not given to vnodes", f"given are: {places}")
        for taken in self.taken:
            if taken.overlaps(wanted):
                fit = ", ".join(f"{size_text(g.size)}@{g.base:#x}" for g in self.gaps()) or "none"
                raise PlacementError(
                    f"{where} overlaps {size_text(taken.size)} at {taken.base:#x}",
                    f"free are: {fit}",
                )
        return self.mark(wanted)

    def mark(self, wanted: Range) -> Range:
        self.taken.append(wanted)
        self.taken.sort()
        return wanted

    def give_back(self, wanted: Range) -> None:
        if wanted not in self.taken:
            raise PlacementError(f"{self.what} at {wanted.base:#x} was not given out")
        self.taken.remove(wanted)


class Pool:
    """Regions out of `ranges`, low slots out of `low`."""

    def __init__(self, ranges: Sequence[Range], low: Range) -> None:
        self._regions = _Space("region", ranges, abi.VN_REGION_ALIGN)
        # The kernel reserves the first 64 KiB itself; a SIPI vector needs 4 KiB alignment only.
        self._slots = _Space("low slot", [low], 0x1000)

    def region(self, size: int, base: int | None = None) -> Range:
        """A free region of `size` bytes (rounded up to 2 MiB), at `base` when given.

        PoolExhausted when none is large enough, PlacementError when it cannot be there.
        """
        if size < abi.VN_REGION_MIN:
            raise PlacementError(
                f"a region of {size_text(size)} is too small",
                f"a vnode needs {size_text(abi.VN_REGION_MIN)}",
            )
        align = abi.VN_REGION_ALIGN
        return self._regions.take(-(-size // align) * align, base)

    def slot(self, ncpus: int) -> Range:
        """A free low slot for a vnode of `ncpus` CPUs."""
        if not 0 < ncpus <= abi.VN_MAX_CPUS:
            raise PlacementError(f"{ncpus} CPUs; a vnode has 1..{abi.VN_MAX_CPUS}")
        return self._slots.take(ncpus * abi.VN_SLOT_SIZE, None)

    def reserve(self, region: Range, slot: Range) -> None:
        """Marks what a running vnode that is adopted already owns; PlacementError on overlaps."""
        self._regions.take_exactly(region)
        try:
            self._slots.take_exactly(slot)
        except PlacementError:
            self._regions.give_back(region)
            raise

    def free_region(self, region: Range) -> None:
        """Gives a region back."""
        self._regions.give_back(region)

    def free_slot(self, slot: Range) -> None:
        """Gives a low slot back."""
        self._slots.give_back(slot)

    def free_regions(self) -> list[Range]:
        """The free pieces, by address."""
        return self._regions.gaps()

    def free_slots(self) -> list[Range]:
        """The free pieces of low memory, by address."""
        return self._slots.gaps()
