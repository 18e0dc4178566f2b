# SPDX-License-Identifier: GPL-2.0-or-later
"""Gets a vnode's own word on its registers before its CPUs are parked: INIT forgets them.

Two ways, both bounded: wait for the agent to complete its crash record, or
ask each CPU by NMI to save its frame in the debug mailbox.  The NMI is a
probe as well: a CPU with interrupts off for good answers it and stays silent,
one that its host let stand still answers and beats again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from adeos.bridge import Bridge
from adeos.errors import AdeosError, BridgeError
from adeos.machine import Machine
from watchdog.watch import record_complete

RECORD_WAIT_S = 0.020
RECORD_POLL_S = 0.005
NMI_WAIT_S = 0.020
POLL_S = 0.001
POLL_LATE_S = 5 * POLL_S
"""What one round of a probe counts for at most: the daemon's own absence proves nothing."""


class Patience(NamedTuple):
    """How long a probe waits, seconds: for an answer, and after it for beats."""

    answer: float
    beats: float


class Findings(NamedTuple):
    """Of a probe: the CPUs that saved their registers, and whether all silent ones beat again."""

    answered: tuple[int, ...]
    moving: bool


class Questions:
    """Save requests, posted to every CPU of a vnode and rung by NMI.

    A CPU answers in tens of microseconds, with interrupts off too; one that
    is dead, or whose kernel has no agent, does not.
    """

    def __init__(self, machine: Machine, bridge: Bridge, vnode: int, ncpus: int) -> None:
        self._bridge = bridge
        self._asked: dict[int, int] = {}
        for cpu in range(ncpus):
            try:
                number = bridge.ask_registers(cpu)
                machine.nmi(vnode, cpu)
            except AdeosError:
                continue
            self._asked[cpu] = number

    def answered(self) -> tuple[int, ...]:
        """The CPUs that have answered so far."""
        return tuple(cpu for cpu, number in self._asked.items() if self._done(cpu, number))

    def complete(self) -> bool:
        """Whether every CPU that could be asked has answered."""
        return len(self.answered()) == len(self._asked)

    def _done(self, cpu: int, number: int) -> bool:
        try:
            return self._bridge.debug(cpu).saved == number
        except BridgeError:
            return False


async def wait_for_record(bridge: Bridge, incarnation: int, bell: asyncio.Event) -> bool:
    """Wait for the crash record to be complete; whether it is.

    `bell`: set when the vnode rings, as it does then; what goes unheard costs RECORD_POLL_S.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + RECORD_WAIT_S
    while not record_complete(bridge, incarnation):
        if loop.time() >= end:
            return False
        bell.clear()
        timer = loop.call_later(RECORD_POLL_S, bell.set)
        await bell.wait()
        timer.cancel()
    return True


async def ask_by_nmi(machine: Machine, bridge: Bridge, vnode: int, ncpus: int) -> tuple[int, ...]:
    """Ask every CPU for its frame; the CPUs (within the vnode) that answered."""
    questions = Questions(machine, bridge, vnode, ncpus)
    await _poll(questions.complete, NMI_WAIT_S)
    return questions.answered()


async def probe(
    questions: Questions,
    silent: Sequence[int],
    moving: Callable[[], bool],
    patience: Patience,
    wanted: Callable[[], bool],
) -> Findings:
    """Whether the `silent` CPUs live; ends at once when they beat or nobody wants to know.

    `moving`: whether all of them have beaten since they were asked.
    """
    waited = settled = 0.0
    before = time.monotonic()
    while wanted() and not moving():
        answered = questions.answered()
        if settled >= patience.beats or (waited >= patience.answer and not settled):
            return Findings(answered, moving=False)
        await asyncio.sleep(POLL_S)
        now = time.monotonic()
        round_ = min(now - before, POLL_LATE_S)
        before, waited = now, waited + round_
        if set(silent) <= set(answered):
            settled += round_
    return Findings(questions.answered(), moving())


async def _poll(ready: Callable[[], bool], limit: float) -> bool:
    end = time.monotonic() + limit
    while not ready():
        if time.monotonic() >= end:
            return ready()
        await asyncio.sleep(POLL_S)
    return True
