# SPDX-License-Identifier: GPL-2.0-or-later
"""Call frame information for gdb (.debug_frame) out of the kernel's ORC tables.

An ORC rule becomes a row: the CFA is the caller's stack pointer.  Where a whole
struct pt_regs or an exception frame lies (Step.REGS, Step.PARTIAL) the CFA is
its address, its registers are restored from it, and the frame is marked as a
signal frame ("S"): its caller was interrupted, so its PC is exact.  gdb shows
such a frame as "<signal handler called>".  The frame that came from the
interrupt stack (SP_INDIRECT) is marked too: gdb takes a normal frame whose
caller lies at a lower address for a corrupt stack.

Behind a call of error_entry() two rules hold at one address (orc.py tells): in a
frame that has called it the stack is as before, and when it has just returned a
struct pt_regs lies there.  gdb looks up both by the same address, as it does for
signal frames, so one row tells them apart: by where a code segment lies.

ORC follows the stack pointer and rbp alone: other registers of a caller are
undefined, "<not saved>" in gdb, but for those an interrupt has saved.

Source: DWARF 4, sections 6.4 and 7.23; System V ABI for x86-64, figure 3.36.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from enum import Enum
from itertools import count, pairwise
from operator import add
from typing import NamedTuple

from debugger.errors import SymbolFileError
from introspect.orc import Entry, Layout, Reg, Step
from introspect.registers import IRET_FRAME, PT_REGS

_ADVANCE1, _ADVANCE2, _ADVANCE4 = 0x02, 0x03, 0x04
_UNDEFINED, _SAME_VALUE, _DEF_CFA = 0x07, 0x08, 0x0C
_DEF_CFA_EXPRESSION, _EXPRESSION, _OFFSET_SF, _VAL_OFFSET = 0x0F, 0x10, 0x11, 0x14
_ADVANCE, _OFFSET = 0x40, 0x80
_VAL_EXPRESSION = 0x16
_OP_DEREF, _OP_CONSTS, _OP_PLUS, _OP_BREG = 0x06, 0x11, 0x22, 0x70
_OP_CONST1U, _OP_DUP, _OP_SWAP, _OP_MINUS, _OP_MUL = 0x08, 0x12, 0x16, 0x1C, 0x1E
_OP_OR, _OP_EQ = 0x21, 0x29
_ALIGN = 8  # factor of every register offset

_NUMBERS = {
    "ax": 0, "dx": 1, "cx": 2, "bx": 3, "si": 4, "di": 5, "bp": 6, "sp": 7, "r8": 8, "r9": 9,
    "r10": 10, "r11": 11, "r12": 12, "r13": 13, "r14": 14, "r15": 15, "ip": 16, "flags": 49,
    "cs": 51, "ss": 52,
}  # fmt: skip
_BP, _SP, _IP = _NUMBERS["bp"], _NUMBERS["sp"], _NUMBERS["ip"]
_BASES = {
    Reg.SP: _SP,
    Reg.BP: _BP,
    Reg.R10: _NUMBERS["r10"],
    Reg.R13: _NUMBERS["r13"],
    Reg.DI: _NUMBERS["di"],
    Reg.DX: _NUMBERS["dx"],
    Reg.AX: _NUMBERS["ax"],
}
_UNTRACKED = [n for n in range(16) if n not in (_BP, _SP)]
_FDE = struct.Struct("<IIQQ")
_CIE_ID = 0xFFFFFFFF
USER_END = 1 << 56
_MOV_SIZE = 3


class Kind(Enum):
    """Which CIE describes a frame."""

    CALL = "a return address lies just below the CFA"
    SWITCH = "so it does, on another stack"
    REGS = "the CFA is the address of a struct pt_regs"
    PARTIAL = "the CFA is the address of an exception frame"


class _Row(NamedTuple):
    """A translated rule."""

    kind: Kind
    code: bytes
    last: bool
    """The unwinding ends here."""


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _sleb(value: int) -> bytes:
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value & 0x7F))


def _breg(register: int, offset: int) -> bytes:
    return bytes((_OP_BREG + register,)) + _sleb(offset)


def _block(expression: bytes) -> bytes:
    return _uleb(len(expression)) + expression


def _cfa(entry: Entry) -> bytes | None:
    """The instruction that defines the CFA; None for a register that is not known."""
    offset = entry.sp_offset
    base = _BASES.get(Reg(entry.sp_reg)) if entry.sp_reg in Reg._value2member_map_ else None
    if base is not None and offset >= 0:
        return bytes((_DEF_CFA, base)) + _uleb(offset)
    if base is not None:
        expression = _breg(base, offset)
    elif entry.sp_reg == Reg.SP_INDIRECT:  # the offset counts after the load
        expression = _breg(_SP, 0) + bytes((_OP_DEREF, _OP_CONSTS)) + _sleb(offset)
        expression += bytes((_OP_PLUS,))
    elif entry.sp_reg == Reg.BP_INDIRECT:
        expression = _breg(_BP, offset) + bytes((_OP_DEREF,))
    else:
        return None
    return bytes((_DEF_CFA_EXPRESSION,)) + _block(expression)


def _bp(entry: Entry) -> bytes:
    """The instruction that tells where the caller's rbp is."""
    offset = entry.bp_offset
    if entry.bp_reg == Reg.PREV_SP and offset % _ALIGN == 0:
        return bytes((_OFFSET_SF, _BP)) + _sleb(offset // _ALIGN)
    if entry.bp_reg == Reg.PREV_SP:  # the CFA is on the expression's stack
        expression = bytes((_OP_CONSTS,)) + _sleb(offset) + bytes((_OP_PLUS,))
    elif entry.bp_reg == Reg.BP:
        expression = _breg(_BP, offset)
    else:
        return bytes((_SAME_VALUE, _BP))
    return bytes((_EXPRESSION, _BP)) + _block(expression)


_KERNEL_CS, _USER_CS = 0x10, 0x33


def _behind_error_entry() -> bytes:
    """Where the exception frame is, and rbp: above an error code, or the end of a pt_regs."""
    called = (  # 1 or 0: the word at rsp + 16 is the frame's cs
        _breg(_SP, 16) + bytes((_OP_DEREF, _OP_DUP, _OP_CONST1U, _KERNEL_CS, _OP_EQ, _OP_SWAP))
        + bytes((_OP_CONST1U, _USER_CS, _OP_EQ, _OP_OR))
    )  # fmt: skip
    end = 8 * PT_REGS.index("ip")
    cfa = _breg(_SP, end) + called + bytes((_OP_CONST1U, end - 8, _OP_MUL, _OP_MINUS))
    saved = bytes((_OP_CONST1U, end - 8 * PT_REGS.index("bp"), _OP_MINUS, _OP_DEREF))
    bp = saved + bytes((_OP_DUP,)) + _breg(_BP, 0) + bytes((_OP_SWAP, _OP_MINUS))
    bp += called + bytes((_OP_MUL, _OP_PLUS))  # saved + called * (rbp - saved)
    return bytes((_DEF_CFA_EXPRESSION,)) + _block(cfa) + bytes((_VAL_EXPRESSION, _BP)) + _block(bp)


_KINDS = {Step.CALL: Kind.CALL, Step.REGS: Kind.REGS, Step.PARTIAL: Kind.PARTIAL}
_END = _Row(Kind.CALL, bytes((_UNDEFINED, _IP)), True)


ERROR_RETURN = _Row(Kind.PARTIAL, _behind_error_entry(), False)


def translate(entry: Entry) -> _Row:
    """The row of a rule."""
    kind, cfa = _KINDS.get(entry.step), _cfa(entry)
    if kind is None or cfa is None:
        return _END
    if kind is Kind.REGS:
        return _Row(kind, cfa, False)
    if entry.sp_reg == Reg.SP_INDIRECT and kind is Kind.CALL:
        kind = Kind.SWITCH
    return _Row(kind, cfa + _bp(entry), False)


def _saved(names: Sequence[str]) -> bytes:
    """Rules for a structure of registers at the CFA."""
    places = ((_NUMBERS[name], n) for n, name in enumerate(names) if name in _NUMBERS)
    return b"".join(bytes((_OFFSET | register,)) + _uleb(n) for register, n in places)


def _cie(kind: Kind) -> bytes:
    untracked = b"".join(bytes((_UNDEFINED, n)) for n in _UNTRACKED)
    if kind is Kind.REGS:
        rules = _saved(PT_REGS)
    elif kind is Kind.PARTIAL:
        rules = untracked + _saved(IRET_FRAME)
    else:
        above = bytes((_OFFSET_SF, _IP)) + _sleb(-1) + bytes((_VAL_OFFSET, _SP, 0))
        rules = untracked + above
    signal = kind is not Kind.CALL
    head = b"\x01" + (b"zS\0" if signal else b"z\0") + b"\x01" + _sleb(_ALIGN) + bytes((_IP, 0))
    body = head + bytes((_DEF_CFA, _SP, 0)) + rules
    return struct.pack("<II", 4 + len(_pad(body, 0)), _CIE_ID) + _pad(body, 0)


def _pad(body: bytes, taken: int) -> bytes:
    """Up to a multiple of 8 bytes with what precedes; 0 is DW_CFA_nop."""
    return body + bytes(-(len(body) + taken) % 8)


def _advances() -> list[bytes]:
    small = [bytes((_ADVANCE | n,)) for n in range(64)]
    return small + [bytes((_ADVANCE1, n)) for n in range(64, 256)]


_SHORT = _advances()


def _advance(delta: int) -> bytes:
    if delta < 256:
        return _SHORT[delta]
    if delta < 1 << 16:
        return struct.pack("<BH", _ADVANCE2, delta)
    return struct.pack("<BI", _ADVANCE4, delta)


class Writer:
    """Collects a .debug_frame section; the CIEs come first."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._cies: dict[Kind, int] = {}
        at = 0
        for kind in Kind:
            self._cies[kind] = at
            self._parts.append(_cie(kind))
            at += len(self._parts[-1])

    def add(self, start: int, end: int, kind: Kind, code: bytes) -> None:
        """An FDE for code at [start, end); `code` is its instructions."""
        body = b"\0" + code  # no augmentation data
        body += bytes(-(len(body) + _FDE.size) % 8)
        size = _FDE.size - 4 + len(body)
        self._parts.append(_FDE.pack(size, self._cies[kind], start, end - start) + body)

    def table(self, ips: Sequence[int], rows: Sequence[_Row], end: int) -> None:
        """FDEs of an ORC table: rules `rows` from `ips` on, ascending, the last up to `end`.

        An FDE is a run of rules of one kind, up to where the unwinding ends: about a function.
        """
        start, kind, code = ips[0], rows[0].kind, [rows[0].code]
        at, last = start, rows[0]
        for ip, row in zip(ips[1:], rows[1:], strict=True):
            if row.code == last.code and row.kind is last.kind:
                continue
            if row.last and not last.last and kind is Kind.CALL:
                code += (_advance(ip - at), row.code)
            elif last.last or row.kind is not kind:
                self.add(start, ip, kind, b"".join(code))
                start, kind, code = ip, row.kind, [row.code]
            else:
                code += (_advance(ip - at), row.code)
            at, last = ip, row
        self.add(start, max(end, at + 1), kind, b"".join(code))

    def user(self) -> None:
        """Ends backtraces at user mode: all its addresses have no caller."""
        self.add(0, USER_END, Kind.CALL, _END.code)

    def section(self) -> bytes:
        return b"".join(self._parts)


def rows_of(layout: Layout, entries: bytes) -> list[_Row]:
    """The translated rules of a table, each distinct one translated once."""
    size = layout.size
    raw = [entries[at : at + size] for at in range(0, len(entries), size)]
    known = {key: translate(layout.decode(key)) for key in set(raw)}
    return [known[key] for key in raw]


def amend(ips: list[int], rows: list[_Row], returns: Sequence[int]) -> None:
    """Put ERROR_RETURN at each of `returns`, for as long as the `mov` there is not done."""
    for at in returns:
        index, after = bisect_right(ips, at) - 1, at + _MOV_SIZE
        if index < 0:
            continue
        if index + 1 == len(ips) or ips[index + 1] > after:
            ips.insert(index + 1, after)
            rows.insert(index + 1, rows[index])
        if ips[index] == at:
            rows[index] = ERROR_RETURN
        else:
            ips.insert(index + 1, at)
            rows.insert(index + 1, ERROR_RETURN)


def addresses(ips: "array[int]", first: int) -> list[int]:
    """Addresses of the rules; ips[n] counts from its own place, first + 4 * n.

    SymbolFileError when they do not ascend.
    """
    found = list(map(add, ips, count(first, 4)))
    if any(low > high for low, high in pairwise(found)) or (found and found[0] < 0):
        raise SymbolFileError("the kernel's unwind rules are out of order")
    return found
