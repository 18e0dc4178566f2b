# SPDX-License-Identifier: GPL-2.0-or-later
"""The x86 boot protocol: what a bzImage says of itself, and the boot_params a kernel is given.

Documentation/arch/x86/boot.rst and zero-page.rst; offsets are those documents'.
Limits: bzImages of protocol 2.12 (Linux 3.8) or later, entered at their 64-bit entry point.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from adeos.abi import Range
from adeos.errors import ImageError
from adeos.text import c_string

SIZE: Final = 0x1000
ENTRY_64: Final = 0x200
"""Offset of the 64-bit entry point in the protected-mode part."""

_SETUP_START: Final = 0x1F1
_OLDEST: Final = 0x020C
_KERNEL_64, _ABOVE_4G = 1 << 0, 1 << 1  # xloadflags
_LOADED_HIGH, _KASLR, _KEEP_SEGMENTS = 1 << 0, 1 << 1, 1 << 6  # loadflags
_TYPE_UNKNOWN_LOADER: Final = 0xFF
_SETUP_RNG_SEED: Final = 9
_E820_MAX: Final = 128


class E820(IntEnum):
    """Types of memory ranges in the e820 table."""

    RAM = 1
    RESERVED = 2
    ACPI = 3


class BzImage(NamedTuple):
    """What the header of a bzImage says."""

    protocol: int
    setup: bytes
    """The setup header, to be copied to boot_params at 0x1f1."""
    payload: Range
    """The protected-mode part, as an offset and size in the file."""
    above_4g: bool
    """May be loaded above 4 GiB."""
    alignment: int
    init_size: int
    """Memory the kernel needs from its load address on before it knows its memory map, bytes."""
    cmdline_size: int
    """Longest command line without NUL, bytes."""
    version: str
    """The kernel's version text, "" when there is none."""


def parse_bzimage(data: bytes, name: str = "kernel") -> BzImage:
    """The header of the bzImage `data`, checked; ImageError names `name` and what is wrong."""

    def need(ok: bool, what: str, hint: str = "") -> None:
        if not ok:
            raise ImageError(f"{name}: {what}", hint)

    need(len(data) > 0, "the file is empty")
    need(
        len(data) >= 0x268 and data[0x202:0x206] == b"HdrS" and data[0x1FE:0x200] == b"\x55\xaa",
        "no bzImage (no HdrS signature)",
        "give a kernel as in /boot/vmlinuz-*",
    )

    def get(fmt: str, offset: int) -> int:
        return int(struct.unpack_from("<" + fmt, data, offset)[0])

    protocol, xloadflags = get("H", 0x206), get("H", 0x236)
    version = f"{protocol >> 8}.{protocol & 0xFF}"
    need(protocol >= _OLDEST, f"boot protocol {version} is too old", "use Linux 3.8 or later")
    need(bool(xloadflags & _KERNEL_64), "no 64-bit entry point", "use a 64-bit kernel")
    need(get("B", 0x234) != 0, "not relocatable", "build it with CONFIG_RELOCATABLE")
    start = ((get("B", 0x1F1) or 4) + 1) * 512
    size = get("I", 0x1F4) * 16
    have = len(data) - start
    need(size > ENTRY_64, "its header names no protected-mode part")
    wanted = start + size
    need(have >= size, f"truncated: {len(data)} bytes, {wanted} by its header", "copy it again")
    init_size, alignment = get("I", 0x260), get("I", 0x230)
    need(init_size >= size // 2, f"init_size {init_size:#x} in its header makes no sense")
    need(
        alignment > 0 and alignment & (alignment - 1) == 0,
        f"kernel_alignment {alignment:#x} in its header is no power of two",
    )
    text = get("H", 0x20E)
    end = 0x202 + data[0x201]
    need(0x268 <= end <= start, f"setup header that ends at {end:#x} makes no sense")
    return BzImage(
        protocol=protocol,
        setup=bytes(data[_SETUP_START:end]),
        payload=Range(start, size),
        above_4g=bool(xloadflags & _ABOVE_4G),
        alignment=alignment,
        init_size=init_size,
        cmdline_size=get("I", 0x238),
        version=c_string(data[text + 0x200 : text + 0x300][: max(0, start - text - 0x200)])
        if text
        else "",
    )


def boot_params(
    image: BzImage,
    *,
    load_address: int,
    initrd: Range,
    cmdline_address: int,
    rsdp_address: int,
    setup_data_address: int,
    memory: Sequence[tuple[Range, E820]],
    kaslr: bool = False,
) -> bytes:
    """The zero page; an `initrd` of size 0 means none, `setup_data_address` 0 likewise.

    `kaslr`: say what the decompressor says to the kernel that it has unpacked, which then places
    its modules and its view of memory at random.
    """
    page = bytearray(SIZE)
    page[_SETUP_START : _SETUP_START + len(image.setup)] = image.setup

    def put(fmt: str, offset: int, value: int) -> None:
        struct.pack_into("<" + fmt, page, offset, value)

    def put_split(low: int, high: int, value: int) -> None:
        put("I", low, value & 0xFFFFFFFF)
        put("I", high, value >> 32)

    put("Q", 0x070, rsdp_address)
    put("B", 0x210, _TYPE_UNKNOWN_LOADER)
    put("B", 0x211, page[0x211] | _LOADED_HIGH | _KEEP_SEGMENTS | _KASLR * kaslr)
    put("I", 0x214, load_address & 0xFFFFFFFF)
    put_split(0x218, 0x0C0, initrd.base if initrd.size else 0)
    put_split(0x21C, 0x0C4, initrd.size)
    put_split(0x228, 0x0C8, cmdline_address)
    put("Q", 0x250, setup_data_address)
    if len(memory) > _E820_MAX:
        raise ValueError(f"{len(memory)} e820 entries, at most {_E820_MAX} fit")
    put("B", 0x1E8, len(memory))
    for index, (part, kind) in enumerate(memory):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * index, part.base, part.size, kind)
    return bytes(page)


def rng_seed(seed: bytes) -> bytes:
    """A setup_data node with random bytes for the kernel (SETUP_RNG_SEED; ignored before 6.0)."""
    return struct.pack("<QII", 0, _SETUP_RNG_SEED, len(seed)) + seed
