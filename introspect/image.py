# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel image file, bzImage or vmlinux, as an offline source.

    >>> image = open_kernel_image("/boot/vmlinuz-6.1.0-56-cloud-amd64")
    >>> jiffies = image.offset("jiffies_64")     # from _text, the same wherever KASLR puts it
    >>> memory.read(locate.kernel_text(memory, image.anchor()) + jiffies, 8)

It holds the same symbols, types and unwind tables as the running kernel.
Sources: Documentation/arch/x86/boot.rst, scripts/Makefile.lib (payloads).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from introspect import kallsyms, symbols
from introspect.btf import Btf
from introspect.elfcore import build_id
from introspect.errors import BadImage, MemoryFault, NotFound, ToolMissing
from introspect.kallsyms import SymbolTable
from introspect.locate import Anchor
from introspect.memory import open_regular

MAX_FILE = 512 << 20
MAX_VMLINUX = 1 << 30
MAX_SECTIONS = 4096
LZ4_BLOCK = 8 << 20  # lib/decompress_unlz4.c, LZ4_DEFAULT_UNCOMPRESSED_CHUNK_SIZE
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")


class Section(NamedTuple):
    """A section of vmlinux: virtual address, file offset and size in bytes."""

    name: str
    va: int
    offset: int
    size: int


class KernelImage:
    """A vmlinux in memory; addresses are those it was linked at."""

    def __init__(self, vmlinux: bytes, what: str) -> None:
        self.data = vmlinux
        self.what = what
        self.sections = parse_sections(vmlinux, what)

    def section(self, name: str) -> bytes:
        """A section's bytes; NotFound when the image has none of that name."""
        for section in self.sections:
            if section.name == name:
                return self.data[section.offset : section.offset + section.size]
        raise NotFound(f"{self.what} has no section {name}")

    def read(self, va: int, size: int) -> bytes:
        """Bytes at the address they were linked at; MemoryFault outside every section."""
        for section in self.sections:
            if section.va and section.va <= va and va + size <= section.va + section.size:
                at = section.offset + va - section.va
                return self.data[at : at + size]
        raise MemoryFault(va, size, virtual=True, why=f"in no section of {self.what}")

    @cached_property
    def symbols(self) -> SymbolTable:
        """kallsyms; NotFound when the image has none."""
        for section in self.sections:
            if section.name == ".rodata":
                data = self.data[section.offset : section.offset + section.size]
                tables = kallsyms.find(data, section.va)
                return symbols.load(self.read, tables.moved(section.va))
        raise NotFound(f"{self.what} has no .rodata section")

    def offset(self, symbol: str) -> int:
        """Bytes from _text to `symbol`."""
        return self.symbols.address(symbol) - self.symbols.address("_text")

    def anchor(self) -> Anchor:
        """What tells this build in memory: its linux_banner, which KASLR does not change."""
        va = self.symbols.address("linux_banner")
        return Anchor(self.offset("linux_banner"), self.read(va, 256).split(b"\0", 1)[0])

    @cached_property
    def btf(self) -> Btf:
        return Btf(self.section(".BTF"))

    @cached_property
    def build_id(self) -> str:
        """The GNU build id in hex, "" when there is none."""
        try:
            return build_id(self.section(".notes"))
        except NotFound:
            return ""

    @cached_property
    def release(self) -> str:
        """As uname -r prints it, from linux_banner."""
        at = self.data.find(b"Linux version ")
        words = self.data[at : at + 256].split(b" ", 3) if at >= 0 else []
        return words[2].decode("ascii", "replace") if len(words) > 2 else ""


def open_kernel_image(path: str | Path) -> KernelImage:
    """Opens a bzImage, a compressed or a plain vmlinux; BadImage says why it is none of them."""
    path = Path(path)
    try:
        with open_regular(path) as file:
            large = os.fstat(file.fileno()).st_size > MAX_FILE
            data = b"" if large else file.read()
    except OSError as error:
        raise BadImage(f"{path}: {error.strerror or error}") from None
    if large:
        raise BadImage(f"{path}: more than {MAX_FILE >> 20} MiB: not a kernel image")
    return KernelImage(extract_vmlinux(data, str(path)), str(path))


def extract_vmlinux(data: bytes, what: str = "the image") -> bytes:
    """The vmlinux inside a bzImage or a compressed file, or the data itself when it is one."""
    if data[0x202:0x206] == b"HdrS":
        data = _payload(data, what)
    if not data.startswith(b"\x7fELF"):
        data = decompress(data, what)
    if not data.startswith(b"\x7fELF"):
        raise BadImage(f"{what}: no vmlinux inside")
    return data


