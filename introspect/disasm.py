# SPDX-License-Identifier: GPL-2.0-or-later
"""Disassembly around an address, with symbols; and of a log's "Code:" line.

Decoding starts at a function's first byte, so instructions never start in
the middle.  What is shown is memory as it is, patched alternatives included.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from introspect.errors import Corrupt, MemoryFault, NotFound, ToolMissing

if TYPE_CHECKING:
    from introspect.kernel import Kernel
    from introspect.symbols import Symbols

MAX_FUNCTION = 1 << 18
LONGEST = 15  # bytes of the longest x86 instruction
_CODE = re.compile(r"Code: ((?:[<(]?[0-9a-f]{2}[>)]? ?)+)")
_BYTE = re.compile(r"([<(]?)([0-9a-f]{2})")
_TARGET = re.compile(r"\b0x([0-9a-f]{9,16})\b")
_RIP = re.compile(r"\[rip ([+-]) 0x([0-9a-f]+)\]")

_CALL, CALL_SIZE = 0xE8, 5


class Instruction(NamedTuple):
    """`text`: mnemonic and operands; `note`: what they refer to; `current` marks the spot."""

    address: int
    raw: bytes
    text: str
    note: str
    current: bool


def _capstone() -> Any:
    try:
        import capstone
    except ImportError:
        raise ToolMissing("disassembly needs capstone: pip install capstone") from None
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def decode(
    raw: bytes, address: int, current: int, symbols: Symbols | None = None
) -> list[Instruction]:
    """The instructions in `raw`, which lies at `address`; stops at bytes that are none."""
    out = []
    for at, size, mnemonic, operands in _capstone().disasm_lite(raw, address):
        text = f"{mnemonic} {operands}".strip()
        note = _note(text, at + size, symbols) if symbols else ""
        start = at - address
        out.append(Instruction(at, raw[start : start + size], text, note, at == current))
    return out


def _note(text: str, end: int, symbols: Symbols) -> str:
    """The symbol an operand names: a branch target, or an address relative to rip."""
    target = None
    relative, absolute = _RIP.search(text), _TARGET.search(text)
    if relative:
        distance = int(relative[2], 16)
        target = end + (distance if relative[1] == "+" else -distance)
    elif absolute:
        target = int(absolute[1], 16)
    if target is None:
        return ""
    try:
        name, offset = symbols.lookup(target)
    except NotFound:
        return ""
    return f"{name}+{offset:#x}" if offset else name


def called(code: bytes, behind: int) -> int | None:
    """What the `call rel32` calls whose CALL_SIZE bytes end at `behind`; None where it is none."""
    if len(code) != CALL_SIZE or code[0] != _CALL:
        return None
    return behind + int.from_bytes(code[1:], "little", signed=True)


def around(kernel: Kernel, address: int, before: int = 10, after: int = 6) -> list[Instruction]:
    """Up to `before` instructions before `address`, the one there, and `after` more.

    NotFound when no function holds the address; MemoryFault when its code is not in memory.
    """
    symbol = kernel.symbols.find(address)
    offset = address - symbol.address
    if offset > MAX_FUNCTION:
        raise NotFound(f"{address:#x} lies too far into {symbol.name} to be in it")
    wanted = offset + (after + 1) * LONGEST
    if symbol.size:
        wanted = min(wanted, symbol.size)
    try:
        raw = kernel.read(symbol.address, wanted)
    except MemoryFault:
        raw = kernel.read(symbol.address, offset + 1)
    found = decode(raw, symbol.address, address, kernel.symbols)
    spot = next((i for i, one in enumerate(found) if one.address >= address), len(found))
    return found[max(0, spot - before) : spot + 1 + after]


def parse_code(line: str) -> tuple[bytes, int]:
    """(bytes, index of the marked one) of an oops's "Code: 48 8b <0f> 0b" line.

    NotFound when the line has none; Corrupt when nothing is marked.
    """
    match = _CODE.search(line)
    if not match:
        raise NotFound('no "Code:" bytes in this line')
    found = _BYTE.findall(match[1])
    marked = next((i for i, (mark, _) in enumerate(found) if mark), None)
    if marked is None:
        raise Corrupt("no byte of the Code: line is marked", f"{len(found)} bytes")
    return bytes(int(digits, 16) for _, digits in found), marked


def code_line(line: str, ip: int = 0) -> list[Instruction]:
    """The instructions of a "Code:" line; `ip` is the address of the marked byte.

    The line starts anywhere in an instruction: the start is taken from which the longest run of
    instructions leads exactly to the marked byte.
    """
    raw, marked = parse_code(line)
    base = ip - marked
    for start in range(min(LONGEST, marked + 1)):
        found = decode(raw[start:], base + start, ip)
        if any(one.current for one in found):
            return found
    return decode(raw[marked:], ip, ip)


def lines(instructions: list[Instruction]) -> list[str]:
    """As text, "=>" before the current instruction."""
    return [
        f"{'=>' if one.current else '  '} {one.address:#x}: {one.raw.hex(' '):<30} {one.text}"
        + (f"  # {one.note}" if one.note else "")
        for one in instructions
    ]
