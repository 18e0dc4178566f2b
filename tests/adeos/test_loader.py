# SPDX-License-Identifier: GPL-2.0-or-later
import gzip
import struct
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adeos import abi, loader, paging
from adeos.bootparams import E820
from adeos.bridge import Bridge
from adeos.copying import copy_in, fill
from adeos.errors import AdeosError, ImageError, OwnerError, PlacementError
from adeos.fake import FakeMachine
from adeos.initrd import check_initrd
from adeos.machine import Range
from bench import stock

MIB = 1 << 20


@pytest.fixture
def image(bzimage, cpio):
    return loader.Image.of(bzimage(), cpio({"init": b"x" * 5000}), "quiet mine=1", "synthetic")


def read(machine, base, size):
    return bytes(machine.view(base, size))


def test_a_vnode_is_composed_as_planned(adeos_machine, placed, image):
    region, slot = placed.region, placed.slot
    todo = loader.plan(image, placed, adeos_machine.info())
    assert read(adeos_machine, region.base, region.size).count(0) == region.size
    entry = loader.load(adeos_machine, image, placed)
    assert entry == todo.entry
    assert entry == (slot.base + 0x1000, region.base + 0x1000200, region.base + 0x10000)
    for piece in todo.pieces:
        if piece.what != "random seed":
            data = piece.data[piece.start : piece.start + piece.place.size]
            assert read(adeos_machine, *piece.place) == data, piece.what
    text = read(adeos_machine, region.base + abi.VN_OFF_CMDLINE, 4096).partition(b"\0")[0]
    assert text.decode() == todo.cmdline
    assert text.endswith(b" quiet mine=1")
    assert {b"console=hvc0", b"oops=panic", b"tsc_early_khz=1000000"} <= set(text.split())
    assert b"nokaslr" not in text
    side = Bridge.open(adeos_machine, region).root_side()
    assert (side.vnode_id, side.name, side.incarnation, side.apicid[:2]) == (2, "web", 7, (2, 3))
    assert (side.root_vector, side.tsc_khz) == (placed.vector, 1_000_000)
    assert side.seed != bytes(32)


def test_a_second_load_leaves_nothing_of_the_first_in_the_bridge(adeos_machine, placed, image):
    entry = loader.load(adeos_machine, image, placed)
    adeos_machine.start(2, cr3=entry.cr3, entry=entry.entry, rsi=entry.rsi)
    adeos_machine.vnodes[2].crash()
    adeos_machine.park(2)
    loader.load(adeos_machine, image, placed._replace(incarnation=8))
    bridge = Bridge.open(adeos_machine, placed.region)
    assert bridge.vnode_side() is None and bridge.crash() is None
    assert bridge.root_side().incarnation == 8


def test_a_preloaded_region_ends_up_as_a_loaded_one(adeos_machine, placed, image):
    region = placed.region
    copy_in(
        adeos_machine.view(*region, writable=True), 0, b"\xaa" * abi.VN_OFF_RAM, 0, abi.VN_OFF_RAM
    )
    assert loader.preload(adeos_machine, image, region)
    todo = loader.plan(image, placed, adeos_machine.info())
    assert loader.load(adeos_machine, image, placed, preloaded=True, ahead=todo) == todo.entry
    assert {"kernel", "initrd"} <= {piece.what for piece in todo.pieces}
    for piece in todo.pieces:
        data = piece.data[piece.start : piece.start + piece.place.size]
        assert read(adeos_machine, *piece.place) == data, piece.what
    bridge = Bridge.open(adeos_machine, region)
    assert bridge.root_side().incarnation == 7 and bridge.crash() is None


def test_a_preload_ends_when_told(adeos_machine, placed, image):
    assert not loader.preload(adeos_machine, image, placed.region, lambda: True)


def test_the_memory_map_gives_the_vnode_its_own_memory_only(adeos_machine, placed, image):
    memory = loader.plan(image, placed, adeos_machine.info()).memory
    for part, kind in memory:
        assert placed.region.contains(part) or placed.slot.contains(part)
        if kind is E820.RAM:
            for reserved in (
                Range(placed.slot.base, abi.VN_SLOT_RAM),
                Range(placed.region.base + abi.VN_OFF_BRIDGE, abi.VN_BRIDGE_SIZE),
            ):
                assert not part.overlaps(reserved)
    ordered = sorted(part for part, _ in memory)
    assert all(a.end <= b.base for a, b in pairwise(ordered))


