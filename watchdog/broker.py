# SPDX-License-Identifier: GPL-2.0-or-later
"""Does for a vnode what it asks to do to another that it was granted with control.

Each holder has one request at a time in its bridge, and control of a vnode through one open file of
/dev/kmb: so kmb.ko keeps lease and breakpoints, and all ends when the grant, the holder or this
daemon does.  Requests are carried out in threads: parking may keep kmb.ko busy for a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from adeos import abi
from adeos.bridge import Bridge
from adeos.errors import AdeosError, BridgeError, HeldError, OwnerError, ParkedError, PlacementError
from adeos.machine import KernelFacts, Machine
from watchdog import log, portal
from watchdog.states import LIVE
from watchdog.unit import Unit

Spawn = Callable[[Coroutine[Any, Any, None]], object]

_ERRNO = {
    HeldError: errno.EBUSY,
    OwnerError: errno.EACCES,
    ParkedError: errno.EHOSTDOWN,
    PlacementError: errno.EPERM,
}


class _Hold(NamedTuple):
    """Control of one vnode by one open file of a holder."""

    client: int
    machine: Machine


class _Answer(NamedTuple):
    error: int = 0
    holder: int = 0
    until_tsc: int = 0


class Broker:
    """The requests of all holders.

    `open_machine` opens /dev/kmb writable; `spawn` runs a coroutine beside the watch.
    """

    def __init__(self, machine: Machine, open_machine: Callable[[], Machine], spawn: Spawn) -> None:
        self._machine = machine
        self._open = open_machine
        self._spawn = spawn
        self._holds: dict[tuple[int, int], _Hold] = {}
        self._busy: set[int] = set()
        self._lock = threading.Lock()

    def look(self, unit: Unit) -> None:
        """Take a holder's request up, if there is one.  Never blocks."""
        if not unit.controls or unit.bridge is None or unit.id in self._busy:
            return
        if (seq := unit.bridge.asked()) and unit.vnode.state in LIVE:
            self._busy.add(unit.id)
            self._spawn(self._serve(unit, unit.bridge, seq))

    def drop(self, holder: Unit, vnodes: set[int] | None = None) -> None:
        """End what a holder controls: all, or those of `vnodes`."""
        found = [
            key
            for key in tuple(self._holds)
            if key[0] == holder.id and (vnodes is None or key[1] in vnodes)
        ]
        if found:
            self._spawn(asyncio.to_thread(self._end, found))

    def holder_of(self, vnode: int) -> int:
        """The vnode whose debugger controls this one; 0 when none does."""
        return next((holder for holder, held in tuple(self._holds) if held == vnode), 0)

    def close(self) -> None:
        """End all control."""
        self._end(list(self._holds))

    async def _serve(self, unit: Unit, bridge: Bridge, seq: int) -> None:
        try:
            request, data = bridge.ask()
            answer = await asyncio.to_thread(self._do, unit, request, data)
        except BridgeError as error:
            log.write("warning", "ask", vnode=unit.id, what=error)
            answer = _Answer(errno.EINVAL)
        finally:
            self._busy.discard(unit.id)
        if unit.bridge is bridge:
            bridge.answer(seq, *answer)
            with contextlib.suppress(AdeosError):
                portal.ring(self._machine, unit)

    def _do(self, unit: Unit, request: abi.Ask, data: bytes) -> _Answer:
        if request.op is abi.AskOp.NONE:
            return _Answer(errno.EINVAL)
        if request.vnode not in unit.controls:
            return _Answer(errno.EPERM)
        key = (unit.id, request.vnode)
        try:
            with self._lock:
                if request.op is abi.AskOp.CONTROL:
                    return self._control(key, request)
                hold = self._holds.get(key)
                if hold is None or hold.client != request.client:
                    return _Answer(errno.EACCES)
                _carry_out(hold.machine, request, data)
        except AdeosError as error:
            return _Answer(_ERRNO.get(type(error), errno.EIO), self._holder(request.vnode))
        return _Answer()

    def _control(self, key: tuple[int, int], request: abi.Ask) -> _Answer:
        hold = self._holds.get(key)
        if hold is not None and hold.client != request.client:
            return _Answer(errno.EBUSY, self._holder(request.vnode))
        if not request.number:
            self._close(key)
            return _Answer()
        if request.number & abi.KMB_LEASE_RENEW:
            return self._renew(key, hold, request.number & ~abi.KMB_LEASE_RENEW)
        machine = hold.machine if hold is not None else self._open()
        try:
            facts = KernelFacts(*request.address)
            until = machine.control(request.vnode, request.number, facts)
        except AdeosError:
            if hold is None:
                machine.close()
            else:
                self._close(key)
            raise
        self._holds[key] = _Hold(request.client, machine)
        return _Answer(0, self._holder(request.vnode), until)

    def _renew(self, key: tuple[int, int], hold: _Hold | None, lease_ms: int) -> _Answer:
        if hold is None:
            return _Answer(errno.ETIME)
        try:
            until = hold.machine.renew(key[1], lease_ms)
        except HeldError:
            self._close(key)
            return _Answer(errno.ETIME)
        except AdeosError:
            self._close(key)
            raise
        return _Answer(0, self._holder(key[1]), until)

    def _holder(self, vnode: int) -> int:
        binding = self._machine.query(vnode)
        return binding.holder if binding is not None else 0

    def _end(self, keys: list[tuple[int, int]]) -> None:
        with self._lock:
            for key in keys:
                self._close(key)

    def _close(self, key: tuple[int, int]) -> None:
        hold = self._holds.pop(key, None)
        if hold is not None:
            with contextlib.suppress(AdeosError):
                hold.machine.release(key[1])
            hold.machine.close()


def _carry_out(machine: Machine, request: abi.Ask, data: bytes) -> None:
    vnode, (first, second, _) = request.vnode, request.address
    match request.op:
        case abi.AskOp.POKE:
            machine.poke(vnode, first, data)
        case abi.AskOp.NMI:
            machine.nmi(vnode, request.number)
        case abi.AskOp.BREAK if request.number:
            machine.set_break(vnode, first, second)
        case abi.AskOp.BREAK:
            machine.clear_break(vnode, second)
