# SPDX-License-Identifier: GPL-2.0-or-later
"""The successor's watch over the root: what it sees every tenth of a second, and concludes.  Pure.

A root that panics or halts says so.  One that hangs stops beating; its silence is counted by looks
of our own that came in time, so a successor that had no CPU itself blames nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from adeos.abi import Last, LastState

PERIOD_S = 0.1
LIMIT_S = 1.0
"""The root's kernel beats ten times a second."""


class Verdict(Enum):
    """What has become of the root; the values are the reasons of incidents."""

    PANIC = "panic"
    HANG = "hang"
    HALT = "halt"
    BACK = "back"
    """It had been silent, and beats again."""


@dataclass
class Lookout:
    """`limit_s`: the silence, seconds, after which the root counts as hung."""

    limit_s: float = LIMIT_S
    silent_s: float = 0.0
    """The silence so far, as far as it was witnessed."""
    late: int = 0
    """Looks of our own that came late."""
    _beat: int | None = None
    _at: float = 0.0
    _ended: bool = False
    _hung: bool = False

    def look(self, last: Last, now: float) -> Verdict | None:
        """A look at `now` (seconds); a verdict when there is a new one."""
        if self._ended:
            return None
        if last.state is not LastState.ALIVE:
            self._ended = True
            return Verdict.PANIC if last.state is LastState.PANIC else Verdict.HALT
        passed, self._at = now - self._at, now
        if last.beat != self._beat:
            first, self._beat, self.silent_s = self._beat is None, last.beat, 0.0
            back, self._hung = self._hung and not first, False
            return Verdict.BACK if back else None
        if passed > 3 * PERIOD_S:
            self.late += 1
        self.silent_s += min(passed, PERIOD_S)
        if self.silent_s >= self.limit_s and not self._hung:
            self._hung = True
            return Verdict.HANG
        return None
