# SPDX-License-Identifier: GPL-2.0-or-later
"""ORC: the unwind tables of x86-64 kernels since 4.14.

An entry says how to find the caller's stack pointer, return address and
frame pointer at an address.  Its layout is read from BTF's struct orc_entry,
so 4.14's, 6.3's (ffb1b4a41016, `signal`) and 6.4's (fb799447ae29, `end`
became a type) are told apart by their members; the type numbers, which BTF
does not have, follow from whether `end` is one of them.  7.2 numbers the
registers anew: the stack pointer, which nine rules in ten count from, tells
which numbers are in use.

One rule is amended, as seen in 6.1: error_entry() returns with the registers on
the stack that it was called on (and their address, or that of a copy, in rax),
and yet the table takes the stack to be as it was before the call, until the
next instruction, `mov %rax,%rsp`, is done.  Emulators stop there often.

Source: arch/x86/include/asm/orc_types.h, arch/x86/kernel/unwind_orc.c.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from introspect.btf import Type
from introspect.disasm import CALL_SIZE, called
from introspect.errors import Corrupt, IntrospectError, MemoryFault, NotFound

if TYPE_CHECKING:
    from introspect.kernel import Kernel

MAX_ENTRIES = 1 << 23
UNKNOWN_REG = 15  # ORC_REG_MAX


class Reg(IntEnum):
    """ORC_REG_*"""

    UNDEFINED = 0
    PREV_SP = 1
    DX = 2
    DI = 3
    BP = 4
    SP = 5
    R10 = 6
    R13 = 7
    BP_INDIRECT = 8
    SP_INDIRECT = 9
    AX = 10  # a number of our own: 7.2 alone has it in its tables


class Step(IntEnum):
    """What lies at the caller's stack pointer."""

    UNDEFINED = 0  # no way on
    END = 1  # the outermost frame
    CALL = 2  # a return address, just below
    REGS = 3  # a whole struct pt_regs
    PARTIAL = 4  # an exception frame


class Entry(NamedTuple):
    """One unwind rule; offsets in bytes."""

    sp_offset: int
    bp_offset: int
    sp_reg: int
    bp_reg: int
    step: Step
    signal: bool


# A call through a NULL pointer: only the return address has been pushed (orc_null)
NULL_CALL = Entry(8, 0, Reg.SP, Reg.UNDEFINED, Step.CALL, False)
# No rule: what a frame pointer would say (orc_fp_entry); never trusted
FRAME_POINTER = Entry(16, -16, Reg.BP, Reg.PREV_SP, Step.CALL, False)

# error_entry() has just returned: a whole struct pt_regs lies on the stack
ERROR_RETURN = Entry(0, 0, Reg.SP, Reg.UNDEFINED, Step.REGS, True)
_MOV_RAX_RSP = b"\x48\x89\xc4"
MAX_ENTRY_TEXT = 1 << 18

_OLD_STEPS = (Step.CALL, Step.REGS, Step.PARTIAL, Step.UNDEFINED)
_NEW_STEPS = (Step.UNDEFINED, Step.END, Step.CALL, Step.REGS, Step.PARTIAL)


# By number in the table: 7.2's, and those of 4.14 to 6.12
_NEW_REGS = (
    Reg.UNDEFINED, Reg.AX, Reg.DX, Reg.SP, Reg.BP, Reg.DI, Reg.R10, Reg.R13, Reg.PREV_SP,
    Reg.SP_INDIRECT, Reg.BP_INDIRECT,
)  # fmt: skip
_OLD_REGS = tuple(Reg)[: Reg.AX]
SAMPLE = 1024


class Layout:
    """Where the fields of struct orc_entry lie."""

    def __init__(self, kind: Type) -> None:
        self.size = kind.size
        self._regs: Sequence[Reg] = _OLD_REGS
        if not 4 <= self.size <= 16:
            raise Corrupt("struct orc_entry has an unknown size", f"{self.size} bytes")
        self._fields = {name: _place(kind, name) for name in ("sp_reg", "bp_reg", "type")}
        self._signal = _place(kind, "signal") if kind.has("signal") else None
        self._end = _place(kind, "end") if kind.has("end") else None
        self._sp = kind.offset("sp_offset")
        self._bp = kind.offset("bp_offset")
        # 6.4 took `end` away and made it a type; 6.3 has both `end` and `signal`
        self._steps = _NEW_STEPS if self._end is None and self._signal else _OLD_STEPS

    def learn(self, entries: bytes) -> None:
        """Chooses the register numbers by what the first entries count from."""
        place = self._fields["sp_reg"]
        sample = memoryview(entries)[: self.size * SAMPLE]
        used = [
            int.from_bytes(sample[at : at + self.size], "little") >> place[0] & 15
            for at in range(0, len(sample), self.size)
        ]
        if used.count(_NEW_REGS.index(Reg.SP)) > used.count(Reg.SP):
            self._regs = _NEW_REGS

    def _reg(self, number: int) -> int:
        return self._regs[number] if number < len(self._regs) else UNKNOWN_REG

    def decode(self, raw: bytes) -> Entry:
        """One entry; a type that is not known ends the stack as UNDEFINED."""
        bits = int.from_bytes(raw, "little")

        def field(place: tuple[int, int]) -> int:
            return bits >> place[0] & (1 << place[1]) - 1

        number = field(self._fields["type"])
        step = self._steps[number] if number < len(self._steps) else Step.UNDEFINED
        sp_reg = self._reg(field(self._fields["sp_reg"]))
        if sp_reg == Reg.UNDEFINED and step is not Step.END:
            step = Step.END if self._end and field(self._end) else Step.UNDEFINED
        signal = bool(field(self._signal)) if self._signal else step is not Step.CALL
        return Entry(
            int.from_bytes(raw[self._sp : self._sp + 2], "little", signed=True),
            int.from_bytes(raw[self._bp : self._bp + 2], "little", signed=True),
            sp_reg,
            self._reg(field(self._fields["bp_reg"])),
            step,
            signal,
        )


