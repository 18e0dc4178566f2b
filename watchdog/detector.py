# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges the beats of one incarnation of one vnode.  Pure: counts and times in, a verdict out.

Each CPU beats in three layers (irq, sched, user).  A layer of a CPU is armed
by its first beat; from then on silence beyond half its limit makes it
suspect, beyond its limit failed.  Only changes of the counts are believed; a
vnode's stamp of a beat counts as far as it lies between two looks of ours, so
a liar wins one look.  A count that runs backwards proves nothing.

A look is due only when silence could have reached a limit (`due`): what beats
costs a look each half limit, not one a tick.

The watcher doubts itself: when its own tick came late, the time it was absent
is not counted as silence (a stalled host stalls the vnodes too), and for a
while all limits are wider (`OwnPace.doubt`).  Nor is the time in which a CPU
stood still altogether counted against its upper layers.

Limits are fixed, or follow the beats (accrual.py) below the fixed ones.
Times are TSC cycles.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from watchdog.accrual import SAMPLES, Gaps, sigmas

LAYERS = ("irq", "sched", "user")
STRIDE = 4
"""Entries a CPU in the counts: struct vn_beat has room for four layers."""

REASONS = ("irqhang", "softlockup", "hang")
"""What a dead layer means when the layers below it beat."""


class Level(enum.IntEnum):
    """Verdict on a vnode, the worst of its CPUs and layers."""

    OK = 0
    SUSPECT = 1
    FAILED = 2


class Verdict(NamedTuple):
    """`cpu` and `layer` (index) of the worst entry; `quiet_since` its last beat as seen here."""

    level: Level
    cpu: int = -1
    layer: int = -1
    quiet_since: int = 0

    @property
    def reason(self) -> str:
        """irqhang, softlockup or hang; empty when all is well."""
        return REASONS[self.layer] if self.level else ""


OK = Verdict(Level.OK)

_NEVER = -1
_FAR = 1 << 63


class Accrual(NamedTuple):
    """Limits that follow the beats: suspect at half of `phi`, failed at `phi`; `pause`: cycles."""

    phi: float
    pause: int


