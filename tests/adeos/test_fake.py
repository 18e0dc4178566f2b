# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that the fake machine shares with /dev/kmb, and what its vnodes do."""

import select

import pytest

from adeos import abi
from adeos.errors import (
    FenceError,
    MachineMissing,
    OwnerError,
    ParkedError,
    PlacementError,
)
from adeos.fake import FakeMachine
from adeos.kmb import KmbMachine
from adeos.machine import Machine, Range

REGION = Range(0x30000000, 0x8000000)
SLOT = Range(0x10000, 0x20000)


def readable(machine):
    return bool(select.select([machine], [], [], 0)[0])


def test_it_is_a_machine():
    machine: Machine = FakeMachine()
    assert [cpu.cpu for cpu in machine.cpus()] == [1, 2, 3]
    assert machine.info().nranges == len(machine.info().range) == 2
    assert machine.query(2) is None
    machine.close()


def test_observers_change_nothing():
    machine = FakeMachine()
    for call in (
        lambda: machine.bind(2, [2], REGION, SLOT),
        lambda: machine.unbind(2),
        lambda: machine.park(2),
        lambda: machine.nmi(2, 0),
        lambda: machine.clear(REGION.base, 4096),
        lambda: machine.view(REGION.base, 4096, writable=True),
    ):
        with pytest.raises(OwnerError):
            call()
    with pytest.raises(TypeError):
        machine.view(REGION.base, 4096)[0] = 1
    machine.foreign_owner = 42
    with pytest.raises(OwnerError, match="42"):
        machine.claim()


@pytest.mark.parametrize(
    ("vnode", "cpus", "region", "slot"),
    [
        (0, [2], REGION, SLOT),
        (32, [2], REGION, SLOT),
        (2, [], REGION, SLOT),
        (2, [2, 2], REGION, SLOT),
        (2, [9], REGION, SLOT),
        (2, [1], REGION, SLOT),  # CPU of vnode 1
        (2, [2], Range(0x30000001, 0x8000000), SLOT),
        (2, [2], Range(0x30000000, 0x8000001), SLOT),
        (2, [2], Range(0x3F000000, 0x8000000), SLOT),  # beyond the range
        (2, [2], Range(0x20000000, 0x8000000), SLOT),  # the root bridge
        (2, [2], Range(0x28000000, 0x8000000), SLOT),  # memory of vnode 1
        (2, [2], REGION, Range(0x40000, 0x10000)),  # slot of vnode 1
        (2, [2], REGION, Range(0x90000, 0x10000)),
        (2, [2], REGION, Range(0x10000, 0x8000)),
    ],
)
def test_bindings_are_checked(adeos_machine, vnode, cpus, region, slot):
    adeos_machine.bind(1, [1], Range(0x28000000, 0x8000000), Range(0x40000, 0x10000))
    with pytest.raises(PlacementError):
        adeos_machine.bind(vnode, cpus, region, slot)
    assert adeos_machine.query(vnode) is None


def test_memory_outside_what_is_given_cannot_be_seen(adeos_machine):
    for base, size in ((0, 4096), (0x3FFFF000, 0x2000), (REGION.base, 0), (1 << 60, 4096)):
        with pytest.raises(PlacementError):
            adeos_machine.view(base, size)


def test_a_running_vnode_is_parked_before_anything_is_done_to_it(adeos_machine, running):
    for call in (
        lambda: adeos_machine.unbind(2),
        lambda: adeos_machine.bind(2, [2, 3], Range(0x28000000, 0x8000000), SLOT),
        lambda: adeos_machine.start(2, cr3=0x11000, entry=REGION.base, rsi=REGION.base),
        lambda: adeos_machine.clear(REGION.base, 4096),
    ):
        with pytest.raises(PlacementError):
            call()
    adeos_machine.park(2)
    _, vnode = running
    beats = bytes(adeos_machine.view(REGION.base + abi.VN_OFF_BRIDGE, 0x3000))
    vnode.beat()
    vnode.crash()
    assert bytes(adeos_machine.view(REGION.base + abi.VN_OFF_BRIDGE, 0x3000)) == beats
    with pytest.raises(ParkedError):
        adeos_machine.nmi(2, 0)
    adeos_machine.bind(2, [2, 3], Range(0x28000000, 0x8000000), SLOT)
    adeos_machine.unbind(2)
    assert {cpu.state for cpu in adeos_machine.cpus()} == {abi.KMB_CPU_IDLE}


