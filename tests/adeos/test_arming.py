# SPDX-License-Identifier: GPL-2.0-or-later
"""What is composed ahead is what a start would have composed; who may be armed, and until when."""

from __future__ import annotations

import pytest

from adeos import abi, arming, loader
from adeos.abi import FireState, Range
from adeos.bridge import Bridge
from adeos.errors import AdeosError, ParkedError
from adeos.kmb import arm_request
from adeos.machine import Arming

SPARE = Range(0x140000000, 0x8000000)
SEED = Range(0x12000, 0x100)


@pytest.fixture
def image(bzimage, cpio):
    return loader.Image.of(bzimage(), cpio({"init": b"x" * 5000}), "quiet", "synthetic")


def ready(machine, image, placed, region=SPARE) -> Arming:
    placement = placed._replace(region=region, incarnation=8)
    free = region != placed.region
    laid = arming.lay(machine, image, placement, free=free)
    return Arming(7, 8, 2000, (9, 9, 9), 5, region, *laid.plan.entry, arming.pieces(laid))


@pytest.mark.parametrize("free", [True, False])
def test_it_is_what_load_would_write(adeos_machine, image, placed, free: bool) -> None:
    entry = loader.load(adeos_machine, image, placed)
    parts = (placed.region, placed.slot)
    wanted = [bytearray(adeos_machine.view(*part)) for part in parts]
    for part in parts:
        adeos_machine.view(*part, writable=True)[:] = bytes(part.size)
    laid = arming.lay(adeos_machine, image, placed, free=free)
    pieces = arming.pieces(laid)
    assert len(pieces) <= abi.KMB_ARM_PIECES and laid.plan.entry == entry
    for piece in pieces:
        assert (piece.data is None) == (free and placed.region.contains(piece.place))
        if piece.data is not None:
            adeos_machine.view(*piece.place, writable=True)[:] = piece.data
    found = [bytearray(adeos_machine.view(*part)) for part in parts]
    side = abi.VN_OFF_BRIDGE + abi.VN_BR_ROOT
    for region in (wanted[0], found[0]):  # random numbers and the time
        region[SEED.base : SEED.end] = bytes(SEED.size)
        region[side : side + abi.ROOT_SIDE.size] = bytes(abi.ROOT_SIDE.size)
    assert found == wanted


def test_a_fire_moves_the_vnode_and_keeps_what_it_overwrites(
    adeos_machine, image, placed, running
) -> None:
    adeos_machine.arm(2, ready(adeos_machine, image, placed))
    running[1].crash(message="as if")
    assert adeos_machine.fire_now(2) is FireState.FIRED
    fire, binding = adeos_machine.fire(2), adeos_machine.query(2)
    assert (fire.old, fire.region, fire.cookie) == (placed.region, SPARE, 5)
    assert (binding.region, binding.started) == (SPARE, 1)
    bridge, low = arming.predecessor(adeos_machine.fire_kept(2))
    assert bridge.crash().message == "as if" and len(low) == placed.slot.size - abi.VN_SLOT_RAM
    assert Bridge.open(adeos_machine, SPARE).root_side().incarnation == 8


def test_the_request_of_it_is_what_it_says(adeos_machine, image, placed, running) -> None:
    armed = ready(adeos_machine, image, placed)
    data = abi.ARM.pack(arm_request(2, armed, [0, 0, 0, 7]))
    assert len(data) == abi.ARM.size
    found = abi.ARM.unpack(data)
    assert found[:7] == (2, 4, 7, 8, 2000, (9, 9, 9), 5)
    assert found[7:12] == (*SPARE, armed.cr3, armed.entry, armed.rsi)
    assert [Range(piece.pa, piece.size) for piece in found.piece[:4]] == [
        piece.place for piece in armed.pieces
    ]
    assert found.piece[3].data == 7 and found.piece[0].sha256 == armed.pieces[0].sha256


def test_what_ends_it(adeos_machine, image, placed, running) -> None:
    machine = adeos_machine
    armed = ready(machine, image, placed)
    machine.arm(2, armed)
    machine.clear(SPARE.base, 0x1000)
    assert machine.fire(2) is None
    machine.arm(2, ready(machine, image, placed))
    machine.disarm(2)
    assert machine.fire(2) is None
    machine.arm(2, armed := ready(machine, image, placed))
    machine.park(2)
    assert machine.fire(2) is None
    with pytest.raises(ParkedError):
        machine.arm(2, armed)


def test_what_is_refused(adeos_machine, image, placed, running) -> None:
    armed = ready(adeos_machine, image, placed)
    wrong = armed.pieces[0]._replace(sha256=bytes(32))
    inside = ready(adeos_machine, image, placed, placed.region)
    bare = tuple(piece._replace(data=None) for piece in inside.pieces)
    for bad in (
        armed._replace(pieces=(wrong, *armed.pieces[1:])),
        inside._replace(pieces=bare),
        armed._replace(region=Range(placed.region.base + 0x200000, placed.region.size)),
    ):
        with pytest.raises(AdeosError):
            adeos_machine.arm(2, bad)
