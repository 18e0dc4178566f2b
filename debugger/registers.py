# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of an x86-64 CPU as gdb numbers them, and their wire format.

A register's number is its place in LAYOUT; target.xml (features.py) is made
from the same table, so the two cannot drift.  Values are plain ints by name;
a name that is missing is sent as unavailable (`xx`), but for rip: gdb 13
aborts `target remote` when the PC is unavailable, zeros it takes.

Not there: SSE and later state, which no register frame of a kernel saves.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from adeos.abi import USER_REGS, VN_FRAME_CONTROL, VN_FRAME_GP, Frame

CORE = "org.gnu.gdb.i386.core"
LINUX = "org.gnu.gdb.i386.linux"
SEGMENTS = "org.gnu.gdb.i386.segments"
CONTROL = "org.vnode-debug.x86.control"

Values = Mapping[str, int]


class Register(NamedTuple):
    """One register: `bits` wide, `type` and `feature` as in gdb's target descriptions."""

    name: str
    bits: int
    type: str
    feature: str


def _layout() -> tuple[Register, ...]:
    pointers = {"rbp": "data_ptr", "rsp": "data_ptr", "rip": "code_ptr"}
    # fmt: off
    general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
               "r12", "r13", "r14", "r15", "rip")
    # fmt: on
    fpu = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
    control = {"cr0": "cr0_flags", "cr4": "cr4_flags", "efer": "efer_flags"}
    return (
        *(Register(name, 64, pointers.get(name, "int64"), CORE) for name in general),
        Register("eflags", 32, "i386_eflags", CORE),
        *(Register(name, 32, "int32", CORE) for name in ["cs", "ss", "ds", "es", "fs", "gs"]),
        *(Register(f"st{n}", 80, "i387_ext", CORE) for n in range(8)),
        *(Register(name, 32, "int", CORE) for name in fpu),
        Register("orig_rax", 64, "int64", LINUX),
        Register("fs_base", 64, "int64", SEGMENTS),
        Register("gs_base", 64, "int64", SEGMENTS),
        Register("k_gs_base", 64, "int64", CONTROL),
        *(
            Register(name, 64, control.get(name, "int64"), CONTROL)
            for name in ["cr0", "cr2", "cr3", "cr4", "cr8", "efer"]
        ),
    )


LAYOUT = _layout()
PC = next(number for number, register in enumerate(LAYOUT) if register.name == "rip")


def of_user_regs(regs: Sequence[int]) -> dict[str, int]:
    """Values out of 27 words in the order of struct user_regs_struct."""
    return dict(zip(USER_REGS, regs, strict=True))


def of_frame(frame: Frame) -> dict[str, int]:
    """Values out of a frame; only what its flags call valid."""
    values = of_user_regs(frame.regs) if frame.flags & VN_FRAME_GP else {}
    if frame.flags & VN_FRAME_CONTROL:
        values["k_gs_base"] = frame.kernel_gs_base
        for name in ("cr0", "cr2", "cr3", "cr4", "efer"):
            values[name] = getattr(frame, name)
    else:  # the segment bases are read together with the control registers
        values.pop("fs_base", None)
        values.pop("gs_base", None)
    return values


def encode_one(number: int, values: Values) -> bytes:
    """One register in hex, target byte order; `x` digits when it is unavailable."""
    name, bits, _, _ = LAYOUT[number]
    value = values.get(name)
    if value is None:
        if number != PC:
            return b"x" * (bits // 4)
        value = 0
    size = bits // 8
    return (value & (1 << bits) - 1).to_bytes(size, "little").hex().encode()


def decode_one(number: int, digits: bytes) -> dict[str, int] | None:
    """A register out of hex digits; {} when they say unavailable, None when malformed."""
    name, bits, _, _ = LAYOUT[number]
    if digits == b"x" * (bits // 4):
        return {}
    try:
        raw = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None
    return {name: int.from_bytes(raw, "little")} if len(raw) == bits // 8 else None


def decode(digits: bytes) -> dict[str, int] | None:
    """The registers of a `G` packet, which may end early; None when malformed."""
    values: dict[str, int] = {}
    at = 0
    for number, register in enumerate(LAYOUT):
        size = register.bits // 4
        if at == len(digits):
            break
        one = decode_one(number, digits[at : at + size])
        if one is None:
            return None
        values |= one
        at += size
    return values if at == len(digits) else None


def encode(values: Values) -> bytes:
    """All registers: the reply to `g`."""
    return b"".join([encode_one(number, values) for number in range(len(LAYOUT))])
