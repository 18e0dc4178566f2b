# SPDX-License-Identifier: GPL-2.0-or-later
"""Warm images: what is kept, what is put back, and that no damaged or foreign one is used."""

import hashlib
import random

import pytest

from adeos import abi
from adeos.abi import Range
from adeos.errors import WarmImageError
from adeos.fake import FakeMachine
from kexec_restart.warm_copy import put_back, put_back_slot, unused
from kexec_restart.warm_image import PAGE, Identity, Resume, Run, WarmImage, runs_in_use, size_of

REGION = Range(0x20200000, 64 << 20)
PLACE = Range(REGION.end, 2 << 20)
SLOT = Range(0x10000, 0x20000)
IDENTITY = Identity(2, REGION, SLOT, (2, 3), hashlib.sha256(b"kernel").digest())
RESUME = Resume(0x11000, 0xFFFFFFFFC0463BC0, 0x20, 1234, 5678)
USED = (0, 1, 0x8F, 0x90, 0xFF, 0x100, 0x101, 0x400, *range(0x500, 0x5A0), 0x3FFF)


def free_map(used=USED):
    free = bytearray(b"\xff" * (REGION.size // PAGE // 8))
    for page in used:
        free[page // 8] &= ~(1 << page % 8)
    return bytes(free)


@pytest.fixture
def machine():
    machine = FakeMachine()
    machine.claim()
    yield machine
    machine.close()


@pytest.fixture
def memory(machine):
    """Region and slot with content that tells pages apart, free pages too."""
    chance = random.Random(6)
    region, slot = machine.raw(*REGION), machine.raw(*SLOT)
    for page in (*USED, 0x600, 0x2000):
        region[page * PAGE : (page + 1) * PAGE] = chance.randbytes(PAGE)
    slot[:] = chance.randbytes(SLOT.size)
    return region, slot


@pytest.fixture
def image(machine, memory):
    runs = runs_in_use(free_map(), REGION, SLOT)
    view = machine.raw(*PLACE)[: size_of(runs) + PAGE]
    return WarmImage.capture(view, IDENTITY, RESUME, runs, *memory)


def test_runs_leave_out_free_pages_the_bridge_and_the_trampoline():
    runs = runs_in_use(free_map(), REGION, SLOT)
    first_of_slot = REGION.size // PAGE
    assert runs == [
        Run(0, 2),
        Run(0x8F, 1),
        Run(0x100, 2),
        Run(0x400, 1),
        Run(0x500, 0xA0),
        Run(0x3FFF, 1),
        Run(first_of_slot + 1, 0x20 - 1),
    ]


def test_without_a_map_everything_is_kept():
    runs = runs_in_use(bytes(abi.VN_FREE_PAGES_BYTES), REGION, SLOT)
    assert sum(run.pages for run in runs) == 0x4000 - 0x70 + 0x20 - 1


def test_a_captured_image_opens_with_how_to_resume(image):
    again = WarmImage.open(image.view, IDENTITY)
    assert again.resume == RESUME
    assert again.runs == image.runs
    again.verify()


def test_what_is_not_in_an_image_is_told_by_address(image):
    gaps = list(unused(image))
    assert gaps[0] == Range(REGION.base + 2 * PAGE, 0x8D * PAGE)
    assert gaps[-1] == Range(REGION.base + 0x5A0 * PAGE, (0x3FFF - 0x5A0) * PAGE)
    kept = sum(place.size for place in image.places() if not place.slot)
    assert sum(gap.size for gap in gaps) + kept == REGION.size


def test_put_back_heals_a_region_filled_with_ff(machine, image, memory):
    region, slot = memory
    before = bytes(region), bytes(slot)
    region[:] = b"\xff" * len(region)
    slot[:] = b"\xff" * len(slot)
    pages_of_slot = SLOT.size // PAGE - 1
    assert put_back(machine, image, PLACE) == image.npages - pages_of_slot
    put_back_slot(image, slot)
    for page in set(USED) - {0x90, 0xFF}:
        at = slice(page * PAGE, (page + 1) * PAGE)
        assert region[at] == before[0][at], hex(page)
    assert slot[PAGE:] == before[1][PAGE:]
    assert bytes(slot[:PAGE]) == b"\xff" * PAGE  # kmb.ko's
    bridge = slice(abi.VN_OFF_BRIDGE, abi.VN_OFF_RAM)
    assert bytes(region[bridge]) == b"\xff" * 0x70000
    assert put_back(machine, image, PLACE) == 0


def test_only_pages_that_differ_are_written(machine, image, memory):
    region, _ = memory
    region[0x510 * PAGE + 5] ^= 1
    region[0x3FFF * PAGE + PAGE - 1] ^= 1
    assert put_back(machine, image, PLACE) == 2
    assert put_back(machine, image, PLACE) == 0


def test_put_back_of_the_slot_alone(machine, image, memory):
    region, slot = memory
    before = bytes(slot)
    region[0x510 * PAGE] ^= 1
    slot[PAGE:] = bytes(len(slot) - PAGE)
    put_back_slot(image, slot)
    assert bytes(slot) == before
    assert put_back(machine, image, PLACE) == 1


def test_damage_at_500_random_places_is_always_found(image):
    chance = random.Random(500)
    heads = [chance.randrange(image.data) for _ in range(250)]
    places = [chance.randrange(image.data, image.size) for _ in range(250)]
    padding = image._sums + 4 * image.ngroups
    for at in (*heads, *places):
        bit = 1 << chance.randrange(8)
        image.view[at] ^= bit
        try:
            if padding <= at < image.data:
                WarmImage.open(image.view, IDENTITY).verify()  # holds nothing
            else:
                with pytest.raises(WarmImageError):
                    WarmImage.open(image.view, IDENTITY).verify()
        finally:
            image.view[at] ^= bit
    WarmImage.open(image.view, IDENTITY).verify()


@pytest.mark.parametrize("seed", range(20))
def test_rubbish_is_no_image(image, seed):
    image.view[8:] = random.Random(seed).randbytes(len(image.view) - 8)
    with pytest.raises(WarmImageError):
        WarmImage.open(image.view, IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        {"vnode": 3},
        {"region": Range(0x50000000, 64 << 20)},
        {"slot": Range(0x20000, 0x20000)},
        {"apicids": (2, 1)},
        {"apicids": (2,)},
        {"boots": hashlib.sha256(b"another kernel").digest()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_image_of_another_vnode_address_cpu_or_kernel_is_refused(image, change):
    with pytest.raises(WarmImageError, match="freeze the vnode anew"):
        WarmImage.open(image.view, IDENTITY._replace(**change))


@pytest.mark.parametrize(
    "runs",
    [
        [Run(0x90, 1)],  # the bridge
        [Run(0x80, 0x100)],
        [Run(0x4000, 1)],  # the trampoline
        [Run(0x3FFF, 2)],  # from the region into the slot
        [Run(0x4020, 1)],  # behind the slot
        [Run(5, 2), Run(6, 1)],
        [Run(5, 0)],
    ],
    ids=str,
)
def test_a_whole_header_with_a_wrong_map_is_refused(memory, runs):
    region = memoryview(bytearray(REGION.size + SLOT.size + PAGE))
    view = memoryview(bytearray(2 << 20))
    WarmImage.capture(view, IDENTITY, RESUME, runs, region, region)
    with pytest.raises(WarmImageError, match="page map"):
        WarmImage.open(view, IDENTITY)


def test_too_little_room_is_told(memory):
    runs = runs_in_use(free_map(), REGION, SLOT)
    view = memoryview(bytearray(size_of(runs) - 1))
    with pytest.raises(WarmImageError, match="into"):
        WarmImage.capture(view, IDENTITY, RESUME, runs, *memory)
