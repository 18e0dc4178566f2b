# SPDX-License-Identifier: GPL-2.0-or-later
"""kdump-compressed dumps: makedumpfile's and QEMU's, plain or flattened.

Pages are packed by zlib or zstd; for lzo and snappy the text says what to do.
Pages that a dump level excluded are absent: reading one is a MemoryFault.

Source: makedumpfile's IMPLEMENTATION and diskdump_mod.h, QEMU's dump/dump.c.
"""

from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from introspect.errors import BadImage, MemoryFault, ToolMissing
from introspect.memory import MAX_READ, PAGE, Buffer, map_file

SIGNATURE, FLAT_SIGNATURE = b"KDUMP   ", b"makedumpfile\0\0\0\0"
FLAT_HEADER = 4096
MAX_RECORDS = 1 << 24
MAX_BITMAP = 1 << 30
MAX_VMCOREINFO = 1 << 16
CACHED_PAGES = 2048
RANK_STEP = 512  # bytes of bitmap between two sums
ZLIB, LZO, SNAPPY, ZSTD = 1, 2, 4, 0x20
_RECORD = struct.Struct(">qq")
_DESCRIPTOR = struct.Struct("<qIIQ")
_RUN = re.compile(rb"\xff+|[^\x00\xff]|\x00+")

Reader = Callable[[int, int], bytes]


class Header(NamedTuple):
    """The parts of the headers that reading needs; offsets and sizes in bytes."""

    block_size: int
    bitmap: int  # of the pages that were dumped
    bitmap_size: int
    descriptors: int
    vmcoreinfo: int
    vmcoreinfo_size: int
    notes: int
    notes_size: int


def plain_reader(data: Buffer) -> Reader:
    """Reads a file as it is; short at its end."""
    return lambda at, size: bytes(data[at : at + size]) if at >= 0 else b""


def flat_reader(data: Buffer, what: str, *, partial: bool = False) -> Reader:
    """Reads a flattened file as if makedumpfile -R had rearranged it."""
    places: dict[int, tuple[int, int]] = {}
    at = FLAT_HEADER
    while at + _RECORD.size <= len(data) and len(places) < MAX_RECORDS:
        offset, size = _RECORD.unpack_from(data, at)
        if offset < 0:  # the end mark
            break
        start = at + _RECORD.size
        if size <= 0 or start + size > len(data):
            if partial:
                break
            raise BadImage(f"{what}: the flattened record at {at} does not fit: truncated?")
        places[offset] = (start, size)  # a later record replaces an earlier one
        at = start + size
    starts = sorted(places)

    def read(at: int, size: int) -> bytes:
        out = bytearray()
        index = bisect_right(starts, at) - 1
        while len(out) < size and 0 <= index < len(starts):
            inside = at + len(out) - starts[index]
            start, length = places[starts[index]]
            if not 0 <= inside < length:
                break
            out += data[start + inside : start + min(length, inside + size - len(out))]
            index += 1
        return bytes(out)

    return read


def parse_header(read: Reader, what: str) -> Header:
    """struct disk_dump_header and struct kdump_sub_header, bounded; BadImage otherwise."""
    head = read(0, 464)
    if len(head) < 464 or not head.startswith(SIGNATURE):
        raise BadImage(f"{what}: not a kdump-compressed file")
    block_size, sub_blocks, bitmap_blocks = struct.unpack_from("<iiI", head, 428)
    if block_size != PAGE or not 0 < sub_blocks < 1024:
        raise BadImage(f"{what}: blocks of {block_size} bytes, {sub_blocks} of headers: damaged")
    bitmap_size = bitmap_blocks * block_size // 2
    if not 0 < bitmap_size <= MAX_BITMAP:
        raise BadImage(f"{what}: its page bitmap would take {bitmap_size} bytes: damaged")
    sub = read(block_size, 104)
    if len(sub) < 104:
        raise BadImage(f"{what}: ends within its headers: truncated?")
    info, info_size, notes, notes_size = struct.unpack_from("<qqqq", sub, 32)
    start = (1 + sub_blocks) * block_size
    return Header(
        block_size, start + bitmap_size, bitmap_size, start + 2 * bitmap_size,
        info, info_size, notes, notes_size,
    )  # fmt: skip