def _payload(data: bytes, what: str) -> bytes:
    """The compressed kernel of a bzImage: setup header fields of boot protocol 2.08."""
    if len(data) < 0x250:
        raise BadImage(f"{what}: the bzImage ends within its header: truncated?")
    (version,) = struct.unpack_from("<H", data, 0x206)
    if version < 0x208:
        raise BadImage(f"{what}: boot protocol {version >> 8}.{version & 255:02d} is too old")
    setup_sectors = data[0x1F1] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    if not length or start + length > len(data):
        raise BadImage(f"{what}: its payload of {length} bytes does not fit: truncated?")
    return data[start : start + length]


def decompress(data: bytes, what: str) -> bytes:
    """Any of the payload formats a kernel may be packed with, told by its magic."""
    for magic, name, unpack in _FORMATS:
        if data.startswith(magic):
            try:
                return unpack(data)
            except ImportError as error:
                raise ToolMissing(
                    f"{what} is packed with {name}: pip install {_PACKAGE[name]} ({error.name})"
                ) from None
            except (ToolMissing, BadImage):
                raise
            except Exception as error:  # each library has its own errors
                raise BadImage(f"{what}: its {name} payload is damaged: {error}") from None
    raise BadImage(f"{what}: neither a bzImage nor a vmlinux (starts with {data[:4].hex(' ')})")


def _gzip(data: bytes) -> bytes:
    import zlib

    return zlib.decompressobj(wbits=31).decompress(data, MAX_VMLINUX)


def _xz(data: bytes) -> bytes:
    import lzma

    return lzma.LZMADecompressor(memlimit=1 << 30).decompress(data, MAX_VMLINUX)


def _bzip2(data: bytes) -> bytes:
    import bz2

    return bz2.BZ2Decompressor().decompress(data, MAX_VMLINUX)


def _zstd(data: bytes) -> bytes:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 30).decompressobj()
    out, parts = 0, []
    for at in range(0, len(data), 1 << 20):  # what follows the frame is the kernel's own size
        parts.append(unpacker.decompress(data[at : at + (1 << 20)]))
        out += len(parts[-1])
        if unpacker.eof or out > MAX_VMLINUX:
            break
    return b"".join(parts)


def _lz4_legacy(data: bytes) -> bytes:
    """lz4 -l: a magic, then blocks of a u32 size and data, each of 8 MiB but the last."""
    import lz4.block  # type: ignore[import-untyped]

    parts, at, out = [], 4, 0
    while at + 4 <= len(data) and out <= MAX_VMLINUX:
        size = int.from_bytes(data[at : at + 4], "little")
        if not size or at + 4 + size > len(data):
            break  # the kernel's own size, which the build appends
        part = lz4.block.decompress(data[at + 4 : at + 4 + size], uncompressed_size=LZ4_BLOCK)
        parts.append(part)
        out, at = out + len(part), at + 4 + size
    return b"".join(parts)


_FORMATS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\x02\x21\x4c\x18", "lz4", _lz4_legacy),
    (b"BZh", "bzip2", _bzip2),
    (b"\x5d\0\0", "lzma", _xz),
)
_PACKAGE = {"lz4": "lz4", "zstd": "zstandard"}


def parse_sections(data: bytes, what: str) -> list[Section]:
    """The sections of an x86-64 ELF file; BadImage when its headers do not fit."""
    if len(data) < _EHDR.size or data[:6] != b"\x7fELF\x02\x01":
        raise BadImage(f"{what}: not a 64-bit little-endian ELF file")
    fields = _EHDR.unpack_from(data)
    shoff, shentsize, shnum, names_index = fields[6], fields[11], fields[12], fields[13]
    end = shoff + shnum * _SHDR.size
    if shentsize != _SHDR.size or not 0 < shnum <= MAX_SECTIONS or end > len(data):
        raise BadImage(f"{what}: its section headers do not fit: truncated?")
    rows = [_SHDR.unpack_from(data, shoff + i * _SHDR.size) for i in range(shnum)]
    if names_index >= shnum:
        raise BadImage(f"{what}: its section names are missing")
    start, size = rows[names_index][4], rows[names_index][5]
    names = data[start : start + size]
    out = []
    for name_at, kind, _, va, offset, size, *_ in rows:
        name = names[name_at : names.find(b"\0", name_at)].decode("ascii", "replace")
        if kind != 8 and offset + size <= len(data):  # SHT_NOBITS takes no room
            out.append(Section(name, va, offset, size))
    return out
