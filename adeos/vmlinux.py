# SPDX-License-Identifier: GPL-2.0-or-later
"""A vmlinux as it lies in memory: what a bzImage would unpack at every boot, unpacked once.

The kernel may be entered so by a 64-bit boot loader: arch/x86/kernel/head_64.S of Linux 6.1,
startup_64.  Like the kernel's own decompressor (arch/x86/boot/compressed/misc.c, parse_elf), only
PT_LOAD segments and their physical addresses count.
Limits: x86-64; no relocations, so the kernel's text runs where it was linked (no KASLR of it).
"""

import struct
from typing import Final, NamedTuple

from adeos.errors import ImageError

SIZE_MAX: Final = 256 << 20
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_IDENT: Final = b"\x7fELF\x02\x01\x01"
_EXEC, _X86_64, _PT_LOAD = 2, 62, 1
_PHDRS_MAX: Final = 64
_ALIGN: Final = 2 << 20


class Flat(NamedTuple):
    """`data` goes to memory at an address that 2 MiB divide; `entry`: offset of startup_64."""

    data: bytes
    """With the zeros of .bss and .brk."""
    entry: int


def flatten(vmlinux: bytes, name: str = "kernel") -> Flat:
    """The segments of an ELF vmlinux put where they belong; ImageError when they do not fit."""

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise ImageError(f"{name}: {what}", "boot it without fast_boot")

    need(len(vmlinux) >= _EHDR.size and vmlinux[:7] == _IDENT, "its vmlinux is no 64-bit ELF file")
    _, kind, machine, _, start, phoff, *_, phentsize, phnum, _, _, _ = _EHDR.unpack_from(vmlinux)
    need((kind, machine) == (_EXEC, _X86_64), "its vmlinux is no x86-64 executable")
    need(
        phentsize == _PHDR.size
        and 0 < phnum <= _PHDRS_MAX
        and phoff + phnum * _PHDR.size <= len(vmlinux),
        "the program headers of its vmlinux do not fit: truncated?",
    )
    rows = [_PHDR.unpack_from(vmlinux, phoff + n * _PHDR.size) for n in range(phnum)]
    segments = [(pa, offset, size, full) for t, _, offset, _, pa, size, full, _ in rows
                if t == _PT_LOAD and full]  # fmt: skip
    need(bool(segments), "its vmlinux has nothing to load")
    base = min(pa for pa, *_ in segments)
    end = max(pa + full for pa, _, _, full in segments)
    need(not base % _ALIGN, f"its vmlinux begins at {base:#x}, which 2 MiB do not divide")
    need(end - base <= SIZE_MAX, f"its vmlinux wants {end - base:#x} bytes, too many")
    need(base <= start < end, f"the entry {start:#x} of its vmlinux lies outside of it")
    data = bytearray(end - base)
    for pa, offset, size, full in segments:
        need(
            size <= full and offset + size <= len(vmlinux),
            f"the segment at {pa:#x} of its vmlinux does not fit: truncated?",
        )
        data[pa - base : pa - base + size] = vmlinux[offset : offset + size]
    return Flat(bytes(data), start - base)
