# SPDX-License-Identifier: GPL-2.0-or-later
"""What a debugger may do to a running kernel, in the words of the protocol.

Joins run control of CPUs (control.py) with the target's address space and with the rules
of where breakpoints may be (breakable.py).  All-stop: when one CPU stops, the others are
parked before it is reported.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from adeos.abi import Cause
from debugger.breakable import Breakable
from debugger.control import RunControl, Stop
from debugger.errors import ControlLost, TargetError
from debugger.hardware import Access
from debugger.registers import Values, of_frame

Locate = Callable[[int, int], tuple[int, int]]
"""(thread id, virtual address) -> (physical address, bytes up to the end of its page)."""

_ACCESS = {1: Access.EXECUTE, 2: Access.WRITE, 3: Access.READ_WRITE, 4: Access.READ_WRITE}
_WORDS = {2: "watch", 3: "rwatch", 4: "awatch"}
_TRAPS = 15
_MAX_WRITE = 1 << 20


class Halt(NamedTuple):
    """A CPU stopped by itself: its thread, and why as a stop reply says it."""

    tid: int
    why: str


class Pilot:
    """One debugger's hand on one vnode."""

    def __init__(
        self, control: RunControl, breakable: Breakable, locate: Locate, user_end: int
    ) -> None:
        self.control = control
        self._breakable = breakable
        self._locate = locate
        self._user_end = user_end
        self._kinds: dict[tuple[Access, int], int] = {}
        self._pending: deque[Stop] = deque()

    @property
    def held(self) -> bool:
        """Whether the CPUs are this debugger's."""
        return self.control.held

    @property
    def taken(self) -> bool:
        """Whether they were, even if control is lost by now."""
        return self.control.taken

    def fileno(self) -> int:
        """Readable when a CPU may have stopped; ControlLost."""
        return self.control.fileno()

    def halt(self, cpus: Sequence[int] | None = None) -> None:
        """Take control if need be and park CPUs, all unless named; TargetError if none does."""
        self.control.take()
        self.control.park(cpus)

    def parked(self, tid: int) -> bool:
        """Whether the CPU of a thread is parked."""
        return self.control.parked(tid - 1)

    def give_back(self) -> None:
        """Breakpoints go, the CPUs run, everything is as if nobody had been here."""
        self._pending.clear()
        self._kinds.clear()
        self.control.give_back()

    def resume(self, steps: Mapping[int, bool]) -> None:
        """Let threads run, those that map to True for one instruction.

        A hit that was not reported yet comes first: then nothing runs.
        """
        if not self._pending:
            self.control.run({tid - 1: step for tid, step in steps.items()})

    def halted(self, *, others: bool = True) -> Halt | None:
        """The first CPU that stopped by itself; with `others` all are parked then.  ControlLost."""
        if not self.control.held:
            raise ControlLost("control of the vnode was lost; it runs on, watched")
        stops = self.control.stops()
        if stops and others:
            self.control.park()
            # Breakpoints are run into again; hits of debug registers happen once.
            self._pending.append(stops[0])
            self._pending.extend(filter(self._counts, stops[1:]))
        elif stops:
            self._pending.extend(stops)
        if not self._pending:
            return None
        stop = self._pending.popleft()
        return Halt(stop.cpu + 1, self._why(stop))

    @staticmethod
    def _counts(stop: Stop) -> bool:
        return stop.cause is Cause.DEBUG and bool(stop.dr6 & _TRAPS)

    def _why(self, stop: Stop) -> str:
        if stop.cause is Cause.BREAK:
            return "swbreak:"
        hit = self.control.slots.hit(stop.dr6) if stop.cause is Cause.DEBUG else None
        if hit is None:
            return ""
        kind = self._kinds.get(hit, 0)
        return f"{_WORDS[kind]}:{hit[1]:x}" if kind in _WORDS else "hwbreak:"

    # Registers and memory

    def registers(self, cpu: int) -> Values | None:
        """Registers of a parked CPU; None while it runs."""
        frame = self.control.frame(cpu) if self.control.parked(cpu) else None
        return None if frame is None else of_frame(frame)

    def set_registers(self, tid: int, values: Values) -> None:
        """Change registers of a parked CPU; what is as it was, or not known, may be anything."""
        self.control.set_registers(tid - 1, values)

    def write(self, tid: int, address: int, data: bytes) -> None:
        """Write virtual memory; breakpoints in it stay, over the new bytes."""
        if len(data) > _MAX_WRITE:
            raise TargetError(f"{len(data)} bytes are too many for one write")
        ends = address + len(data)
        broken = [va for va in self.control.breaks if address <= va < ends]
        for va in broken:
            self.control.clear_break(va)
        try:
            while data:
                pa, left = self._locate(tid, address)
                self.control.poke(pa, data[:left])
                address, data = address + left, data[left:]
        finally:
            for va in broken:
                self.control.set_break(va, self._locate(tid, va)[0])

    def hide(self, address: int, data: bytes) -> bytes:
        """Memory without breakpoints."""
        return self.control.hide(address, data)

    # Breakpoints

    def insert(self, tid: int, kind: int, address: int, size: int) -> None:
        """Z packets: 0 software, 1 hardware, 2 write, 3 read, 4 access.  TargetError."""
        access = _ACCESS.get(kind)
        if access in (None, Access.EXECUTE):
            why = self._breakable.refusal(address)
            if why:
                raise TargetError(f"no breakpoint at {address:#x}: {why}")
        if access is None:
            self.control.set_break(address, self._locate(tid, address)[0])
            return
        if address < self._user_end:
            raise TargetError("debug registers are for the kernel's own addresses here")
        if not self.control.watches:
            raise TargetError("this kernel keeps hits of debug registers to itself (PREEMPT_RT?)")
        self.control.slots.add(access, address, 1 if access is Access.EXECUTE else size)
        self._kinds[access, address] = kind

    def remove(self, kind: int, address: int, size: int) -> None:
        """z packets; nothing happens when there is none."""
        access = _ACCESS.get(kind)
        if access is None:
            self.control.clear_break(address)
            return
        self.control.slots.remove(access, address, 1 if access is Access.EXECUTE else size)
        self._kinds.pop((access, address), None)
