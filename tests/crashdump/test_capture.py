# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold, copy, write and resume on a machine in memory with real bridges and real files."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from elftools.elf.elffile import ELFFile

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.fake import root_side
from crashdump import capture, sparse
from crashdump import incident as records
from crashdump.capture import Action, Pending
from crashdump.incident import DumpState, Evidence, Incident
from crashdump.notes import CpuState
from crashdump.store import IncidentStore
from tests.crashdump.conftest import SyntheticKernel

REGION = Range(0x20000000, 64 << 20)
SLOT = Range(0x90000, 0x10000)


class Board:
    """Memory of one region and one slot, and who runs where: what capture asks a machine for."""

    def __init__(self) -> None:
        self.region = bytearray(REGION.size)
        self.slot = bytearray(b"L" * SLOT.size)
        self.kernel = SyntheticKernel(base=REGION.base + (16 << 20))
        start = self.kernel.base - REGION.base
        self.region[start : start + self.kernel.size] = self.kernel.memory
        self.running: dict[int, Range] = {}
        self.boot(7)

    def boot(self, incarnation: int) -> None:
        at = abi.VN_OFF_BRIDGE
        bridge = Bridge(memoryview(self.region)[at : at + abi.VN_BRIDGE_SIZE])
        bridge.init(root_side(2, incarnation))

    def view(self, base: int, size: int, *, writable: bool = False) -> memoryview:
        for given, data in ((REGION, self.region), (SLOT, self.slot)):
            if given.contains(Range(base, size)):
                return memoryview(data)[base - given.base : base - given.base + size]
        raise AssertionError(f"nobody gave {base:#x}")

    def query(self, vnode: int) -> "Board.Bound | None":
        return Board.Bound(self.running[vnode]) if vnode in self.running else None

    class Bound:
        started = 1

        def __init__(self, region: Range) -> None:
            self.region = region


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def crashed(incident_store: IncidentStore, two_cpus: list[CpuState]) -> Iterator[Incident]:
    made = incident_store.create(vnode=2, name="web", incarnation=7, reason="panic", crash=True)
    evidence = Evidence(made.id, "panic", "sysrq\x1b", 1, tuple(two_cpus))
    capture.record(incident_store, made.id, evidence, "log line\n")
    yield made


def start(how: str, store: IncidentStore, board: Board, number: int = 1) -> Incident:
    note = board.kernel.note_pa
    if how == "copy":
        return capture.copy(store, number, board.view, REGION, SLOT, vmcoreinfo_pa=note)
    low = capture.low_memory(board.view, SLOT)
    return capture.hold(store, number, low, REGION, SLOT, vmcoreinfo_pa=note)


def check_vmcore(store: IncidentStore, board: Board) -> None:
    dump = store.get(1).dump
    assert (dump.state, dump.reason, dump.remark) == (DumpState.DONE, "", "")
    out = store.path(1) / dump.path
    with out.open("rb") as file:
        core = ELFFile(file)
        notes = next(core.iter_segments("PT_NOTE"))
        names = [note["n_name"] for note in notes.iter_notes()]
        loads = {s["p_vaddr"]: s.data() for s in core.iter_segments("PT_LOAD")}
    assert names == ["VMCOREINFO", "CORE", "CORE", "QEMU", "QEMU"]
    offset = board.kernel.page_offset
    assert loads[offset + REGION.base] == bytes(board.region)
    assert loads[offset + SLOT.base + abi.VN_SLOT_RAM] == b"L" * (SLOT.size - abi.VN_SLOT_RAM)
    assert loads[board.kernel.text].startswith(b"text page 0")
    assert dump.size == out.stat().st_size
    assert dump.size > 4 << 20 and dump.stored < dump.size / 4


@pytest.mark.parametrize(("how", "state"), [("hold", "held"), ("copy", "copied")])
def test_a_capture_becomes_a_vmcore(
    incident_store: IncidentStore, board: Board, crashed: Incident, how: str, state: str
) -> None:
    assert start(how, incident_store, board).dump.state == state
    capture.write_dump(incident_store, 1, board.view)
    check_vmcore(incident_store, board)
    assert (incident_store.path(1) / "kmsg.txt").read_text() == "log line\n"
    evidence = records.decode_evidence((incident_store.path(1) / "crash.json").read_bytes())
    assert evidence.message == r"sysrq\x1b"
    assert evidence.cpus[1] is not None and evidence.cpus[1].cr3 == 4
    assert not list(incident_store.path(1).glob("*.part"))
    assert capture.resume(incident_store, board) == []  # type: ignore[arg-type]


def test_after_a_copy_region_and_slot_may_be_used(
    incident_store: IncidentStore, board: Board, crashed: Incident
) -> None:
    start("copy", incident_store, board)
    before = bytes(board.region)
    board.region[:] = b"\xff" * REGION.size
    board.slot[:] = bytes(SLOT.size)

    def nobody(base: int, size: int) -> memoryview:
        raise AssertionError("the region is no longer ours")

    capture.write_dump(incident_store, 1, nobody)
    board.region[:] = before
    check_vmcore(incident_store, board)


def test_the_worker_process_writes_a_copied_dump(
    incident_store: IncidentStore, board: Board, crashed: Incident
) -> None:
    start("copy", incident_store, board)
    command = capture.worker_command(incident_store, 1)
    done = subprocess.run(
        command, env=capture.worker_environment(), cwd="/", capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    check_vmcore(incident_store, board)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [(["x"], 2, "usage"), (["STORE", "9"], 4, "no incident 9"), (["STORE", "1"], 0, "")],
)
def test_the_worker_says_what_is_wrong(
    incident_store: IncidentStore,
    crashed: Incident,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    text: str,
) -> None:
    from crashdump import worker

    monkeypatch.setattr(worker, "_step_back", lambda: None)
    directory = str(incident_store.directory)
    assert worker.main([directory if one == "STORE" else one for one in arguments]) == code
    said = capsys.readouterr().err
    assert text in said and said.count("\n") <= 1


