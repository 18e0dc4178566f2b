# SPDX-License-Identifier: GPL-2.0-or-later
"""What is prepared in a free region serves the next start there, and harms no vnode."""

from __future__ import annotations

import pytest

from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.errors import PoolExhausted
from adeos.fake import FakeMachine
from kexec_restart.images import Stage
from watchdog import composer as composers
from watchdog.composer import Composer
from watchdog.config import VnodeConfig
from watchdog.placement import Placement
from watchdog.supervisor import Vnode
from watchdog.unit import Unit


class Bench:
    """One vnode placed on a machine, a spare region beside it."""

    def __init__(self, kernel) -> None:
        self.machine = FakeMachine()
        self.machine.claim()
        self.placement = Placement(self.machine)
        self.composer = Composer(self.machine, Stage())
        config = VnodeConfig(id=2, name="web", kernel=str(kernel), cpus=(2,), memory="64M")
        self.unit = Unit(config, Vnode())
        self.placement.place(self.unit)
        self.spare = self.placement.peek(self.unit)
        self.loads: list[dict[str, object]] = []

    def prepare(self) -> None:
        self.composer.prepare(self.unit, self.spare, self.composer.composed)

    def move(self, region: Range) -> None:
        """The vnode's next start is in `region`."""
        self.unit.region = region
        self.placement.place(self.unit)


@pytest.fixture
def bench(tmp_path, rig_tools, monkeypatch):
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(rig_tools.tiny_bzimage())
    bench = Bench(kernel)
    load = composers.load

    def watched(*args, **options):
        bench.loads.append(options)
        return load(*args, **options)

    monkeypatch.setattr(composers, "load", watched)
    return bench


def content(bench, region):
    """All but the bridge and the random seed."""
    data = bytearray(bench.machine.view(*region))
    data[0x12000:0x13000] = bytes(0x1000)
    data[0x80000:0x100000] = bytes(0x80000)
    return bytes(data)


def test_a_prepared_region_is_not_loaded_again_and_is_the_same(bench):
    bench.prepare()
    bench.move(bench.spare)
    bench.composer.compose(bench.unit, 7)
    assert bench.loads[0]["preloaded"] and bench.loads[0]["ahead"] is not None
    prepared = content(bench, bench.spare)
    assert Bridge.open(bench.machine, bench.spare).root_side().incarnation == 7
    bench.machine.clear(*bench.spare)
    bench.composer.compose(bench.unit, 8)
    assert bench.loads[1] == {"preloaded": False, "ahead": None}, "used once"
    assert content(bench, bench.spare) == prepared


def test_a_region_given_away_since_is_left_alone(bench):
    counted = bench.composer.composed
    bench.move(bench.spare)
    bench.composer.compose(bench.unit, 7)
    before = bytes(bench.machine.view(*bench.spare))
    bench.composer.prepare(bench.unit, bench.spare, counted)
    assert bytes(bench.machine.view(*bench.spare)) == before


def test_a_start_over_part_of_a_prepared_region_spoils_it(bench):
    bench.prepare()
    half = Range(bench.spare.base + (32 << 20), bench.spare.size)
    bench.move(half)
    bench.composer.compose(bench.unit, 7)
    bench.move(bench.spare)
    bench.composer.compose(bench.unit, 8)
    assert [one["preloaded"] for one in bench.loads] == [False, False]


def test_another_slot_wants_another_plan(bench):
    bench.prepare()
    bench.unit.slot = bench.placement.pool.slot(1)
    bench.move(bench.spare)
    bench.composer.compose(bench.unit, 7)
    assert bench.loads == [{"preloaded": True, "ahead": None}]


def test_only_what_is_prepared_is_composed_at_once(bench):
    bench.prepare()
    assert not bench.composer.ready(bench.unit), "its own region holds no plan"
    bench.move(bench.spare)
    assert bench.composer.ready(bench.unit)
    bench.composer.compose(bench.unit, 7)
    assert not bench.composer.ready(bench.unit)


def test_two_vnodes_are_prepared_apart_while_there_is_room(bench):
    placement, unit = bench.placement, bench.unit
    config = VnodeConfig(id=3, name="db", kernel="", cpus=(3,), memory="64M")
    other = Unit(config, Vnode())
    placement.place(other)
    first, second = placement.peek(unit), placement.peek(other)
    assert not first.overlaps(second)
    assert (placement.peek(unit), placement.peek(other)) == (first, second), "they stay"
    assert placement.spare(other) == second, "not the first that is free"
    rest = []
    with pytest.raises(PoolExhausted):
        while True:
            rest.append(placement.pool.region(64 << 20))
    placement.pool.free_region(rest.pop())
    assert placement.peek(unit) == placement.peek(other) is not None
    placement.pool.region(64 << 20)
    assert placement.peek(unit) is placement.spare(other) is None


def test_a_small_vnode_makes_way_for_a_large_one(bench):
    """Both are shown the hole that only the large one needs, until another comes free."""
    placement, unit = bench.placement, bench.unit
    config = VnodeConfig(id=3, name="db", kernel="", cpus=(3,), memory="128M")
    other = Unit(config, Vnode())
    placement.place(other)
    rest = []
    with pytest.raises(PoolExhausted):
        while True:
            rest.append(placement.pool.region(64 << 20))
    one, two = rest[2], rest[3]
    assert two.base == one.end
    for region in (one, two):
        placement.pool.free_region(region)
    assert placement.peek(unit) == one
    assert placement.peek(other).overlaps(one)
    placement.pool.free_region(rest[-1])
    assert placement.peek(unit) == rest[-1]
    assert placement.peek(other).overlaps(one), "it stays"
