# SPDX-License-Identifier: GPL-2.0-or-later
"""The in-kernel fire of a FakeMachine: kept as kmb.ko keeps it, fired when a test says so."""

from __future__ import annotations

import errno
import hashlib
import time

from adeos import abi
from adeos.abi import FireCause, FireState, KmbFire, Range
from adeos.errors import FenceError, ParkedError, PlacementError
from adeos.fake_part import FakePart
from adeos.machine import Arming, Binding


class FakeFires(FakePart):
    """Part of FakeMachine.

    `armed`: vnode -> what it is armed with; `records`: what became of it; `kept`: its bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.armed: dict[int, Arming] = {}
        self.records: dict[int, KmbFire] = {}
        self.kept: dict[int, bytes] = {}

    def arm(self, vnode: int, arming: Arming) -> None:
        self._owned()
        binding = self.query(vnode)
        if binding is None:
            raise PlacementError(f"vnode {vnode} is not bound")
        if not binding.started:
            raise ParkedError(f"vnode {vnode}: its CPUs are parked")
        if self.records.get(vnode, KmbFire(vnode)).state is FireState.FIRED:
            raise PlacementError(f"vnode {vnode}: a fire of it is not settled")
        moves = arming.region != binding.region
        if moves and arming.region.overlaps(binding.region):
            raise PlacementError(f"vnode {vnode} cannot be armed with these pieces")
        tables = Range(binding.slot.base + 0x1000, abi.VN_SLOT_RAM - 0x1000)
        for one in arming.pieces:
            inside = arming.region.contains(one.place)
            if not (inside or tables.contains(one.place)) or (
                one.data is None and not (inside and moves)
            ):
                raise PlacementError(f"vnode {vnode} cannot be armed with these pieces")
        if not self._intact(arming):
            raise PlacementError(f"vnode {vnode} has pieces that are not of their digest")
        self.drop_armings(arming.region, vnode)
        self.armed[vnode] = arming
        self.records[vnode] = KmbFire(
            vnode,
            FireState.ARMED,
            incarnation=arming.incarnation,
            successor=arming.successor,
            silence_ms=arming.silence_ms,
            cookie=arming.cookie,
            old_base=binding.region.base,
            old_size=binding.region.size,
            region_base=arming.region.base,
            region_size=arming.region.size,
        )

    def _intact(self, arming: Arming) -> bool:
        return all(
            hashlib.sha256(self.raw(*one.place) if one.data is None else one.data).digest()
            == one.sha256
            for one in arming.pieces
        )

    def disarm(self, vnode: int) -> None:
        self._owned()
        self.drop_arming(vnode)

    def fire(self, vnode: int) -> KmbFire | None:
        return self.records.get(vnode)

    def fire_kept(self, vnode: int) -> bytes:
        return self.kept.get(vnode, b"")

    def settle(self, vnode: int) -> None:
        self._owned()
        if vnode not in self.armed:
            self.records.pop(vnode, None)
            self.kept.pop(vnode, None)

    def drop_arming(self, vnode: int) -> None:
        """It is parked, moved or unbound."""
        if self.armed.pop(vnode, None) is not None:
            self.records.pop(vnode, None)

    def drop_armings(self, memory: Range, owner: int = 0) -> None:
        """That memory is used: who was to be started there is armed no more."""
        for vnode, arming in list(self.armed.items()):
            if vnode != owner and arming.region.overlaps(memory):
                self.drop_arming(vnode)

    def fire_now(self, vnode: int, cause: FireCause = FireCause.RECORD, cpu: int = 0) -> FireState:
        """What kmb.ko does when nobody owns the machine and an armed vnode is dead."""
        arming = self.armed.pop(vnode)
        binding, now = self.query(vnode), self.tsc()
        assert binding is not None
        record = self.records[vnode]._replace(
            cause=cause, cpu=cpu, wall_ns=time.time_ns(), fault_tsc=now, seen_tsc=now
        )
        if not self._intact(arming):
            refused = record._replace(state=FireState.REFUSED, error=errno.EBADMSG)
            self.records[vnode] = refused
            return refused.state
        try:
            tsc = self.park_now(vnode)
        except FenceError:
            failed = record._replace(state=FireState.FAILED, error=errno.ETIMEDOUT)
            self.records[vnode] = failed
            return failed.state
        bridge = self.raw(binding.region.base + abi.VN_OFF_BRIDGE, abi.KMB_FIRE_BRIDGE)
        low = self.raw(*binding.slot)[abi.VN_SLOT_RAM :]
        self.kept[vnode] = bytes(bridge) + bytes(low)
        for one in arming.pieces:
            if one.data is not None:
                self.raw(*one.place)[:] = one.data
        started = self.start_in(vnode, arming.region)
        self.records[vnode] = record._replace(
            state=FireState.FIRED,
            fenced_tsc=tsc,
            captured_tsc=tsc,
            loaded_tsc=tsc,
            started_tsc=started,
            size=len(self.kept[vnode]),
        )
        return FireState.FIRED

    def query(self, vnode: int) -> Binding | None:
        """FakeMachine.query; so are these."""
        raise NotImplementedError

    def park_now(self, vnode: int, timeout_ms: int = 100) -> int:
        raise NotImplementedError

    def start_in(self, vnode: int, region: Range) -> int:
        raise NotImplementedError
