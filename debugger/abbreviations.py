# SPDX-License-Identifier: GPL-2.0-or-later
"""The shapes of the DIEs that dwarf.py writes: .debug_abbrev.

All attributes of a DIE have a fixed size, and named and anonymous variants of a
DIE are equally long: dwarf.py counts on that.  Source: DWARF 4, section 7.5.
"""

from enum import IntEnum
from typing import NamedTuple


class Form(IntEnum):
    """DW_FORM_*, those used here."""

    DATA4 = 0x06
    DATA8 = 0x07
    STRING = 0x08
    DATA1 = 0x0B
    STRP = 0x0E
    REF4 = 0x13
    EXPRLOC = 0x18
    PRESENT = 0x19


class _At(IntEnum):
    """DW_AT_*, those used here."""

    LOCATION = 0x02
    NAME = 0x03
    BYTE_SIZE = 0x0B
    BIT_SIZE = 0x0D
    LANGUAGE = 0x13
    CONST_VALUE = 0x1C
    PRODUCER = 0x25
    PROTOTYPED = 0x27
    COUNT = 0x37
    MEMBER_LOCATION = 0x38
    DECL_LINE = 0x3B
    DECLARATION = 0x3C
    ENCODING = 0x3E
    EXTERNAL = 0x3F
    TYPE = 0x49
    BIT_OFFSET = 0x6B


_NAME, _TYPE = (_At.NAME, Form.STRP), (_At.TYPE, Form.REF4)
_SIZE = (_At.BYTE_SIZE, Form.DATA4)
_FILL4 = (_At.DECL_LINE, Form.DATA4)  # line 0 says nothing: it keeps DIEs of a kind equally long


class _Die(NamedTuple):
    """A row of .debug_abbrev."""

    tag: int
    children: bool
    attributes: tuple[tuple[_At, Form], ...]


# The code of an abbreviation is its place here, from 1 on.
_DIES = {
    "unit": _Die(0x11, True, ((_At.PRODUCER, Form.STRING), (_At.LANGUAGE, Form.DATA1),
                              (_At.NAME, Form.STRING))),
    "void": _Die(0x3B, False, ((_At.NAME, Form.STRING),)),
    "base": _Die(0x24, False, (_NAME, (_At.ENCODING, Form.DATA1), (_At.BYTE_SIZE, Form.DATA1))),
    "pointer": _Die(0x0F, False, (_TYPE,)),
    "array": _Die(0x01, True, (_TYPE,)),
    "bound": _Die(0x21, False, ((_At.COUNT, Form.DATA4),)),
    "flexible": _Die(0x21, False, (_FILL4,)),
    "struct": _Die(0x13, True, (_NAME, _SIZE)),
    "anonymous struct": _Die(0x13, True, ((_At.BYTE_SIZE, Form.DATA8),)),
    "struct declared": _Die(0x13, False, (_NAME, (_At.DECLARATION, Form.PRESENT))),
    "union": _Die(0x17, True, (_NAME, _SIZE)),
    "anonymous union": _Die(0x17, True, ((_At.BYTE_SIZE, Form.DATA8),)),
    "union declared": _Die(0x17, False, (_NAME, (_At.DECLARATION, Form.PRESENT))),
    "member": _Die(0x0D, False, (_NAME, _TYPE, (_At.MEMBER_LOCATION, Form.DATA4),
                                 (_At.DECL_LINE, Form.DATA1))),
    "anonymous member": _Die(0x0D, False, (_TYPE, (_At.MEMBER_LOCATION, Form.DATA8),
                                           (_At.DECL_LINE, Form.DATA1))),
    "bitfield": _Die(0x0D, False, (_NAME, _TYPE, (_At.BIT_OFFSET, Form.DATA4),
                                   (_At.BIT_SIZE, Form.DATA1))),
    "enum": _Die(0x04, True, (_NAME, _SIZE)),
    "anonymous enum": _Die(0x04, True, ((_At.BYTE_SIZE, Form.DATA8),)),
    "enumerator": _Die(0x28, False, (_NAME, (_At.CONST_VALUE, Form.DATA8))),
    "typedef": _Die(0x16, False, (_NAME, _TYPE)),
    "const": _Die(0x26, False, (_TYPE,)),
    "volatile": _Die(0x35, False, (_TYPE,)),
    "restrict": _Die(0x37, False, (_TYPE,)),
    "prototype": _Die(0x15, True, (_TYPE, (_At.PROTOTYPED, Form.PRESENT))),
    "parameter": _Die(0x05, False, (_TYPE,)),
    "ellipsis": _Die(0x18, False, (_FILL4,)),
    "variable": _Die(0x34, False, ((_At.NAME, Form.STRING), _TYPE,
                                   (_At.EXTERNAL, Form.PRESENT),
                                   (_At.LOCATION, Form.EXPRLOC))),
}  # fmt: skip
CODES = {name: code for code, name in enumerate(_DIES, 1)}


def section() -> bytes:
    """.debug_abbrev."""
    rows = []
    for die, code in zip(_DIES.values(), CODES.values(), strict=True):
        pairs = b"".join(bytes(pair) for pair in die.attributes)
        rows.append(bytes((code, die.tag, die.children)) + pairs + b"\0\0")
    return b"".join(rows) + b"\0"
