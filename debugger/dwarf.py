# SPDX-License-Identifier: GPL-2.0-or-later
"""Just enough DWARF to give a few global variables a C type.

BTF, and so a kernel without debuginfo, has no types of global variables; gdb
refuses to print a symbol of unknown type.  The table below holds those a user
reaches for first.  One compile unit, DWARF 4, 64-bit addresses, little endian.
Source: DWARF Debugging Information Format 4, sections 7.5 and 7.6.

Limits: no structures, no functions.
"""

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

_COMPILE_UNIT, _BASE, _POINTER, _ARRAY, _UNBOUNDED, _CONST, _VARIABLE = range(1, 8)
_ADDR = b"\x03"  # DW_OP_addr

# (code, tag, has children, ((attribute, form), ...)): the .debug_abbrev section
_ABBREVIATIONS = (
    (_COMPILE_UNIT, 0x11, 1, ((0x25, 0x08), (0x13, 0x0B), (0x03, 0x08))),  # producer lang name
    (_BASE, 0x24, 0, ((0x03, 0x08), (0x3E, 0x0B), (0x0B, 0x0B))),  # name encoding size
    (_POINTER, 0x0F, 0, ((0x49, 0x13), (0x0B, 0x0B))),  # type size
    (_ARRAY, 0x01, 1, ((0x49, 0x13),)),  # type
    (_UNBOUNDED, 0x21, 0, ((0x49, 0x13),)),  # type; without a bound gdb reads up to the NUL
    (_CONST, 0x26, 0, ((0x49, 0x13),)),  # type
    (_VARIABLE, 0x34, 0, ((0x03, 0x08), (0x49, 0x13), (0x3F, 0x0C), (0x02, 0x18))),
)
_LANGUAGE_C99 = 0x0C
_SIGNED, _SIGNED_CHAR, _UNSIGNED, _BOOLEAN = 5, 6, 7, 2


class Base(NamedTuple):
    """A base type of C."""

    name: str
    encoding: int
    size: int


CHAR = Base("char", _SIGNED_CHAR, 1)
INT = Base("int", _SIGNED, 4)
UNSIGNED_INT = Base("unsigned int", _UNSIGNED, 4)
UNSIGNED_LONG = Base("unsigned long", _UNSIGNED, 8)
BOOL = Base("bool", _BOOLEAN, 1)
_BASES = (CHAR, INT, UNSIGNED_INT, UNSIGNED_LONG, BOOL)
STRING = "char *"
TEXT = "const char []"

GLOBALS: Mapping[str, Base | str] = {
    "boot_command_line": TEXT,
    "console_printk": INT,
    "crash_kexec_post_notifiers": BOOL,
    "jiffies": UNSIGNED_LONG,
    "jiffies_64": UNSIGNED_LONG,
    "linux_banner": TEXT,
    "linux_proc_banner": TEXT,
    "nr_cpu_ids": UNSIGNED_INT,
    "nr_threads": INT,
    "page_offset_base": UNSIGNED_LONG,
    "panic_cpu": INT,
    "panic_on_oops": INT,
    "panic_timeout": INT,
    "phys_base": UNSIGNED_LONG,
    "saved_command_line": STRING,
    "system_state": UNSIGNED_INT,
    "tainted_mask": UNSIGNED_LONG,
    "total_forks": UNSIGNED_LONG,
    "vmalloc_base": UNSIGNED_LONG,
    "vmemmap_base": UNSIGNED_LONG,
}
"""Type of each global known here: include/linux and init/, kernel/ of Linux 6.1."""


def sections(find: Callable[[str], int | None]) -> dict[str, bytes]:
    """.debug_abbrev and .debug_info of the globals that `find` gives an address for."""
    return {".debug_abbrev": _abbreviations(), ".debug_info": _Unit().build(find)}


def _abbreviations() -> bytes:
    rows = []
    for code, tag, children, attributes in _ABBREVIATIONS:
        pairs = b"".join(bytes(pair) for pair in attributes)
        rows.append(bytes((code, tag, children)) + pairs + b"\0\0")
    return b"".join(rows) + b"\0"


class _Unit:
    """The one compile unit; references are offsets from its start."""

    def __init__(self) -> None:
        self._data = bytearray(b"\0" * 11)  # the header, filled in at the end
        self._bases: dict[Base, int] = {}

    def _add(self, code: int, *fields: bytes) -> int:
        at = len(self._data)
        self._data += bytes((code,)) + b"".join(fields)
        return at

    def build(self, find: Callable[[str], int | None]) -> bytes:
        self._add(_COMPILE_UNIT, b"vnode-debug\0", bytes((_LANGUAGE_C99,)), b"kernel globals\0")
        for base in _BASES:
            fields = base.name.encode() + b"\0" + bytes((base.encoding, base.size))
            self._bases[base] = self._add(_BASE, fields)
        char = self._bases[CHAR]
        self._const_char = self._add(_CONST, _ref(char))
        self._string = self._add(_POINTER, _ref(char), b"\x08")
        for name, kind in GLOBALS.items():
            address = find(name)
            if address is not None:
                self._variable(name, kind, address)
        self._data += b"\0"
        struct.pack_into("<IHIB", self._data, 0, len(self._data) - 4, 4, 0, 8)
        return bytes(self._data)

    def _variable(self, name: str, kind: Base | str, address: int) -> None:
        if isinstance(kind, Base):
            reference = self._bases[kind]
        elif kind == STRING:
            reference = self._string
        else:
            reference = self._add(_ARRAY, _ref(self._const_char))
            self._add(_UNBOUNDED, _ref(self._bases[UNSIGNED_LONG]))
            self._data += b"\0"
        place = struct.pack("<B1sQ", 9, _ADDR, address)
        self._add(_VARIABLE, name.encode() + b"\0", _ref(reference), b"\x01", place)


def _ref(offset: int) -> bytes:
    return struct.pack("<I", offset)
