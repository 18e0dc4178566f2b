# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the registers of a target's CPUs come from: a bridge or a dump.

Registers are those of the crash record, else the newest frame the agent wrote: a
sample of each hard-interrupt beat (so a `bt` of a running CPU is of a moment
ago), or the answer to a debug request, which every fence makes.
A bridge is written by the vnode, so a broken one costs registers, never the
session.
"""

from collections.abc import Callable, Mapping
from enum import Enum

from adeos.abi import VN_CRASH_DONE, VN_DBG_PARKED, Frame, Reason, State
from adeos.bridge import Bridge
from adeos.errors import BridgeError
from debugger.registers import Values, of_frame
from debugger.target import Change, Liveness

_CRASHED = "crashed"
_DEAD_STATES = {State.CRASHED: _CRASHED, State.HALTED: "halted", State.REBOOT: "left to reboot"}


class Hold(Enum):
    """What the root did with a vnode; a kernel that hangs does not say itself that it is dead."""

    STARTED = "started"
    PARKED = "fenced"
    """Its CPUs wait for a start; its memory is as they left it."""
    MOVED = "moved"
    """It has other memory now: what was attached to is no longer its own."""
    TAKEN = "taken"
    """To this vnode it is not granted any more, or it has no memory."""
    AGAIN = "again"
    """It was granted to this vnode, and started again since: what was mapped is gone."""


_LOST = {
    Hold.MOVED: "started in other memory: detach and attach again",
    Hold.TAKEN: "the root took the grant back, or the vnode down: none of its memory is seen now",
    Hold.AGAIN: "started again: detach and attach again",
}


class BridgeCpus:
    """The CPUs of a vnode with an agent; `hold` is asked at each stop event."""

    volatile = True

    def __init__(self, bridge: Bridge, hold: Callable[[], Hold]) -> None:
        side = bridge.root_side()
        self.count = side.ncpus
        self._bridge = bridge
        self._incarnation = side.incarnation
        self._hold = hold
        self.liveness = Liveness.RUNNING
        self._why = ""
        self.refresh()

    def refresh(self) -> None:
        self._why = self._death()
        self.liveness = Liveness.DEAD if self._why else Liveness.RUNNING

    def _death(self) -> str:
        """Why the CPUs will not run again, "" when they do."""
        try:
            side = self._bridge.vnode_side()
            crash = self._bridge.crash()
        except BridgeError:
            side = crash = None
        if crash is not None and crash.incarnation == self._incarnation:
            return _CRASHED
        if side is not None and side.incarnation == self._incarnation:
            for state, word in _DEAD_STATES.items():
                if side.state == state:
                    return word
        return "" if self._hold() is Hold.STARTED else "fenced"

    @property
    def focus(self) -> int:
        try:
            crash = self._bridge.crash()
        except BridgeError:
            crash = None
        return crash.cpu if crash is not None and crash.cpu < self.count else 0

    def registers(self, cpu: int) -> Values:
        if self._why == _CRASHED:
            frame = self._frame(self._bridge.crash_frame, cpu)
            if frame is not None:  # later ones are of the way from the crash to the fence
                return of_frame(frame)
        areas = (self._bridge.debug_frame, self._bridge.sample_frame)
        frames = [frame for area in areas if (frame := self._frame(area, cpu))]
        newest = max(frames, key=lambda frame: frame.tsc, default=None)
        return {} if newest is None else of_frame(newest)

    @staticmethod
    def _frame(area: Callable[[int], Frame | None], cpu: int) -> Frame | None:
        try:
            return area(cpu)
        except BridgeError:  # being written for ever, as no agent does
            return None

    def state(self, cpu: int) -> str:
        known = bool(self.registers(cpu))
        if self.liveness is Liveness.RUNNING and self._parked(cpu):
            return "stopped by a debugger"
        if self.liveness is Liveness.RUNNING:
            return "running [sampled]" if known else "running [no sample yet]"
        return f"{self._why} [saved]" if known else f"{self._why} [no registers]"

    def _parked(self, cpu: int) -> bool:
        try:
            return self._bridge.debug(cpu).state == VN_DBG_PARKED
        except BridgeError:
            return False

    def change(self) -> Change | None:
        hold = self._hold()
        if hold in _LOST:
            return Change(_LOST[hold], gone=True)
        try:
            incarnation = self._bridge.root_side().incarnation
        except BridgeError:
            return Change("the bridge is gone: the vnode was taken down", gone=True)
        if incarnation != self._incarnation:
            text = f"restarted (incarnation {incarnation}): detach and attach again"
            return Change(text, gone=True)
        if self.liveness is Liveness.RUNNING:
            why = self._death()
            if why == _CRASHED:
                return self._crash()
            if why:
                return Change(why, gone=False)
        return None

    def _crash(self) -> Change | None:
        """The crash once its record is complete, or will never be."""
        try:
            crash = self._bridge.crash()
        except BridgeError:
            crash = None
        if crash is None or crash.state != VN_CRASH_DONE:
            unfinished = Change(_CRASHED, gone=False)
            return None if self._hold() is Hold.STARTED else unfinished
        reason = Reason(crash.reason).name.lower()
        return Change(f"{reason}: {crash.message}", gone=False)


class DumpCpus:
    """The CPUs of a dump: `saved` holds the registers by CPU number."""

    liveness = Liveness.DEAD
    volatile = False
    focus = 0

    def __init__(self, saved: Mapping[int, Values], count: int = 0) -> None:
        self.count = max(count, 1, *(cpu + 1 for cpu in saved)) if saved else max(count, 1)
        self._saved = saved

    def registers(self, cpu: int) -> Values:
        return self._saved.get(cpu, {})

    def state(self, cpu: int) -> str:
        return "dead [dump]" if cpu in self._saved else "dead [no registers]"

    def refresh(self) -> None:
        """A dump stands still."""

    def change(self) -> Change | None:
        return None


class RootCpus(DumpCpus):
    """The root's CPUs, from its successor: `saved` as it panicked; of a living root none are known.

    Nothing here stops or samples it.
    """

    def __init__(self, saved: Mapping[int, Values], count: int, *, alive: bool) -> None:
        super().__init__(saved, count)
        self.volatile = alive
        self._alive = alive

    def state(self, cpu: int) -> str:
        if self._alive:
            return "not the successor's to sample"
        return "panicked [saved]" if cpu in self._saved else "dead [no registers]"
