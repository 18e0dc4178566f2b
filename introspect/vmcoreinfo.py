# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO: the text a kernel keeps about itself for dump tools.

One zeroed page (kernel/crash_core.c, vmcoreinfo_data) starts with the text;
a copy inside an ELF note (vmcoreinfo_note) starts another page.  Both are
found by looking at page starts only.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from introspect.errors import Corrupt, MemoryFault, NotFound
from introspect.memory import PAGE, PhysicalMemory, windows

NOTE_NAME = b"VMCOREINFO\0"
NOTE_HEADER = 24  # three words, then the name padded to twelve bytes
MAX_TEXT = 8192
_LINE = re.compile(r"^[\x21-\x3c\x3e-\x7e]+=[\x20-\x7e]*$")


class VmcoreInfo(dict[str, str]):
    """The fields as text, with readers for the usual kinds; absent ones raise NotFound."""

    def _value(self, key: str, base: int) -> int:
        try:
            return int(self[key], base)
        except KeyError:
            raise NotFound(f"VMCOREINFO has no {key}") from None
        except ValueError:
            raise Corrupt(f"VMCOREINFO {key} is not a number", self[key][:40]) from None

    def number(self, name: str) -> int:
        return self._value(f"NUMBER({name})", 0)

    def symbol(self, name: str) -> int:
        return self._value(f"SYMBOL({name})", 16)

    def offset(self, name: str) -> int:
        return self._value(f"OFFSET({name})", 10)

    def size(self, name: str) -> int:
        return self._value(f"SIZE({name})", 10)

    @property
    def kernel_offset(self) -> int:
        """KERNELOFFSET, bytes; 0 for kernels built without KASLR."""
        return self._value("KERNELOFFSET", 16) if "KERNELOFFSET" in self else 0


class Found(NamedTuple):
    """VMCOREINFO as it lies at physical address `pa` (of the text); -1 in a dump file's header."""

    pa: int
    raw: bytes
    fields: VmcoreInfo


def parse(raw: bytes) -> VmcoreInfo:
    """The fields of a VMCOREINFO text; Corrupt when it is not one."""
    text = raw[:MAX_TEXT].split(b"\0", 1)[0]
    if not text.startswith(b"OSRELEASE="):
        raise Corrupt("VMCOREINFO does not start with OSRELEASE=", repr(raw[:16]))
    fields = VmcoreInfo()
    for line in text.decode("ascii", "replace").split("\n"):
        if _LINE.match(line):
            key, _, value = line.partition("=")
            fields.setdefault(key, value)
    return fields


def note_at(memory: PhysicalMemory, pa: int) -> Found:
    """VMCOREINFO at `pa`: the text itself, or an ELF note that holds it."""
    head = _read_upto(memory, pa, MAX_TEXT)
    if head[12 : 12 + len(NOTE_NAME)] == NOTE_NAME:
        _, size, _ = struct.unpack_from("<III", head)
        if not 0 < size <= MAX_TEXT:
            raise Corrupt(f"the VMCOREINFO note claims {size} bytes", pa)
        pa += NOTE_HEADER
        head = _read_upto(memory, pa, size)
    raw = head.split(b"\0", 1)[0]
    return Found(pa, raw, parse(raw))


def _read_upto(memory: PhysicalMemory, pa: int, size: int) -> bytes:
    """Up to `size` bytes, fewer at the end of memory; MemoryFault when there are none."""
    try:
        return memory.read(pa, size)
    except MemoryFault:
        return memory.read(pa, min(size, PAGE - pa % PAGE))


def find_notes(memory: PhysicalMemory) -> Iterator[Found]:
    """Every plausible VMCOREINFO in memory, lowest address first; notes are not repeated.

    Looks at the first eight bytes of each page: 5 ms a GiB once the pages are cached.
    """
    seen: set[bytes] = set()
    carried = getattr(memory, "vmcoreinfo_raw", None)  # a dump file's own copy
    if carried:
        seen.add(carried)
        yield Found(-1, carried, parse(carried))
    note = struct.pack("<I", len(NOTE_NAME))
    for start, view in windows(memory):
        usable = len(view) & -8
        heads = view[:usable].cast("Q")[:: PAGE // 8].tobytes()
        for pattern in (b"OSRELEAS", note):
            for index in _aligned(heads, pattern):
                found = _accept(memory, start + index * PAGE)
                if found and found.raw not in seen:
                    seen.add(found.raw)
                    yield found


def _aligned(heads: bytes, pattern: bytes) -> Iterator[int]:
    at = heads.find(pattern)
    while at >= 0:
        if at % 8 == 0:
            yield at // 8
        at = heads.find(pattern, at + 1)


def _accept(memory: PhysicalMemory, pa: int) -> Found | None:
    """A text in a process or a page cache may look alike: ask for what all kernels write."""
    try:
        found = note_at(memory, pa)
    except (Corrupt, MemoryFault):
        return None
    if "NUMBER(phys_base)" not in found.fields or b"\nSYMBOL(" not in found.raw:
        return None
    return found
