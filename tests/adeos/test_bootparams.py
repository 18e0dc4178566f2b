# SPDX-License-Identifier: GPL-2.0-or-later
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adeos import bootparams
from adeos.bootparams import E820
from adeos.errors import ImageError
from adeos.machine import Range
from bench import stock


def word(data, fmt, offset):
    return struct.unpack_from("<" + fmt, data, offset)[0]


@pytest.mark.box  # where there are kernels
def test_debian_kernels_are_understood():
    paths = stock.kernels()
    assert paths
    for path in paths:
        image = bootparams.parse_bzimage(path.read_bytes())
        assert image.version.startswith(path.name.removeprefix("vmlinuz-"))
        assert image.above_4g and image.protocol >= 0x20F
        assert image.init_size > image.payload.size > 1 << 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": 0x020B}, "boot protocol 2.11 is too old"),
        ({"xloadflags": 0x2}, "no 64-bit entry point"),
        ({"relocatable": 0}, "not relocatable"),
        ({"payload": b""}, "names no protected-mode part"),
        ({"init_size": 16}, "init_size 0x10 in its header makes no sense"),
        ({"alignment": 3}, "kernel_alignment 0x3"),
        ({"alignment": 0}, "kernel_alignment 0x0"),
    ],
)
def test_a_kernel_that_cannot_be_a_vnode_is_refused(bzimage, changes, message):
    with pytest.raises(ImageError, match=message) as caught:
        bootparams.parse_bzimage(bzimage(**changes), "/boot/k")
    assert str(caught.value).startswith("/boot/k: ")
    assert caught.value.exit_code == 3


def test_what_is_no_kernel_is_refused(bzimage):
    for data in (b"\x7fELF" + bytes(9000), b"MZ", b"hello\n" * 2000):
        with pytest.raises(ImageError, match="no bzImage"):
            bootparams.parse_bzimage(data)
    with pytest.raises(ImageError, match="empty"):
        bootparams.parse_bzimage(b"")
    with pytest.raises(ImageError, match="truncated: 18943 bytes, 18944 by its header"):
        bootparams.parse_bzimage(bzimage()[:-1])


@given(st.data())
def test_a_damaged_header_is_understood_or_refused(bzimage, data):
    image = bytearray(bzimage())
    for _ in range(data.draw(st.integers(1, 8))):
        image[data.draw(st.integers(0x1F1, 0x268))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(image)))
    for candidate in (bytes(image), bytes(image[:cut])):
        try:
            header = bootparams.parse_bzimage(candidate)
        except ImageError:
            continue
        assert header.payload.end <= len(candidate)
        assert 0x77 <= len(header.setup) <= 0x111
        assert header.version.isprintable()


def test_the_zero_page_says_what_was_asked(bzimage):
    image = bootparams.parse_bzimage(bzimage())
    memory = [(Range(0x18000, 0x8000), E820.RAM), (Range(0x140080000, 0x10000), E820.ACPI)]
    page = bootparams.boot_params(
        image,
        load_address=0x141000000,
        initrd=Range(0x14FF00000, 0x100),
        cmdline_address=0x140011000,
        rsdp_address=0x140080000,
        setup_data_address=0x140012000,
        memory=memory,
    )
    assert len(page) == 4096
    assert word(page, "Q", 0x070) == 0x140080000
    assert word(page, "I", 0x0C0) << 32 | word(page, "I", 0x218) == 0x14FF00000
    assert word(page, "I", 0x0C4) << 32 | word(page, "I", 0x21C) == 0x100
    assert word(page, "I", 0x0C8) << 32 | word(page, "I", 0x228) == 0x140011000
    assert (page[0x210], page[0x211] & 0x41) == (0xFF, 0x41)
    assert page[0x202:0x206] == b"HdrS"
    assert word(page, "Q", 0x250) == 0x140012000
    assert page[0x1E8] == 2
    assert struct.unpack_from("<QQI", page, 0x2D0 + 20) == (0x140080000, 0x10000, 3)


def test_the_seed_is_a_setup_data_node():
    node = bootparams.rng_seed(b"s" * 32)
    assert struct.unpack_from("<QII", node) == (0, 9, 32)
    assert node[16:] == b"s" * 32
