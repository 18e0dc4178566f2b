# SPDX-License-Identifier: GPL-2.0-or-later
"""A vmlinux laid out as in memory, and a vnode that is started as one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adeos import abi, loader
from adeos.errors import ImageError
from adeos.vmlinux import flatten
from bench import stock
from introspect.image import open_kernel_image

BASE = 0x1000000
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")


def elf(*segments: tuple[int, bytes, int], entry: int = BASE, kind: int = 2) -> bytes:
    """An executable of segments (physical address, bytes, size in memory)."""
    head = EHDR.pack(
        b"\x7fELF\x02\x01\x01", kind, 62, 1, entry, EHDR.size, 0, 0,
        EHDR.size, PHDR.size, len(segments), 0, 0, 0,
    )  # fmt: skip
    at = EHDR.size + PHDR.size * len(segments)
    rows, data = b"", b""
    for pa, content, full in segments:
        rows += PHDR.pack(1, 7, at + len(data), pa | 0xFFFFFFFF80000000, pa, len(content), full, 0)
        data += content
    return head + rows + data


WHOLE = elf((BASE, b"text", 0x1000), (BASE + 0x2000, b"data", 0x100), entry=BASE + 2)


def test_segments_go_where_they_belong_and_the_rest_is_zero():
    flat = flatten(WHOLE)
    assert flat.entry == 2
    assert flat.data == b"text".ljust(0x2000, b"\0") + b"data".ljust(0x100, b"\0")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no 64-bit ELF"),
        (b"\x7fELF\x01\x01\x01" + bytes(60), "no 64-bit ELF"),
        (elf((BASE, b"t", 1), kind=3), "no x86-64 executable"),
        (WHOLE[:80], "program headers"),
        (elf(), "program headers"),
        (elf((BASE, b"", 0)), "nothing to load"),
        (elf((BASE + 0x1000, b"t", 1)), "2 MiB"),
        (elf((BASE, b"t", 1 << 40)), "too many"),
        (elf((BASE, b"t", 1), entry=BASE + 1), "entry"),
        (elf((BASE, b"text", 2)), "does not fit"),
        (WHOLE[:-1], "does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(data, why):
    with pytest.raises(ImageError, match=f"kern: .*{why}"):
        flatten(data, "kern")


@given(st.binary(max_size=300) | st.integers(0, len(WHOLE)).map(lambda n: WHOLE[:n]))
def test_anything_is_laid_out_or_refused(data):
    try:
        flatten(data)
    except ImageError:
        pass


@given(st.integers(0, EHDR.size + 2 * PHDR.size - 1), st.integers(0, 255))
def test_an_altered_header_is_laid_out_or_refused(at, value):
    data = bytearray(WHOLE)
    data[at] = value
    try:
        flatten(bytes(data))
    except ImageError:
        pass


def test_a_vnode_is_entered_at_its_unpacked_kernel(adeos_machine, placed, bzimage, cpio):
    packed = loader.Image.of(bzimage(), cpio({"init": b"x"}), "quiet", "synthetic")
    image = packed.unpacked(WHOLE)
    plan = loader.plan(image, placed, adeos_machine.info())
    before = loader.plan(packed, placed, adeos_machine.info())
    kernel = plan.pieces[-1]
    assert kernel.place == abi.Range(placed.region.base + abi.VN_OFF_KERNEL, 0x2100)
    assert kernel.data == flatten(WHOLE).data
    assert plan.entry.entry == kernel.place.base + 2
    flags = [next(p for p in one.pieces if p.what == "boot_params").data[0x211]
             for one in (plan, before)]  # fmt: skip
    assert (flags[0] & 2, flags[1] & 2) == (2, 0)
    assert image.digests != packed.digests


def test_nokaslr_is_passed_on(adeos_machine, placed, bzimage):
    image = loader.Image.of(bzimage(), b"", "nokaslr").unpacked(WHOLE)
    pieces = loader.plan(image, placed, adeos_machine.info()).pieces
    assert not next(p for p in pieces if p.what == "boot_params").data[0x211] & 2


def test_an_unpacked_kernel_larger_than_its_header_says_is_refused(bzimage):
    image = loader.Image.of(bzimage(), b"", "")
    big = elf((BASE, b"t", image.header.init_size + 1))
    with pytest.raises(ImageError, match="more than the"):
        image.unpacked(big)


def test_an_altered_unpacked_kernel_is_noticed(bzimage):
    image = loader.Image.of(bzimage(), b"", "").unpacked(WHOLE)
    image.verify()
    altered = image._replace(flat=image.flat._replace(data=b"x" * len(image.flat.data)))
    with pytest.raises(ImageError, match="kernel was altered"):
        altered.verify()


@pytest.mark.box  # where there are kernels
def test_debian_kernels_lie_as_they_were_linked():
    for path in stock.kernels():
        kernel = open_kernel_image(path)
        flat = flatten(kernel.data, path.name)
        at = kernel.offset("linux_banner")
        assert flat.data[at : at + 14] == b"Linux version "
        assert flat.entry == kernel.offset("startup_64")
