# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases in the journal, and the incidents made of them: whole whenever a kill comes between."""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.fake import FakeMachine, root_side
from crashdump import capture
from crashdump.incident import DumpState, Witness, decode_evidence
from crashdump.store import IncidentStore
from watchdog import filing
from watchdog.journal import Case, Held, Journal, bridge_copy
from watchdog.states import Fault

REGION, SLOT = Range(0x24000000, 64 << 20), Range(0x80000, 0x10000)
KHZ = 1_000_000


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    """Vnode 2 has panicked on its CPU 1."""
    machine = FakeMachine()
    machine.claim()
    machine.bind(2, [1, 2], REGION, SLOT)
    bridge = Bridge.open(machine, REGION, writable=True)
    bridge.init(root_side(2, 3))
    machine.start(2, cr3=SLOT.base + abi.VN_SLOT_PAGE_TABLES, entry=REGION.base, rsi=REGION.base)
    machine.vnodes[2].crash(cpu=1, message="as if")
    machine.park(2)
    machine.view(SLOT.base, SLOT.size, writable=True)[abi.VN_SLOT_RAM :] = b"L" * 0x8000
    yield machine


@pytest.fixture
def case(machine: FakeMachine) -> Case:
    low = capture.low_memory(machine.view, SLOT)
    return Case(
        vnode=2,
        name="web",
        fault=Fault("panic", 3, 1, fault_tsc=1000, seen_tsc=3000),
        opened=time.time(),
        stamps={"fault": 1000, "seen": 3000},
        witnesses=(Witness(1, "db", 1, 77),),
        policy="coredump-restart",
        ncpus=2,
        boot_id=capture.boot_id(),
        gathered="record",
        bridge=bridge_copy(Bridge.open(machine, REGION)),
        held=Held(REGION, SLOT, low),
    )


def check(store: IncidentStore, machine: FakeMachine) -> None:
    """One incident, whose evidence and dump are whole."""
    (one,) = store.list()
    assert (one.vnode, one.incarnation, one.reason, one.message) == (2, 3, "panic", "as if")
    assert one.stamps == {"fault": 0, "seen": 2000} and one.witnesses[0].before == 77
    evidence = decode_evidence((store.path(one.id) / "crash.json").read_bytes())
    assert len(evidence.cpus) == 2 and evidence.crashed_cpu == 1
    capture.write_dump(store, one.id, machine.view)
    dump = store.get(one.id).dump
    assert (dump.state, dump.reason) == (DumpState.DONE, "")
    assert b"L" * 0x8000 in (store.path(one.id) / "vmcore").read_bytes()


def test_a_record_that_was_cut_off_gives_the_registers_it_has(
    tmp_path: Path, case: Case, machine: FakeMachine
):
    """CPU 1 panicked and was parked before it completed the record; CPU 0 answered an NMI."""
    bridge = Bridge.open(machine, REGION, writable=True)
    abi.CRASH.put(bridge.view, abi.VN_BR_CRASH, "state", abi.VN_CRASH_WRITING)
    saved = bridge.crash_frame(1)
    assert saved is not None
    first = slice(abi.VN_BR_CRASH_REGS, abi.VN_BR_CRASH_REGS + abi.FRAME.size)
    bridge.view[abi.VN_BR_DEBUG_REGS : abi.VN_BR_DEBUG_REGS + abi.FRAME.size] = bridge.view[first]
    bridge.view[first] = bytes(abi.FRAME.size)
    cut = msgspec.structs.replace(
        case, gathered="nmi", answered=(0,), bridge=bridge_copy(Bridge.open(machine, REGION))
    )
    with IncidentStore(tmp_path) as store:
        one = filing.file(store, cut, KHZ, machine)
        evidence = decode_evidence((store.path(one.id) / "crash.json").read_bytes())
    assert [state is not None for state in evidence.cpus] == [True, True]
    assert evidence.cpus[1].regs == saved.regs
    assert evidence.message == "as if"


def test_a_case_is_read_as_it_was_put(tmp_path: Path, case: Case):
    journal = Journal(tmp_path / "journal")
    assert journal.put(msgspec.structs.replace(case, held=None)) and journal.put(case)
    assert Journal(tmp_path / "journal").left() == [case]
    journal.drop(case)
    journal.drop(case)
    assert journal.left() == []


def test_what_cannot_be_read_is_removed(tmp_path: Path, case: Case):
    journal = Journal(tmp_path)
    journal.put(case)
    (tmp_path / "9-1.000000.case").write_bytes(b"\xc1 no such thing")
    (tmp_path / ".2-1.case.part").write_bytes(b"cut off")
    assert journal.left() == [case]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_journal_without_room_says_so(tmp_path: Path, case: Case):
    journal = Journal(tmp_path / "journal")
    journal.directory.rmdir()
    assert not journal.put(case)


def test_filed_twice_it_is_one_incident(tmp_path: Path, case: Case, machine: FakeMachine):
    with IncidentStore(tmp_path) as store:
        first = filing.file(store, case, KHZ, machine)
        assert first.dump.state is DumpState.HELD
        machine.view(SLOT.base, SLOT.size, writable=True)[:] = bytes(SLOT.size)  # the successor's
        assert filing.file(store, case, KHZ, machine) == first
        check(store, machine)
        assert filing.file(store, case, KHZ, machine).dump.state is DumpState.DONE


def test_memory_of_another_boot_is_no_dump(tmp_path: Path, case: Case, machine: FakeMachine):
    with IncidentStore(tmp_path) as store:
        found = filing.file(store, msgspec.structs.replace(case, boot_id="another"), KHZ, machine)
        assert found.message == "as if" and found.dump.state is DumpState.NONE


def test_the_bridge_is_read_in_the_region_that_is_held(
    tmp_path: Path, case: Case, machine: FakeMachine
):
    assert case.held is not None
    held = case.held_by(case.held)
    assert held.bridge == b""
    with IncidentStore(tmp_path / "a") as store:
        filing.file(store, held, KHZ, machine)
        check(store, machine)
    gone = Held(Range(REGION.base + (1 << 40), REGION.size), SLOT, b"")
    for lost in (
        msgspec.structs.replace(held, boot_id="another"),
        msgspec.structs.replace(held, held=gone),
    ):
        with IncidentStore(tmp_path / f"b{lost.boot_id}") as store:
            found = filing.file(store, lost, KHZ, machine)
            assert (found.reason, found.message) == ("panic", "")


def test_killed_at_any_moment_it_is_filed_later(tmp_path: Path, case: Case, machine: FakeMachine):
    gc.collect()  # machines of other tests: fork() must find room for as much again
    rng = random.Random(5)
    for number in range(12):
        journal = Journal(tmp_path / f"journal{number}")
        journal.put(case)
        child = os.fork()
        if child == 0:
            with IncidentStore(tmp_path / str(number)) as store:
                filing.file(store, case, KHZ, machine)
            journal.drop(case)
            os._exit(0)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with IncidentStore(tmp_path / str(number)) as store:
            for left in journal.left():
                filing.file(store, left, KHZ, machine)
                journal.drop(left)
            check(store, machine)