def _place(kind: Type, name: str) -> tuple[int, int]:
    """(bit offset, width) of a bitfield, which compilers may also have given a whole byte."""
    place = kind.member(name)
    return place.bit_offset, place.bit_size or place.type.size * 8


@dataclass
class Table:
    """The rules for code in `ranges`: `ips` are relative to their own place at `ips_va`."""

    ranges: Sequence[tuple[int, int]]
    ips_va: int
    ips: array[int]
    entries: bytes

    def covers(self, ip: int) -> bool:
        return any(start <= ip < end for start, end in self.ranges)

    def index(self, ip: int) -> int:
        """The last rule at or below `ip`, -1 when all lie above."""
        low, high, base, ips = 0, len(self.ips), self.ips_va, self.ips
        while low < high:
            middle = (low + high) // 2
            if base + 4 * middle + ips[middle] <= ip:
                low = middle + 1
            else:
                high = middle
        return low - 1


class Orc:
    """All unwind rules of a kernel: vmlinux's and its modules'."""

    def __init__(self, kernel: Kernel) -> None:
        self.layout = Layout(kernel.btf.struct("orc_entry"))
        self._kernel = kernel
        self._tables: list[Table] = [self._vmlinux()]
        self._modules: Sequence[Table] | None = None
        self.error_returns = self._error_returns()
        """Where ERROR_RETURN holds, ascending."""
        self._known: dict[int, Entry | None] = dict.fromkeys(self.error_returns, ERROR_RETURN)

    def _error_returns(self) -> list[int]:
        """Behind the calls of error_entry() that are followed by `mov %rax,%rsp`."""
        address = self._kernel.symbols.table.address
        try:
            target = address("error_entry")
            start, end = address("__entry_text_start"), address("__entry_text_end")
            text = self._kernel.read(start, min(max(end - start, 0), MAX_ENTRY_TEXT))
        except (NotFound, MemoryFault):
            return []
        found, at = [], text.find(_MOV_RAX_RSP)
        while at >= 0:
            if called(text[max(at - CALL_SIZE, 0) : at], start + at) == target:
                found.append(start + at)
            at = text.find(_MOV_RAX_RSP, at + 1)
        return found

    def _vmlinux(self) -> Table:
        address = self._kernel.symbols.table.address
        start, stop = address("__start_orc_unwind_ip"), address("__stop_orc_unwind_ip")
        end = max(address("_etext"), self._optional("_einittext"))
        table = self._table(
            [(address("_stext"), end)], start, (stop - start) // 4, address("__start_orc_unwind")
        )
        self.layout.learn(table.entries)
        return table

    def _optional(self, name: str) -> int:
        try:
            return self._kernel.symbols.table.address(name)
        except NotFound:
            return 0

    def _table(
        self, ranges: Sequence[tuple[int, int]], ips_va: int, count: int, entries_va: int
    ) -> Table:
        if not 0 < count <= MAX_ENTRIES:
            raise Corrupt(f"{count} ORC entries are claimed", ips_va)
        ips = array("i")
        ips.frombytes(self._kernel.read(ips_va, 4 * count))
        entries = self._kernel.read(entries_va, self.layout.size * count)
        return Table(ranges, ips_va, ips, entries)

    def _read_modules(self) -> list[Table]:
        kernel, tables = self._kernel, []
        kind = kernel.btf.struct("module")
        try:
            for module in kernel.modules():
                count = kernel.u32(module.address + kind.offset("arch.num_orcs"))
                ips = kernel.u64(module.address + kind.offset("arch.orc_unwind_ip"))
                entries = kernel.u64(module.address + kind.offset("arch.orc_unwind"))
                if count:
                    tables.append(self._table(module.ranges, ips, count, entries))
        except IntrospectError:
            pass  # the modules that were read still unwind
        return tables

    @property
    def tables(self) -> Sequence[Table]:
        """vmlinux's rules, then those of each module that could be read."""
        if self._modules is None:
            self._modules = self._read_modules()
        return (*self._tables, *self._modules)

    def find(self, ip: int) -> Entry | None:
        """The rule at `ip`; None where there is none (BPF, trampolines, wild addresses)."""
        if ip not in self._known:
            self._known[ip] = self._find(ip)
        return self._known[ip]

    def _find(self, ip: int) -> Entry | None:
        for table in self._tables:
            if table.covers(ip):
                return self._decode(table, ip)
        if self._modules is None:
            self._modules = self._read_modules()
        for table in self._modules:
            if table.covers(ip):
                return self._decode(table, ip)
        return None

    def _decode(self, table: Table, ip: int) -> Entry | None:
        index, size = table.index(ip), self.layout.size
        if index < 0:
            return None
        return self.layout.decode(table.entries[index * size : (index + 1) * size])
