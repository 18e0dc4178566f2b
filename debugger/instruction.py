# SPDX-License-Identifier: GPL-2.0-or-later
"""What an x86-64 instruction does to the flags that a single step uses.

Source: Intel SDM volume 2, opcode maps (appendix A).
"""

from enum import Enum

_PREFIXES = frozenset(
    {0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, *range(0x40, 0x50)}
)
_MOST_PREFIXES = 14


class Kind(Enum):
    """Instructions that a step must know."""

    PLAIN = "reads and writes neither the interrupt nor the trap flag"
    PUSHF = "stores the flags"
    CLI = "forbids interrupts"
    FLAGS = "loads flags, allows interrupts or waits for one"
    LEAVES = "returns to user mode, where the trap flag is another"


_ONE = {
    0x9C: Kind.PUSHF,
    0x9D: Kind.FLAGS,  # popf
    0xFA: Kind.CLI,
    0xFB: Kind.FLAGS,  # sti
    0xF4: Kind.FLAGS,  # hlt
    0xCF: Kind.FLAGS,  # iret
}
_TWO = {0x07: Kind.LEAVES, 0x35: Kind.LEAVES}  # sysret, sysexit


def kind_of(code: bytes) -> Kind:
    """The kind of the instruction that `code` begins with."""
    at = 0
    while at < min(len(code), _MOST_PREFIXES) and code[at] in _PREFIXES:
        at += 1
    opcode = code[at : at + 2]
    if len(opcode) == 2 and opcode[0] == 0x0F:
        return _TWO.get(opcode[1], Kind.PLAIN)
    return _ONE.get(opcode[0], Kind.PLAIN) if opcode else Kind.PLAIN
