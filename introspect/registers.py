# SPDX-License-Identifier: GPL-2.0-or-later
"""x86-64 registers as the kernel and dump files lay them out."""

from __future__ import annotations

import struct

from introspect.errors import Corrupt

# struct pt_regs, arch/x86/include/asm/ptrace.h; user_regs_struct of PRSTATUS starts alike
PT_REGS = (
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si",
    "di", "orig_ax", "ip", "cs", "flags", "sp", "ss",
)  # fmt: skip
PT_REGS_SIZE = 8 * len(PT_REGS)
# What the CPU pushes on an exception, the end of struct pt_regs
IRET_FRAME = ("ip", "cs", "flags", "sp", "ss")
IRET_SIZE = 8 * len(IRET_FRAME)
USER_RPL = 3

_PT_REGS = struct.Struct(f"<{len(PT_REGS)}Q")
_IRET = struct.Struct(f"<{len(IRET_FRAME)}Q")

Registers = dict[str, int]


def from_pt_regs(raw: bytes) -> Registers:
    """Registers of a struct pt_regs, or of the start of a PRSTATUS note's registers."""
    if len(raw) < PT_REGS_SIZE:
        raise Corrupt("registers are cut off", f"{len(raw)} of {PT_REGS_SIZE} bytes")
    return dict(zip(PT_REGS, _PT_REGS.unpack_from(raw), strict=True))


def from_iret_frame(raw: bytes) -> Registers:
    """The five registers of an exception frame."""
    return dict(zip(IRET_FRAME, _IRET.unpack(raw), strict=True))


def is_user(registers: Registers) -> bool:
    """Whether the CPU was in user mode."""
    return registers.get("cs", 0) & USER_RPL == USER_RPL