def test_a_region_used_again_is_not_taken_for_the_dump(
    incident_store: IncidentStore, board: Board, crashed: Incident
) -> None:
    start("hold", incident_store, board)
    board.boot(8)
    dump = capture.write_dump(incident_store, 1, board.view).dump
    assert (dump.state, dump.path) == (DumpState.LOST, "")
    assert "incarnation 8" in dump.reason
    assert not (incident_store.path(1) / "vmcore").exists()


def test_a_bridge_the_fault_destroyed_costs_no_dump(
    incident_store: IncidentStore, board: Board, crashed: Incident
) -> None:
    at = abi.VN_OFF_BRIDGE
    board.region[at : at + 0x1000] = os.urandom(0x1000)
    start("hold", incident_store, board)
    capture.write_dump(incident_store, 1, board.view)
    check_vmcore(incident_store, board)


@pytest.mark.parametrize(
    ("how", "state", "action", "region"),
    [
        ("hold", None, Action.WORK, REGION),
        ("hold", DumpState.WRITING, Action.WORK, REGION),
        ("copy", None, Action.WORK, None),
        ("copy", DumpState.WRITING, Action.WORK, None),
        ("copy", DumpState.COPYING, Action.COPY, REGION),
    ],
)
def test_a_restarted_daemon_knows_what_to_do(
    incident_store: IncidentStore,
    board: Board,
    crashed: Incident,
    how: str,
    state: DumpState | None,
    action: Action,
    region: Range | None,
) -> None:
    held = start(how, incident_store, board)
    if state:
        dump = msgspec.structs.replace(held.dump, state=state)
        held = incident_store.update(1, dump=dump)
    pending = capture.resume(incident_store, board)  # type: ignore[arg-type]
    assert pending == [Pending(held, action, region)]


@pytest.mark.parametrize("what", ["reboot", "running", "incarnation", "part"])
def test_what_is_lost_is_said_so(
    incident_store: IncidentStore, board: Board, crashed: Incident, what: str
) -> None:
    held = start("copy" if what == "part" else "hold", incident_store, board)
    if what == "reboot":
        incident_store.update(1, dump=msgspec.structs.replace(held.dump, boot_id="another"))
    elif what == "running":
        board.running[3] = Range(REGION.base + (32 << 20), 64 << 20)
    elif what == "incarnation":
        board.boot(8)
    else:
        (incident_store.path(1) / "vmcore.part").unlink()
    assert capture.resume(incident_store, board) == []  # type: ignore[arg-type]
    dump = incident_store.get(1).dump
    assert dump.state is DumpState.LOST and dump.reason


def test_a_working_worker_is_left_alone(
    incident_store: IncidentStore, board: Board, crashed: Incident
) -> None:
    start("hold", incident_store, board)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:

        def slow(base: int, size: int) -> memoryview:
            os.write(writer, b"!")
            time.sleep(60)
            return board.view(base, size)

        with IncidentStore(incident_store.directory) as store:
            capture.write_dump(store, 1, slow)
    try:
        os.read(reader, 1)
        (pending,) = capture.resume(incident_store, board)  # type: ignore[arg-type]
        assert (pending.action, pending.region) == (Action.WAIT, REGION)
        before = incident_store.get(1)
        assert capture.write_dump(incident_store, 1, board.view) == before
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    (pending,) = capture.resume(incident_store, board)  # type: ignore[arg-type]
    assert pending.action is Action.WORK


def test_a_full_disk_skips_the_dump_and_says_why(
    incident_store: IncidentStore,
    board: Board,
    crashed: Incident,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparse, "budget", lambda path, *_: sparse.Budget(path, 1 << 20))
    board.region[32 << 20 : 40 << 20] = b"x" * (8 << 20)
    made = capture.copy(incident_store, 1, board.view, REGION, SLOT)
    assert made.dump.state is DumpState.SKIPPED and "no space left" in made.dump.reason
    assert not list(incident_store.path(1).glob("vmcore*"))
    low = capture.low_memory(board.view, SLOT)
    capture.hold(incident_store, 1, low, REGION, SLOT)
    assert capture.write_dump(incident_store, 1, board.view).dump.state is DumpState.SKIPPED
    assert not list(incident_store.path(1).glob("vmcore*"))


@pytest.mark.parametrize("how", ["hold", "copy"])
def test_killed_at_any_moment_the_dump_is_finished_later(
    tmp_path: Path, board: Board, two_cpus: list[CpuState], how: str
) -> None:
    board.region[32 << 20 : 48 << 20] = os.urandom(16 << 20)
    rng = random.Random(3)
    for round_number in range(12):
        directory = tmp_path / str(round_number)
        with IncidentStore(directory) as store:
            store.create(vnode=2, name="web", incarnation=7, reason="panic", crash=True)
            capture.record(store, 1, Evidence(1, "panic", "", 1, tuple(two_cpus)))
        child = os.fork()
        if child == 0:
            with IncidentStore(directory) as store:
                start(how, store, board)
                capture.write_dump(store, 1, board.view)
            os._exit(0)
        time.sleep(rng.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with IncidentStore(directory) as store:
            if store.get(1).dump.state is DumpState.NONE:
                start(how, store, board)
            for pending in capture.resume(store, board):  # type: ignore[arg-type]
                if pending.action is Action.COPY:
                    start(how, store, board)
            capture.write_dump(store, 1, board.view)
            check_vmcore(store, board)
