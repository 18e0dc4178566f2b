# SPDX-License-Identifier: GPL-2.0-or-later
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from adeos import abi
from adeos.errors import PlacementError, PoolExhausted
from adeos.machine import Range
from adeos.pool import Pool, size_text
from watchdog.spans import parse_size

MIB = 1 << 20
RANGES = [Range(0x20000000, 512 * MIB), Range(0x140000000, 256 * MIB)]
LOW = Range(0x10000, 0x80000)


class PoolModel(RuleBasedStateMachine):
    """Whatever is taken and given back: nothing overlaps, all lies inside, nothing leaks."""

    def __init__(self):
        super().__init__()
        self.pool = Pool(RANGES, LOW)
        self.regions = []
        self.slots = []

    @rule(size=st.integers(64, 300), base=st.none() | st.integers(0, 255).map(lambda n: n * 2))
    def take_region(self, size, base):
        where = None if base is None else RANGES[base & 1].base + base * MIB
        try:
            region = self.pool.region(size * MIB, where)
        except (PoolExhausted, PlacementError):
            return
        assert where is None or region.base == where
        assert region.size >= size * MIB
        self.regions.append(region)

    @rule(ncpus=st.integers(1, 4))
    def take_slot(self, ncpus):
        try:
            self.slots.append(self.pool.slot(ncpus))
        except PoolExhausted:
            return

    @precondition(lambda self: self.regions)
    @rule(data=st.data())
    def free_region(self, data):
        region = data.draw(st.sampled_from(self.regions))
        self.regions.remove(region)
        self.pool.free_region(region)

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def free_slot(self, data):
        slot = data.draw(st.sampled_from(self.slots))
        self.slots.remove(slot)
        self.pool.free_slot(slot)

    def teardown(self):
        for taken, given_ in ((self.regions, RANGES), (self.slots, [LOW])):
            assert all(not a.overlaps(b) for a, b in combinations(taken, 2))
            assert all(any(g.contains(t) for g in given_) for t in taken)
        assert all(region.base % abi.VN_REGION_ALIGN == 0 for region in self.regions)
        free = sum(gap.size for gap in self.pool.free_regions())
        assert free + sum(r.size for r in self.regions) == sum(r.size for r in RANGES)
        free = sum(gap.size for gap in self.pool.free_slots())
        assert free + sum(s.size for s in self.slots) == LOW.size


TestPoolModel = PoolModel.TestCase


def test_errors_say_what_is_free_and_what_would_fit():
    pool = Pool(RANGES, LOW)
    pool.region(256 * MIB)
    with pytest.raises(PoolExhausted) as caught:
        pool.region(300 * MIB)
    assert str(caught.value) == (
        "no free region of 300M: 512M are free, the largest piece is 256M; ask for at most 256M"
    )
    assert caught.value.exit_code == 8
    with pytest.raises(PlacementError, match=r"overlaps 256M at 0x20000000; free are: 256M@0x3"):
        pool.region(64 * MIB, 0x24000000)
    with pytest.raises(PlacementError, match="not given to vnodes; given are: 512M@0x20000000"):
        pool.region(64 * MIB, 0x100000000)
    with pytest.raises(PlacementError, match="not aligned to 2M"):
        pool.region(64 * MIB, 0x30001000)
    with pytest.raises(PlacementError, match="too small"):
        pool.region(MIB)
    pool.slot(8)
    with pytest.raises(PoolExhausted, match="stop a vnode"):
        pool.slot(1)


def test_adoption_takes_all_or_nothing():
    pool = Pool(RANGES, LOW)
    region, slot = Range(0x28000000, 128 * MIB), Range(0x20000, 0x20000)
    pool.reserve(region, slot)
    with pytest.raises(PlacementError):
        pool.reserve(Range(0x140000000, 64 * MIB), slot)
    assert pool.region(64 * MIB, 0x140000000).base == 0x140000000
    assert pool.slot(1).base == 0x10000
    assert pool.slot(1).base == 0x40000


@given(st.integers(1, 1 << 39))
def test_size_text_is_exact(size):
    assert parse_size(size_text(size)) == size
