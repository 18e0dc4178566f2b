# SPDX-License-Identifier: GPL-2.0-or-later
"""A vnode asks the root to control another: what is done, and for whom it is not."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest

from adeos import abi

Rig = Any

LEASE_MS = 60_000


class Holder:
    """The agent of vnode 1 as far as it asks."""

    def __init__(self, rig: Rig, client: int = 1) -> None:
        self.rig = rig
        self.client = client
        region = rig.machine.query(1).region
        self.view = rig.machine.raw(region.base + abi.VN_OFF_BRIDGE, abi.VN_BRIDGE_SIZE)

    def put(self, key: str, value: Any) -> None:
        abi.ASK.put(self.view, abi.VN_BR_ASK, key, value)

    def get(self, key: str) -> int:
        return int(abi.ASK.get(self.view, abi.VN_BR_ASK, key))

    def ask(
        self, op: int, number: int = 0, *address: int, data: bytes = b"", vnode: int = 2
    ) -> int:
        """The errno of the answer."""
        seq = self.get("seq") + 1
        for key, value in (("vnode", vnode), ("number", number), ("client", self.client)):
            self.put(key, value)
        at = abi.VN_BR_ASK + abi.ASK.members["address"].offset
        for index, word in enumerate((*address, 0, 0, 0)[:3]):
            self.view[at + 8 * index : at + 8 * index + 8] = word.to_bytes(8, "little")
        at = abi.VN_BR_ASK + abi.ASK.members["op"].offset
        self.view[at : at + 4] = op.to_bytes(4, "little")
        self.view[abi.VN_BR_ASK_DATA : abi.VN_BR_ASK_DATA + len(data)] = data
        self.put("seq", seq)
        self.rig.machine.ring(1)
        self.rig.until(lambda: self.get("done") == seq, f"request {seq} is answered")
        return self.get("error")

    def control(self, lease_ms: int = LEASE_MS) -> int:
        return self.ask(abi.AskOp.CONTROL, lease_ms)


@pytest.fixture
def holder(rig: Rig) -> Holder:
    rig.client.call("grant", vnode=2, to=1, control=True)
    return Holder(rig)


def text_of(rig: Rig, vnode: int, size: int = 16) -> tuple[int, Any]:
    """(address, bytes) of some memory of a vnode."""
    base = rig.machine.query(vnode).region.base + 0x200000
    return base, rig.machine.raw(base, size)


def test_control_is_taken_used_and_given_back(rig: Rig, holder: Holder) -> None:
    assert holder.control() == 0
    assert holder.get("until_tsc") > rig.machine.tsc()
    base, memory = text_of(rig, 2)
    assert holder.ask(abi.AskOp.POKE, 4, base, data=b"abcd") == 0
    assert bytes(memory[:4]) == b"abcd"
    assert holder.ask(abi.AskOp.BREAK, 1, 0xFFFFFFFF81000000, base) == 0
    assert memory[0] == 0xCC
    assert holder.ask(abi.AskOp.BREAK, 0, 0, base) == 0
    assert bytes(memory[:4]) == b"abcd"
    assert holder.ask(abi.AskOp.NMI, 0) == 0
    assert holder.ask(abi.AskOp.BREAK, 1, 0xFFFFFFFF81000000, base) == 0
    assert holder.control(0) == 0
    assert memory[0] == ord("a")
    assert not rig.machine.query(2).holder


def test_a_renewal_takes_no_control(rig: Rig, holder: Holder) -> None:
    assert holder.control(LEASE_MS | abi.KMB_LEASE_RENEW) == errno.ETIME
    assert holder.control() == 0
    assert holder.control(LEASE_MS | abi.KMB_LEASE_RENEW) == 0
    rig.machine.release(2)  # as kmb.ko does when the lease is over
    assert holder.control(LEASE_MS | abi.KMB_LEASE_RENEW) == errno.ETIME
    assert not rig.machine.query(2).holder
    assert holder.control() == 0


def test_without_control_nothing_is_done(rig: Rig, holder: Holder) -> None:
    base, memory = text_of(rig, 2)
    before = bytes(memory)
    assert holder.ask(abi.AskOp.POKE, 4, base, data=b"abcd") == errno.EACCES
    assert holder.ask(abi.AskOp.BREAK, 1, 1 << 40, base) == errno.EACCES
    assert holder.ask(abi.AskOp.NMI, 0) == errno.EACCES
    assert bytes(memory) == before


def test_control_belongs_to_one_file(rig: Rig, holder: Holder) -> None:
    assert holder.control() == 0
    other = Holder(rig, client=2)
    assert other.control() == errno.EBUSY
    assert other.ask(abi.AskOp.NMI, 0) == errno.EACCES
    assert holder.control() == 0


def test_a_grant_to_look_gives_no_control(rig: Rig) -> None:
    rig.client.call("grant", vnode=2, to=1)
    holder = Holder(rig)
    seq = holder.get("seq") + 1
    holder.put("vnode", 2)
    holder.put("seq", seq)
    rig.machine.ring(1)
    rig.client.call("ping")
    assert holder.get("done") != seq
    assert not rig.machine.query(2).holder


def test_memory_that_is_another_s_is_refused(rig: Rig, holder: Holder) -> None:
    assert holder.control() == 0
    for vnode in (0, 1, 3, 77, 0xFFFFFFFF):
        assert holder.ask(abi.AskOp.CONTROL, LEASE_MS, vnode=vnode) == errno.EPERM
    base, memory = text_of(rig, 1)
    before = bytes(memory)
    assert holder.ask(abi.AskOp.POKE, 4, base, data=b"abcd") == errno.EPERM
    assert bytes(memory) == before


def test_it_ends_with_the_grant(rig: Rig, holder: Holder) -> None:
    assert holder.control() == 0
    base, memory = text_of(rig, 2)
    memory[:4] = b"abcd"
    assert holder.ask(abi.AskOp.BREAK, 1, 1 << 40, base) == 0
    rig.client.call("revoke", vnode=2, **{"from": 1})
    rig.until(lambda: memory[0] == ord("a"), "the breakpoint is gone")
    assert not rig.machine.query(2).holder


def test_it_ends_with_the_holder(rig: Rig, holder: Holder) -> None:
    assert holder.control() == 0
    base, memory = text_of(rig, 2)
    memory[:4] = b"abcd"
    assert holder.ask(abi.AskOp.BREAK, 1, 1 << 40, base) == 0
    rig.client.call("stop", vnode=1)
    rig.until(lambda: memory[0] == ord("a"), "the breakpoint is gone")


def test_a_look_only_grant_later_takes_control_away(rig: Rig, holder: Holder) -> None:
    assert holder.control() == 0
    rig.client.call("grant", vnode=2, to=1)
    rig.until(lambda: not rig.machine.query(2).holder, "control ends")


def test_garbage_is_answered_and_harms_nothing(rig: Rig, holder: Holder) -> None:
    """Whatever a hostile kernel writes there."""
    words = random.Random(7)
    assert holder.control() == 0
    for _ in range(200):
        number = words.choice([0, 1, 4096, 4097, 0xFFFFFFFF, words.getrandbits(32)])
        address = [words.getrandbits(64) for _ in range(3)]
        op = words.choice([0, 1, 2, 3, 4, 5, 0xFFFFFFFF])
        assert holder.ask(op, number, *address, vnode=words.choice([0, 1, 2, 31, 99])) in (
            0, errno.EPERM, errno.EINVAL, errno.EACCES, errno.EBUSY, errno.EIO,
        )  # fmt: skip
    assert rig.client.call("ping")["ok"]


def test_a_reload_that_grants_a_look_alone_takes_control_away(rig: Rig) -> None:
    text = rig.config.read_text()
    granted = text.replace("autostart", "grants = [{ vnode = 2, control = true }]\nautostart", 1)
    rig.config.write_text(granted)
    rig.client.call("reload")
    holder = Holder(rig)
    assert holder.control() == 0
    rig.config.write_text(granted.replace(", control = true", ""))
    rig.client.call("reload")
    rig.until(lambda: not rig.machine.query(2).holder, "control ends")