def test_a_cpu_that_does_not_park_is_lost(adeos_machine, running):
    adeos_machine.unparkable = {3}
    with pytest.raises(FenceError, match="CPU 3"):
        adeos_machine.park(2)
    states = {cpu.cpu: cpu.state for cpu in adeos_machine.cpus()}
    assert states == {1: abi.KMB_CPU_IDLE, 2: abi.KMB_CPU_PARKED, 3: abi.KMB_CPU_LOST}
    adeos_machine.unparkable.clear()
    assert adeos_machine.park(2) > 0


def test_portals_ring_until_they_are_read(adeos_machine, running):
    _, vnode = running
    assert readable(adeos_machine)
    (event,) = adeos_machine.events()
    assert (event.vnode, event.rings) == (2, 1)
    assert not readable(adeos_machine)
    assert adeos_machine.events() == []
    vnode.beat()
    vnode.halt()
    (event,) = adeos_machine.events()
    assert event.rings == 2 and event.last_tsc >= event.tsc


@pytest.mark.parametrize("kind", abi.Inject)
def test_every_injected_fault_shows_as_what_it_is(adeos_machine, running, kind):
    bridge, vnode = running
    abi.ROOT_SIDE.put(bridge.view, abi.VN_BR_ROOT, "flags", abi.VN_F_INJECT)
    vnode.beat()
    number = bridge.command(abi.Cmd.INJECT, kind | 1 << 8)
    adeos_machine.ipi(2, 0, bridge.vnode_side().vector)
    assert bridge.command_result(number) == 0
    before = bridge.beat_counts(2)()
    vnode.beat()
    moved = tuple(a - b for a, b in zip(bridge.beat_counts(2)(), before, strict=True))[:3]
    expected = {
        abi.Inject.PANIC: (abi.State.CRASHED, (0, 0, 0)),
        abi.Inject.OOPS: (abi.State.CRASHED, (0, 0, 0)),
        abi.Inject.HANG: (abi.State.RUNNING, (1, 1, 0)),
        abi.Inject.SOFTLOCKUP: (abi.State.RUNNING, (1, 0, 0)),
        abi.Inject.IRQHANG: (abi.State.RUNNING, (0, 0, 0)),
        abi.Inject.HALT: (abi.State.HALTED, (0, 0, 0)),
        abi.Inject.REBOOT: (abi.State.REBOOT, (0, 0, 0)),
        abi.Inject.STUCK: (abi.State.RUNNING, (1, 1, 1)),
    }
    assert (bridge.vnode_side().state, moved) == expected[kind]
    number = bridge.command(abi.Cmd.PING)
    adeos_machine.ipi(2, 0, vnode.VECTOR)
    heard = bridge.command_result(number) == 0
    assert heard == (kind is not abi.Inject.IRQHANG)


def test_without_the_device_there_is_one_clear_line(tmp_path):
    missing = tmp_path / "kmb"
    with pytest.raises(MachineMissing) as caught:
        KmbMachine(str(missing))
    assert str(caught.value) == f"there is no {missing}; load kmb.ko"
    assert caught.value.exit_code == 5
    missing.write_bytes(b"")
    with pytest.raises(MachineMissing, match="does not know this command"):
        KmbMachine(str(missing))


@pytest.mark.parametrize(
    "wrong",
    [
        {"cr3": REGION.base},
        {"cr3": SLOT.base + 0x1008},
        {"cr3": SLOT.base},
        {"entry": REGION.base},
        {"cr4": 0},
        {"cr4": 0x40020},
    ],
    ids=str,
)
def test_nothing_is_resumed_outside_of_its_own_kernel(wrong):
    machine = FakeMachine()
    machine.claim()
    machine.bind(2, [2], REGION, SLOT)
    right = {"cr3": SLOT.base + 0x1000, "entry": 0xFFFFFFFFC0001000, "cr4": 0x20}
    with pytest.raises(PlacementError):
        machine.resume(2, **(right | wrong))
    machine.resume(2, **right)
    with pytest.raises(PlacementError, match="not parked"):
        machine.resume(2, **right)