class KdumpMemory:
    """The physical memory of a kdump-compressed file.

    `missing`: bytes of memory whose pages were cut off with the file's end, at most; BadImage when
    there are any, unless `partial`.
    """

    def __init__(self, read: Reader, what: str, *, partial: bool = False) -> None:
        self._file = read
        self._what = what
        self._partial = partial
        self.header = parse_header(read, what)
        self._bitmap = read(self.header.bitmap, self.header.bitmap_size)
        if len(self._bitmap) < self.header.bitmap_size:
            raise BadImage(f"{what}: ends within its page bitmap: truncated?")
        self._pages: dict[int, bytes] = {}
        self.missing = self._cut_off() * PAGE
        if self.missing and not partial:
            raise BadImage(f"{what}: up to {self.missing} bytes of memory are missing: truncated?")

    def _cut_off(self) -> int:
        """How many pages lie past the end, by the order in which writers put them; at most."""
        total = (
            self._ranks[-1]
            + int.from_bytes(
                self._bitmap[(len(self._ranks) - 1) * RANK_STEP :], "little"
            ).bit_count()
        )
        good, bad = -1, total
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if self._is_there(middle) else (good, middle)
        return total - bad

    def _is_there(self, rank: int) -> bool:
        raw = self._file(self.header.descriptors + rank * _DESCRIPTOR.size, _DESCRIPTOR.size)
        if len(raw) < _DESCRIPTOR.size:
            return False
        offset, size, _, _ = _DESCRIPTOR.unpack(raw)
        return bool(size) and size <= 2 * PAGE and len(self._file(offset + size - 1, 1)) == 1

    @property
    def vmcoreinfo_raw(self) -> bytes | None:
        """The VMCOREINFO text the file carries."""
        header = self.header
        if header.vmcoreinfo <= 0 or not 0 < header.vmcoreinfo_size <= MAX_VMCOREINFO:
            return None
        return self._file(header.vmcoreinfo, header.vmcoreinfo_size).split(b"\0", 1)[0]

    @property
    def registers(self) -> list[bytes]:
        """struct user_regs_struct of each CPU, as ElfMemory.registers."""
        from introspect.elfcore import MAX_NOTES, parse_notes, prstatus_registers

        size = min(self.header.notes_size, MAX_NOTES)
        notes = self._file(self.header.notes, size) if size > 0 else b""
        return prstatus_registers(list(parse_notes(notes)))

    @cached_property
    def ranges(self) -> Sequence[tuple[int, int]]:
        out: list[tuple[int, int]] = []
        for match in _RUN.finditer(self._bitmap):
            for start, count in _pages_of(match[0], match.start() * 8):
                at, size = start * PAGE, count * PAGE
                if out and out[-1][0] + out[-1][1] == at:
                    out[-1] = (out[-1][0], out[-1][1] + size)
                else:
                    out.append((at, size))
        return out

    @cached_property
    def _ranks(self) -> list[int]:
        """How many pages were dumped before each RANK_STEP bytes of bitmap."""
        sums, total = [], 0
        for at in range(0, len(self._bitmap), RANK_STEP):
            sums.append(total)
            total += int.from_bytes(self._bitmap[at : at + RANK_STEP], "little").bit_count()
        return sums

    def _rank(self, page: int) -> int | None:
        """The number of the page's descriptor, None when it was not dumped."""
        byte = page >> 3
        if page < 0 or byte >= len(self._bitmap) or not self._bitmap[byte] >> (page & 7) & 1:
            return None
        first = byte // RANK_STEP * RANK_STEP
        before = int.from_bytes(self._bitmap[first : byte + 1], "little")
        before &= (1 << (page - first * 8)) - 1
        return self._ranks[byte // RANK_STEP] + before.bit_count()

    def read(self, pa: int, size: int) -> bytes:
        if pa < 0 or not 0 <= size <= MAX_READ:
            raise MemoryFault(pa, size)
        out = []
        at, end = pa, pa + size
        while at < end:
            count = min(PAGE - at % PAGE, end - at)
            page = self._page(at // PAGE)
            if page is None:
                raise MemoryFault(pa, size, why=f"page {at & -PAGE:#x} is not in the dump")
            out.append(page[at % PAGE : at % PAGE + count])
            at += count
        return b"".join(out)

    def _page(self, number: int) -> bytes | None:
        page = self._pages.get(number)
        if page is None:
            rank = self._rank(number)
            if rank is None:
                return None
            try:
                page = self._load(rank)
            except BadImage as error:
                if not self._partial:
                    raise
                raise MemoryFault(number * PAGE, PAGE, why=str(error)) from None
            if len(self._pages) >= CACHED_PAGES:
                self._pages.clear()
            self._pages[number] = page
        return page

    def _load(self, rank: int) -> bytes:
        raw = self._file(self.header.descriptors + rank * _DESCRIPTOR.size, _DESCRIPTOR.size)
        if len(raw) < _DESCRIPTOR.size:
            raise BadImage(f"{self._what}: ends within its page descriptors: truncated?")
        offset, size, flags, _ = _DESCRIPTOR.unpack(raw)
        data = self._file(offset, size) if size <= 2 * PAGE else b""
        if len(data) < size or not size:
            raise BadImage(f"{self._what}: a page at file offset {offset} is cut off: truncated?")
        page = unpack_page(data, flags, self._what)
        if len(page) != PAGE:
            raise BadImage(f"{self._what}: a page at file offset {offset} is damaged")
        return page


def unpack_page(data: bytes, flags: int, what: str) -> bytes:
    """A page as it was in memory."""
    if flags & ZLIB:
        try:
            return zlib.decompressobj().decompress(data, PAGE)
        except zlib.error as error:
            raise BadImage(f"{what}: a page is damaged: {error}") from None
    if flags & ZSTD:
        return _unpack_zstd(data, what)
    if flags & (LZO | SNAPPY):
        name = "lzo" if flags & LZO else "snappy"
        raise ToolMissing(f"{what} is packed with {name}: repack it: makedumpfile -c {what} NEW")
    return data


def _unpack_zstd(data: bytes, what: str) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise ToolMissing(f"{what} is packed with zstd: pip install zstandard") from None
    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=PAGE)
    except zstandard.ZstdError as error:
        raise BadImage(f"{what}: a page is damaged: {error}") from None


def _pages_of(run: bytes, first: int) -> list[tuple[int, int]]:
    """(first page, how many) within a run of bitmap bytes that starts at page `first`."""
    if run[0] == 0xFF:
        return [(first, 8 * len(run))]
    return [(first + bit, 1) for bit in range(8) if run[0] >> bit & 1] if run[0] else []


def open_kdump(path: Path, *, partial: bool = False) -> KdumpMemory:
    """Opens a kdump-compressed file, flattened or not; BadImage says why a file is none."""
    mapped, _ = map_file(path)
    if mapped[: len(FLAT_SIGNATURE)] == FLAT_SIGNATURE:
        reader = flat_reader(mapped, str(path), partial=partial)
    else:
        reader = plain_reader(mapped)
    return KdumpMemory(reader, str(path), partial=partial)
