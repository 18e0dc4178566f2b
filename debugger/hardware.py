# SPDX-License-Identifier: GPL-2.0-or-later
"""The four debug registers of a kernel's CPUs: hardware breakpoints and watchpoints.

The kernel itself uses them too (perf, ptrace); a slot that any CPU of it uses is not
taken.  Source: Intel SDM volume 3, 18.2; arch/x86/kernel/hw_breakpoint.c (6.1).
"""

from enum import IntEnum

from debugger.errors import TargetError
from introspect import percpu
from introspect.errors import IntrospectError
from introspect.kernel import Kernel

_SLOTS = 4
_LENGTHS = {1: 0, 2: 1, 4: 3, 8: 2}


class Access(IntEnum):
    """What a slot waits for; the values are the R/W field of DR7."""

    EXECUTE = 0
    WRITE = 1
    READ_WRITE = 3


def _bits(slot: int) -> int:
    return 3 << 2 * slot | 15 << 16 + 4 * slot


def encode(slot: int, access: Access, size: int) -> int:
    """The bits of DR7 that arm a slot for all tasks."""
    return 2 << 2 * slot | (_LENGTHS[size] << 2 | access) << 16 + 4 * slot


class Slots:
    """What the debugger wants in them; `generation` is raised by each change."""

    def __init__(self, kernel: Kernel) -> None:
        self.generation = 0
        self.addresses = [0] * _SLOTS
        self.dr7 = 0
        self._used: dict[int, tuple[Access, int, int]] = {}
        self._ever: set[int] = set()  # their bits in a CPU's variable are ours until it has run
        self._kernel = kernel

    def add(self, access: Access, address: int, size: int) -> None:
        """Arm a slot; TargetError when none is free."""
        if (access, address, size) in self._used.values():
            return
        if size not in _LENGTHS or address % size:
            raise TargetError("a watchpoint has 1, 2, 4 or 8 bytes and is aligned to them")
        taken = 0
        for cpu in self._online():
            taken |= self._of_kernel(cpu)
        free = [n for n in range(_SLOTS) if n not in self._used and not taken & _bits(n)]
        if not free:
            raise TargetError("all four debug registers are in use")
        self._used[free[0]] = access, address, size
        self._ever.add(free[0])
        self._changed()

    def remove(self, access: Access, address: int, size: int) -> None:
        """Free a slot; nothing happens when there is none like that."""
        for slot, used in list(self._used.items()):
            if used == (access, address, size):
                del self._used[slot]
                self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self.addresses = [self._used[n][1] if n in self._used else 0 for n in range(_SLOTS)]
        self.dr7 = sum(encode(n, access, size) for n, (access, _, size) in self._used.items())

    def hit(self, dr6: int) -> tuple[Access, int] | None:
        """What the lowest trap bit of DR6 stands for."""
        for slot, (access, address, _) in sorted(self._used.items()):
            if dr6 & 1 << slot:
                return access, address
        return None

    def _online(self) -> list[int]:
        try:
            return self._kernel.cpus("online")
        except IntrospectError:
            return [0]

    def _of_kernel(self, cpu: int) -> int:
        """What the kernel itself has armed; ours is in the same variable."""
        try:
            word = self._kernel.u64(percpu.address(self._kernel, "cpu_dr7", cpu))
        except IntrospectError:
            return 0
        return word & ~sum(map(_bits, self._ever)) & 0xFFFFFFFF