def test_pieces_do_not_overlap(adeos_machine, placed, image):
    todo = loader.plan(image, placed, adeos_machine.info())
    places = sorted(piece.place for piece in todo.pieces)
    assert all(a.end <= b.base for a, b in pairwise(places))


def test_an_initrd_that_leaves_no_room_is_refused(adeos_machine, placed, bzimage, cpio):
    big = loader.Image.of(bzimage(init_size=80 * MIB), cpio({"f": bytes(20 * MIB)}), "", "k")
    with pytest.raises(ImageError) as caught:
        loader.plan(big, placed, adeos_machine.info())
    assert "do not fit into a region of 128M; give the vnode at least 134M" in str(caught.value)


def test_a_kernel_for_low_memory_stays_low(adeos_machine, placed, bzimage):
    image = loader.Image.of(bzimage(xloadflags=1), b"", "", "old")
    high = placed._replace(region=Range(0x140000000, 128 * MIB))
    with pytest.raises(ImageError, match="old cannot be loaded above 4 GiB"):
        loader.plan(image, high, adeos_machine.info())
    loader.plan(image, placed, adeos_machine.info())


@pytest.mark.parametrize("region", [Range(0x30100000, 128 * MIB), Range(0x30000000, 32 * MIB)])
def test_a_bad_region_is_refused(adeos_machine, placed, image, region):
    with pytest.raises(PlacementError, match="misaligned or too small"):
        loader.plan(image, placed._replace(region=region), adeos_machine.info())


def test_a_command_line_that_is_too_long_or_strange_is_refused(bzimage):
    with pytest.raises(ImageError, match=r"2047 fit; shorten yours by \d+"):
        loader.Image.of(bzimage(), b"", "x" * 2000)
    for text in ("a\nb", "a\0b", "\x1b[2J", "ä"):
        with pytest.raises(ImageError, match="not printable ASCII"):
            loader.Image.of(bzimage(), b"", text)


def test_the_command_line_is_measured_with_this_machines_tsc(adeos_machine, placed, bzimage):
    """At staging the TSC frequency is not known: a line that just fits then may not later."""
    spare = 2047 - len(loader.cmdline.compose(0, "x", 4096)) + 1
    image = loader.Image.of(bzimage(), b"", "x" * (spare + 1))
    with pytest.raises(ImageError, match="shorten yours by 6"):
        loader.plan(image, placed, adeos_machine.info())


def test_altered_images_are_noticed(image):
    image.verify()
    for changed in (image._replace(kernel=image.kernel + b"x"), image._replace(initrd=b"")):
        with pytest.raises(ImageError, match="was altered; stage it again"):
            changed.verify()


def test_files_that_are_missing_or_wrong_are_refused(tmp_path, bzimage, cpio):
    kernel, initrd = tmp_path / "k", tmp_path / "i"
    with pytest.raises(ImageError, match="k: No such file"):
        loader.Image.stage(kernel, None)
    with pytest.raises(ImageError, match="Is a directory"):
        loader.Image.stage(tmp_path, None)
    kernel.write_bytes(bzimage())
    initrd.write_bytes(b"not an archive")
    with pytest.raises(ImageError, match="neither cpio nor a known compression"):
        loader.Image.stage(kernel, initrd)
    initrd.write_bytes(cpio({"init": b"x" * 100}))
    assert loader.Image.stage(kernel, initrd, "quiet").header.version == "6.1.0-synth"


@given(st.data())
def test_a_truncated_initrd_is_refused(cpio, data):
    whole = cpio({"init": b"x" * 300, "lib": b"y" * 50})
    packed = gzip.compress(whole, mtime=0)
    for good in (whole, packed, whole + packed, whole + bytes(512), packed + bytes(4)):
        check_initrd(good)
    for good, until in ((whole, whole.rindex(b"TRAILER!!!")), (packed, len(packed) - 1)):
        cut = data.draw(st.integers(0, until))
        with pytest.raises(ImageError):
            check_initrd(good[:cut])