class Detector:
    """The beats of one incarnation.

    `limits`: silence allowed a layer, TSC cycles.  With `accrual` they are the most allowed.
    `lead`: so long before its limit the irq layer is called failed, for a probe to prove it.
    """

    def __init__(
        self,
        ncpus: int,
        limits: Sequence[int],
        accrual: Accrual | None = None,
        *,
        lead: int = 0,
    ) -> None:
        self.patience = 1.0
        """Factor on all limits: more than 1 while the vnode boots and while the watcher doubts."""
        self.due = 0
        """No verdict can change by silence before this TSC."""
        self.backwards = 0
        """Counts that ran backwards so far: someone scribbles."""
        size = STRIDE * ncpus
        self._last = [0] * size
        self._seen = [_NEVER] * size
        self._entries = [c * STRIDE + layer for c in range(ncpus) for layer in range(len(LAYERS))]
        self._limit = [limits[e % STRIDE] if e % STRIDE < len(LAYERS) else 0 for e in range(size)]
        self._half = [limit // 2 for limit in self._limit]
        self._lead = [lead if e % STRIDE == 0 else 0 for e in range(size)]
        self._most = tuple(self._limit)
        self._looked = _FAR
        self._accrual = accrual
        if accrual is not None:
            self._gaps = [Gaps(accrual.pause) for _ in range(size)]
            self._sigmas = (sigmas(accrual.phi / 2), sigmas(accrual.phi))
            self._learnt = 0
        self._stood: dict[int, int] = {}
        """CPUs whose irq layer was late at the last reading, and its last beat."""

    def arm(self, counts: Sequence[int], now: int) -> None:
        """Expect every layer that has ever beaten to beat again from `now` on (adoption)."""
        self._looked, self.due = now, 0
        for entry in self._entries:
            if counts[entry]:
                self._last[entry], self._seen[entry] = counts[entry], now

    def armed(self, layer: int) -> bool:
        """Whether any CPU has beaten in this layer."""
        return any(seen != _NEVER for seen in self._seen[layer::STRIDE])

    def forgive(self, cycles: int) -> None:
        """Take `cycles` of the watcher's own absence out of every silence."""
        self._seen = [s if s == _NEVER else s + cycles for s in self._seen]
        self._stood = {cpu: since + cycles for cpu, since in self._stood.items()}

    def observe(
        self, counts: Sequence[int], now: int, stamps: Sequence[int] | None = None
    ) -> Verdict:
        """Judge one reading of the counts (entry STRIDE * cpu + layer).

        `stamps`: when the vnode says that each came last.  Sets `due`.
        """
        late: list[int] = []
        last, seen, half = self._last, self._seen, self._half
        patience, looked, due = self.patience, self._looked, _FAR
        self._looked = now
        for entry in self._entries:
            count = counts[entry]
            if count > last[entry]:
                beat = now
                if stamps is not None and looked < stamps[entry] < now:
                    beat = stamps[entry]
                if self._accrual is not None and seen[entry] != _NEVER:
                    self._learn(entry, (beat - seen[entry]) / (count - last[entry]))
                last[entry] = count
                seen[entry] = beat
            elif count < last[entry]:
                last[entry] = count
                self.backwards += 1
            if seen[entry] == _NEVER:
                continue
            until = seen[entry] + int(half[entry] * patience)
            if now > until:
                late.append(entry)
            elif until < due:
                due = until
        self.due = now if late or self._accrual is not None else due
        if late or self._stood:
            self._excuse(late, now)
        return self._worst(late, now) if late else OK

    def _learn(self, entry: int, gap: float) -> None:
        """Limits are drawn anew some times a memory of the gaps, not at each beat."""
        gaps = self._gaps[entry]
        gaps.learn(max(gap, 0.0))
        self._learnt += 1
        if self._learnt * 8 >= SAMPLES * len(self._entries):
            self._learnt = 0
            for each in self._entries:
                most = self._most[each]
                suspect, failed = self._sigmas
                self._half[each] = self._gaps[each].limit(suspect, most // 2)
                self._limit[each] = self._gaps[each].limit(failed, most)

    def silent(self) -> list[int]:
        """CPUs whose irq layer was late at the last reading."""
        return list(self._stood)

    def _excuse(self, late: list[int], now: int) -> None:
        """Take the time that a CPU stood still out of the silence of its upper layers."""
        before, self._stood = self._stood, {}
        for entry in late:
            if entry % STRIDE == 0:
                self._stood[entry // STRIDE] = self._seen[entry]
        for cpu, since in before.items():
            if cpu in self._stood:
                continue
            first = cpu * STRIDE
            for entry in range(first + 1, first + len(LAYERS)):
                if self._seen[entry] != _NEVER:
                    self._seen[entry] = min(self._seen[entry] + now - since, now)
            late[:] = [entry for entry in late if not first <= entry < first + STRIDE]

    def _worst(self, late: list[int], now: int) -> Verdict:
        """The lowest late layer explains those above it, on its CPU first."""
        failed = [
            e for e in late if now - self._seen[e] > self._limit[e] * self.patience - self._lead[e]
        ]
        if not failed:
            entry = min(late, key=lambda e: (e % STRIDE, e))
            return self._verdict(Level.SUSPECT, entry)
        entry = min(failed, key=lambda e: (e % STRIDE, e))
        below = [e for e in late if e // STRIDE == entry // STRIDE and e < entry]
        return self._verdict(Level.FAILED, min(below, default=entry))

    def _verdict(self, level: Level, entry: int) -> Verdict:
        return Verdict(level, entry // STRIDE, entry % STRIDE, self._seen[entry])


class OwnPace:
    """The watcher's own ticks: how late this one is, how many were, how far to trust oneself.

    After A. Dadgar, J. Phillips, J. Currey, "Lifeguard: Local Health Awareness for More Accurate
    Failure Detection" (2017), but by how late it was: who was kept from its CPU for 12 ms must not
    take twice as long to see a hang.  `period`: lateness allowed; `recovery`: timely time that
    takes one step of doubt back.  TSC cycles.
    """

    MOST = 4.0
    """The most that limits are widened."""
    STEP = 10
    """Periods of absence that widen limits by as much as they are."""

    def __init__(self, period: int, recovery: int = 0) -> None:
        self.period = period
        self.recovery = recovery or 100 * period
        self.ticks = 0
        self.late = 0
        self.doubt = 1.0
        """Factor on every limit."""
        self._planned: int | None = None
        self._better = 0

    def plan(self, when: int) -> None:
        """The next tick is to come then."""
        self._planned = when

    def tick(self, now: int) -> int:
        """Cycles of absence to forgive: 0 unless the tick came more than a period late."""
        gap = 0 if self._planned is None else now - self._planned
        self._planned = None
        self.ticks += 1
        if gap > self.period:
            self.late += 1
            self.doubt = min(self.doubt + gap / (self.STEP * self.period), self.MOST)
            self._better = now + self.recovery
            return gap
        if self.doubt > 1 and now >= self._better:
            self.doubt = max(self.doubt - 1, 1.0)
            self._better = now + self.recovery
        return 0


class BootWatch:
    """A vnode between its start and its first user beat.

    Fails when `timeout` cycles passed; moving jiffies (the kernel lives, user
    space is slow) allow the same again, once.
    """

    def __init__(self, started: int, timeout: int) -> None:
        self.started = started
        self.timeout = timeout
        self.jiffies: int | None = None
        self.jiffies_seen = 0
        self._read = 0

    def vital(self, jiffies: int, now: int) -> None:
        """A reading of the kernel's jiffies."""
        if self.jiffies is not None and jiffies != self.jiffies:
            self.jiffies_seen = now
        self.jiffies = jiffies
        self._read = now

    @property
    def still(self) -> int:
        """Cycles that jiffies have stood: up to their last reading, for nobody knows more."""
        return self._read - self.jiffies_seen

    def failed(self, now: int) -> bool:
        """Whether the boot has taken too long."""
        spent = now - self.started
        if spent <= self.timeout:
            return False
        moving = self.jiffies_seen and now - self.jiffies_seen < self.timeout // 4
        return spent > 2 * self.timeout if moving else True