@given(st.binary(max_size=400))
def test_any_bytes_are_an_initrd_or_refused(data):
    for magic in (b"", b"070701", b"\x1f\x8b\x08"):
        try:
            check_initrd(magic + data)
        except ImageError as error:
            assert str(error).isprintable()


@pytest.mark.box  # where there are kernels
def test_a_real_kernel_above_4_gib(cpio):
    kernel = stock.kernels("cloud-")[-1]
    machine = FakeMachine()
    machine.claim()
    region, slot = Range(0x140000000, 256 * MIB), Range(0x10000, 0x20000)
    binding = machine.bind(3, [1, 3], region, slot)
    image = loader.Image.of(kernel.read_bytes(), cpio({"init": b"x"}), "", str(kernel))
    placement = loader.Placement(3, "high", region, slot, (1, 3), 1, binding.vector, 0)
    entry = loader.load(machine, image, placement)
    start = image.header.payload.base
    code = bytes(machine.view(entry.entry, 4096))
    assert code == image.kernel[start + 0x200 : start + 0x1200]
    machine.close()


def test_loading_wants_the_owner(placed, image, adeos_machine):
    adeos_machine._claimed = False
    with pytest.raises(OwnerError):
        loader.load(adeos_machine, image, placed)


def walk(tables, cr3, address):
    """The physical address that `address` leads to, None when it is not mapped."""
    page = 0
    for shift in (39, 30, 21):
        at = page + (address >> shift & 511) * 8
        entry = struct.unpack_from("<Q", tables, at)[0]
        if not entry & 1:
            return None
        if entry & 0x80:
            return (entry & 0x000FFFFFFFE00000) + (address & 0x1FFFFF)
        page = (entry & 0x000FFFFFFFFFF000) - cr3
    return None


@given(
    st.integers(0x20000000 >> 21, 0x3FFF_FE00_0000 >> 21),
    st.integers(32, 8192),
    st.integers(0, 70 * MIB),
)
def test_the_identity_map_maps_what_is_needed_to_itself(block, blocks, needed):
    region = Range(block << 21, blocks << 21)
    needed = min(needed, region.size)
    try:
        cr3, tables = paging.identity_map(0x10000, region, needed)
    except PlacementError:
        assert region.end > 1 << 46 or region.base >> 39 != region.end - 1 >> 39
        return
    assert cr3 == 0x11000
    assert len(tables) <= abi.VN_SLOT_IOAPIC - abi.VN_SLOT_PAGE_TABLES
    for address in (0, 0x11000, 0x9FFFF, region.base, region.base + max(needed, 1) - 1):
        assert walk(tables, cr3, address) == address
    assert walk(tables, cr3, 1 << 46) is None


def test_copies_are_bounded():
    view = memoryview(bytearray(100))
    copy_in(view, 90, b"0123456789abc", 3, 10)
    assert bytes(view[88:]) == b"\0\x003456789abc"
    fill(view, 90, 5, 0xFF)
    assert bytes(view[89:96]) == b"\0\xff\xff\xff\xff\xff8"
    for offset, start, size in ((91, 0, 10), (-1, 0, 1), (0, 5, 9), (0, -1, 2), (0, 0, -1)):
        with pytest.raises(ValueError):
            copy_in(view, offset, b"0123456789abc", start, size)
    with pytest.raises(TypeError):
        copy_in(view.toreadonly(), 0, b"x", 0, 1)


def test_another_thread_runs_during_a_bulk_copy():
    """64 MiB take tens of milliseconds: with the lock held the ticker would not tick at all."""
    view = memoryview(bytearray(64 * MIB))
    data = bytes(64 * MIB)
    ticks, done = 0, threading.Event()

    def copy():
        for _ in range(4):
            copy_in(view, 0, data, 0, len(data))
        done.set()

    thread = threading.Thread(target=copy)
    thread.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0.0002)
    thread.join()
    assert ticks > 10


def test_every_error_has_an_exit_code_and_one_line():
    def tree(kind):
        return [kind, *(sub for each in kind.__subclasses__() for sub in tree(each))]

    for kind in tree(AdeosError):
        assert kind.exit_code in {1, 3, 5, 6, 7, 8}
        assert str(kind("what", "hint")) == "what; hint"
