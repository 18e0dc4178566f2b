# SPDX-License-Identifier: GPL-2.0-or-later
"""Run control against the fake machine, whose vnodes obey their mailboxes as the agent does."""

import threading
import time

import pytest

from adeos import abi
from adeos.abi import Cause
from adeos.errors import HeldError
from debugger import control
from debugger.breakable import Breakable
from debugger.control import RunControl
from debugger.errors import ControlLost, ControlRefused, TargetError
from debugger.hardware import Access
from debugger.pilot import Halt, Pilot
from debugger.session import Phase, Session
from debugger.target import Liveness, Thread
from introspect.errors import NotFound
from tests.debugger.conftest import BASE, Client, PlainTarget
from tests.debugger.test_cpus import REGION, Machine

CODE = REGION.base + 0x200000  # where BASE lies
USER_END = 1 << 47
_IF = 1 << 9


class Kernel:
    """Memory from BASE on, at CODE; the only symbols are those of its text."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.symbols = self
        self.modules = ()
        self.known = {"_stext": BASE, "_etext": BASE + 0x100000}
        self.known |= {"__entry_text_start": BASE + 0x8000, "__entry_text_end": BASE + 0x9000}

    def address(self, name: str) -> int:
        if name not in self.known:
            raise NotFound(name)
        return self.known[name]

    def lookup(self, address: int) -> tuple[str, int]:
        for name, start in self.known.items():
            if start == address:
                return name, 0
        raise NotFound(hex(address))

    def translate(self, va: int) -> int:
        return va - BASE + CODE

    def read(self, va: int, size: int) -> bytes:
        return bytes(self.machine.view(self.translate(va), size))

    def u64(self, va: int) -> int:
        return int.from_bytes(self.read(va, 8), "little")

    def cpus(self, _mask: str) -> list[int]:
        return [0, 1]


class Shared(Machine):
    """A machine that survives the debugger's closing it."""

    def close(self) -> None:
        """The tests go on with it."""


@pytest.fixture
def machine() -> Shared:
    machine = Shared()
    machine.raw(CODE, 0x4000)[:] = bytes([0x90]) * 0x4000
    return machine


def controlling(machine: Shared) -> RunControl:
    return RunControl(lambda: machine, 1, REGION, machine.bridge, Kernel(machine))  # type: ignore[arg-type]


def piloting(machine: Shared) -> Pilot:
    kernel = Kernel(machine)
    run = RunControl(lambda: machine, 1, REGION, machine.bridge, kernel)  # type: ignore[arg-type]

    def locate(_tid: int, address: int) -> tuple[int, int]:
        return kernel.translate(address), 0x1000 - (address & 0xFFF)

    return Pilot(run, Breakable(kernel), locate, USER_END)  # type: ignore[arg-type]


def put_frame(machine: Shared, cpu: int, **regs: int) -> None:
    at = abi.VN_BR_DEBUG_REGS + cpu * abi.FRAME.size
    frame = abi.FRAME.unpack(machine.bridge.view, at)
    values = dict(zip(abi.USER_REGS, frame.regs, strict=True)) | regs
    frame = frame._replace(regs=tuple(values[name] for name in abi.USER_REGS))
    machine.bridge.view[at : at + abi.FRAME.size] = abi.FRAME.pack(frame)


def test_nothing_is_touched_before_control_is_taken(machine: Shared) -> None:
    run = controlling(machine)
    assert not run.held
    assert machine.query(1).holder == 0
    with pytest.raises(ControlLost, match="not controlled"):
        run.park()


def test_parking_and_running_again(machine: Shared) -> None:
    run = controlling(machine)
    run.take()
    assert machine.query(1).holder
    run.park()
    assert run.parked(0) and run.parked(1) and not run.running
    assert run.stops() == []  # they were asked
    assert run.frame(1).reg("rip") == 0xFFFFFFFF81000001
    run.run({0: False, 1: False})
    assert [machine.bridge.debug(cpu).state for cpu in (0, 1)] == [abi.VN_DBG_RUNNING] * 2
    run.give_back()
    assert not run.held
    assert machine.query(1).holder == 0


def test_a_cpu_that_is_slow_to_run_again_is_not_parked_before_it_has(
    machine: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = controlling(machine)
    run.take()
    run.park()
    vnode = machine.vnodes[1]
    obey = vnode.obey
    monkeypatch.setattr(vnode, "obey", lambda: None)
    run.set_registers(0, {"rax": 77})
    run.run({0: False, 1: False})
    later = threading.Timer(0.05, obey)
    later.start()
    run.park()
    later.join()
    assert run.parked(0) and run.parked(1)
    assert machine.bridge.debug(0).stops == 2


def test_control_again_at_once_over_cpus_that_do_not_know_of_its_end_yet(
    machine: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = controlling(machine)
    run.take()
    run.park()
    monkeypatch.setattr(machine.vnodes[1], "let_run", lambda: None)
    run.give_back()
    run.take()
    run.park()
    assert run.parked(0) and run.parked(1)
    assert machine.bridge.debug(1).stops == 2


def test_only_the_cpus_that_are_named_run(machine: Shared) -> None:
    run = controlling(machine)
    run.take()
    run.park()
    run.run({1: False})
    assert [machine.bridge.debug(cpu).state for cpu in (0, 1)] == [
        abi.VN_DBG_PARKED,
        abi.VN_DBG_RUNNING,
    ]


def test_another_debugger_is_named(machine: Shared) -> None:
    machine.foreign_holder = 4711
    with pytest.raises(ControlRefused, match="process 4711 controls it"):
        controlling(machine).take()


def test_a_vnode_without_an_agent_is_refused(machine: Shared) -> None:
    abi.VNODE_SIDE.put(machine.bridge.view, abi.VN_BR_VNODE, "abi", 0)
    with pytest.raises(ControlRefused, match="no agent"):
        controlling(machine).take()
    assert machine.query(1).holder == 0


def test_a_parked_vnode_is_refused(machine: Shared) -> None:
    machine.park(1)
    with pytest.raises(ControlRefused, match="CPUs are parked"):
        controlling(machine).take()


def test_a_deaf_vnode_is_told(machine: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PARK_SECONDS", 0.05)
    machine.vnodes[1].alive = False
    run = controlling(machine)
    run.take()
    with pytest.raises(TargetError, match="no CPU answers"):
        run.park()


def test_a_fence_ends_control(machine: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RENEW_SECONDS", 0.01)
    pilot = piloting(machine)
    pilot.halt()
    pilot.insert(1, 0, BASE + 0x100, 1)
    machine.park(1)
    assert bytes(machine.view(CODE + 0x100, 1)) == b"\x90"
    until = time.monotonic() + 5
    while pilot.held and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(ControlLost):
        pilot.halted()


def test_the_lease_is_renewed(machine: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RENEW_SECONDS", 0.01)
    run = controlling(machine)
    run.take()
    first = machine.query(1).held_until
    until = time.monotonic() + 5
    while machine.query(1).held_until == first and time.monotonic() < until:
        time.sleep(0.01)
    assert machine.query(1).held_until > first
    run.give_back()
    time.sleep(0.05)
    assert machine.query(1).holder == 0


def test_control_that_lapsed_is_not_taken_again_in_silence(
    machine: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "RENEW_SECONDS", 0.01)
    pilot = piloting(machine)
    pilot.halt()
    pilot.insert(1, 0, BASE + 0x100, 1)
    machine.release(1)  # as the machine does when nobody renewed it in time
    until = time.monotonic() + 5
    while pilot.held and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(ControlLost):
        pilot.halted()
    assert machine.query(1).holder == 0


def test_a_breakpoint_stops_every_cpu(machine: Shared) -> None:
    pilot = piloting(machine)
    pilot.halt()
    pilot.insert(1, 0, BASE + 0x100, 1)
    assert bytes(machine.view(CODE + 0x100, 1)) == b"\xcc"
    assert pilot.hide(BASE + 0xFE, pilot.control.kernel.read(BASE + 0xFE, 4)) == b"\x90" * 4
    assert machine.bridge.control().breakpoint[0] == BASE + 0x100
    pilot.resume({1: False, 2: False})
    assert pilot.halted() is None
    machine.vnodes[1].stop(1, Cause.BREAK, BASE + 0x100)
    assert pilot.halted() == Halt(2, "swbreak:")
    assert pilot.control.parked(0)
    assert pilot.halted() is None  # told once
    pilot.remove(0, BASE + 0x100, 1)
    assert bytes(machine.view(CODE + 0x100, 1)) == b"\x90"


def test_no_breakpoint_is_left_behind(machine: Shared) -> None:
    pilot = piloting(machine)
    pilot.halt()
    for n in range(3):
        pilot.insert(1, 0, BASE + 0x100 + n, 1)
    pilot.give_back()
    assert bytes(machine.view(CODE + 0x100, 3)) == b"\x90" * 3
    assert machine.bridge.control().until_tsc == 0


@pytest.mark.parametrize(
    ("address", "why"), [(BASE + 0x8000, "entry code"), (BASE - 1, "no code"), (0x1000, "no code")]
)
@pytest.mark.parametrize("kind", [0, 1])
def test_breakpoints_that_would_do_harm(machine: Shared, address: int, why: str, kind: int) -> None:
    pilot = piloting(machine)
    pilot.halt()
    with pytest.raises(TargetError, match=why):
        pilot.insert(1, kind, address, 1)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("__rcu_read_lock", True),  # notify_die() calls it
        ("nmi_handle.part.0", True),
        ("arch_irq_work_raise", True),
        ("_raw_spin_trylock", True),
        ("_raw_spin_lock", False),
        ("kernel_clone", False),
    ],
)
def test_what_runs_on_the_way_to_a_stop_is_refused(
    machine: Shared, name: str, refused: bool
) -> None:
    kernel = Kernel(machine)
    kernel.known[name] = BASE + 0x300
    why = Breakable(kernel).refusal(BASE + 0x300)  # type: ignore[arg-type]
    assert ("stop a CPU" in why) == refused


@pytest.mark.parametrize(
    ("code", "flags"),
    [
        (0x90, abi.VN_DBG_F_MASK),
        (0x9C, abi.VN_DBG_F_MASK | abi.VN_DBG_F_PUSHF),
        (0xFA, abi.VN_DBG_F_MASK | abi.VN_DBG_F_CLI),
        (0xFB, 0),
    ],
    ids=["nop", "pushf", "cli", "sti"],
)
def test_a_step_asks_the_agent_to_keep_interrupts_out(
    machine: Shared, code: int, flags: int
) -> None:
    machine.raw(CODE, 1)[0] = code
    run = controlling(machine)
    run.take()
    run.park()
    put_frame(machine, 0, rip=BASE, eflags=_IF)
    run.run({0: True})
    assert machine.bridge.debug(0).flags == abi.VN_DBG_F_STEP | flags
    (stop,) = run.stops()
    assert (stop.cpu, stop.cause) == (0, Cause.DEBUG)
    assert run.parked(1)
    assert run.frame(0).reg("rip") == BASE + 1


def test_no_step_where_the_trap_flag_gets_lost(machine: Shared) -> None:
    machine.raw(CODE, 2)[:] = b"\x0f\x07"  # sysret
    run = controlling(machine)
    run.take()
    run.park()
    put_frame(machine, 0, rip=BASE, eflags=_IF)
    run.run({0: True})
    assert machine.bridge.debug(0).flags == 0


def test_registers_are_set_when_the_cpu_runs(machine: Shared) -> None:
    run = controlling(machine)
    run.take()
    run.park()
    run.set_registers(0, {"rax": 5, "rip": BASE + 9})
    assert run.frame(0).reg("rax") == 5
    for name in ("cr3", "cs", "fs_base", "st0"):
        with pytest.raises(TargetError, match="cannot be set"):
            run.set_registers(0, {name: 1 << 40})
    run.run({0: False})
    at = abi.VN_BR_DEBUG_REGS
    frame = abi.FRAME.unpack(machine.bridge.view, at)
    assert (frame.reg("rax"), frame.reg("rip")) == (5, BASE + 9)
    with pytest.raises(TargetError, match="runs: stop it first"):
        run.set_registers(0, {"rax": 1})


def test_watchpoints(machine: Shared) -> None:
    pilot = piloting(machine)
    pilot.halt()
    with pytest.raises(TargetError, match="keeps hits"):
        pilot.insert(1, 2, BASE + 0x3000, 8)
    for cpu in (0, 1):
        machine.vnodes[1]._answer(cpu, watches=1)
    pilot.insert(1, 2, BASE + 0x3000, 8)
    pilot.insert(1, 4, BASE + 0x3008, 4)
    with pytest.raises(TargetError, match="aligned"):
        pilot.insert(1, 2, BASE + 0x3001, 8)
    pilot.resume({1: False, 2: False})
    box = machine.bridge.debug(0)
    assert box.flags & abi.VN_DBG_F_HW
    assert box.dr[:2] == (BASE + 0x3000, BASE + 0x3008)
    assert box.dr7 == 2 | 0b1001 << 16 | 2 << 2 | 0b1111 << 20
    machine.vnodes[1].stop(0, Cause.DEBUG, BASE, dr6=2)
    machine.vnodes[1].stop(1, Cause.DEBUG, BASE, dr6=1)
    found = [pilot.halted(), pilot.halted(), pilot.halted()]
    awatch, watch = f"awatch:{BASE + 0x3008:x}", f"watch:{BASE + 0x3000:x}"
    assert found == [Halt(1, awatch), Halt(2, watch), None]
    pilot.remove(2, BASE + 0x3000, 8)
    assert pilot.control.slots.hit(1) is None
    assert pilot.control.slots.hit(2) == (Access.READ_WRITE, BASE + 0x3008)


def test_a_hit_that_was_not_told_comes_before_anything_runs(machine: Shared) -> None:
    pilot = piloting(machine)
    pilot.halt()
    for cpu in (0, 1):
        machine.vnodes[1]._answer(cpu, watches=1)
    pilot.insert(1, 2, BASE + 0x3000, 8)
    pilot.resume({1: False, 2: False})
    machine.vnodes[1].stop(0, Cause.DEBUG, BASE, dr6=1)
    machine.vnodes[1].stop(1, Cause.DEBUG, BASE, dr6=1)
    assert pilot.halted() is not None
    pilot.resume({1: False, 2: False})
    assert pilot.control.parked(0) and pilot.control.parked(1)
    assert pilot.halted() is not None


def test_five_watchpoints_are_too_many(machine: Shared) -> None:
    run = controlling(machine)
    for n in range(4):
        run.slots.add(Access.WRITE, BASE + 8 * n, 8)
    run.slots.add(Access.WRITE, BASE, 8)  # the same again
    with pytest.raises(TargetError, match="all four"):
        run.slots.add(Access.WRITE, BASE + 0x40, 8)


def test_writes_go_under_breakpoints(machine: Shared) -> None:
    pilot = piloting(machine)
    pilot.halt()
    pilot.insert(1, 0, BASE + 0x1000, 1)
    pilot.write(1, BASE + 0xFFE, b"abcd")
    assert bytes(machine.view(CODE + 0xFFE, 4)) == b"ab\xccd"
    assert pilot.hide(BASE + 0xFFE, b"ab\xccd") == b"abcd"
    pilot.give_back()
    assert bytes(machine.view(CODE + 0xFFE, 4)) == b"abcd"


class Controlled(PlainTarget):
    """A PlainTarget with the CPUs of the fake vnode."""

    def __init__(self, pilot: Pilot) -> None:
        super().__init__()
        self.pilot = pilot  # type: ignore[assignment]

    def thread(self, tid: int) -> Thread | None:
        return next((thread for thread in self.threads() if thread.tid == tid), None)


@pytest.fixture
def controlled(machine: Shared) -> Client:
    return Client(Session(Controlled(piloting(machine))))


def test_ctrl_c_stops_a_watched_vnode(controlled: Client, machine: Shared) -> None:
    assert controlled.raw(b"$vCont;c#a8") == []
    assert machine.query(1).holder == 0
    assert controlled.raw(b"\x03") == [b"T02thread:1;core:0;"]
    assert "web is stopped" in controlled.console
    assert machine.bridge.debug(0).state == abi.VN_DBG_PARKED
    assert controlled.ask(b"Z0,%x,1" % (BASE + 0x100)) == b"OK"
    assert controlled.ask(b"X%x,2:\x01\x02" % (BASE + 0x200)) == b"OK"
    assert bytes(machine.view(CODE + 0x200, 2)) == b"\1\2"
    assert controlled.ask(b"D") == b"OK"
    assert controlled.session.phase is Phase.CLOSED
    assert machine.query(1).holder == 0
    assert machine.bridge.debug(0).state == abi.VN_DBG_RUNNING


def test_ctrl_c_where_another_debugger_is(controlled: Client, machine: Shared) -> None:
    machine.foreign_holder = 99
    controlled.raw(b"$vCont;c#a8")
    assert controlled.raw(b"\x03") == [b"T02thread:1;core:0;"]
    assert "process 99 controls it" in controlled.console
    assert "runs on, watched" in controlled.console


def test_a_breakpoint_is_reported_by_poll(controlled: Client, machine: Shared) -> None:
    controlled.ask(b"qSupported:multiprocess+;swbreak+;hwbreak+")
    controlled.words("stop")
    controlled.raw(b"$vCont;c#a8")
    assert controlled.session.wakeups() == [machine.fileno()]
    assert controlled.session.poll() == b""
    machine.vnodes[1].stop(1, Cause.BREAK, BASE + 0x100)
    (reply,) = controlled.payloads(controlled.session.poll())
    assert reply == b"T05thread:p2.2;core:1;swbreak:;"
    assert controlled.ask(b"qC") == b"QCp2.2"


def test_a_step_runs_one_cpu(controlled: Client, machine: Shared) -> None:
    controlled.words("stop")
    assert controlled.raw(b"$vCont;s:2#24") == []
    (reply,) = controlled.payloads(controlled.session.poll())
    assert reply == b"T05thread:2;core:1;"
    assert machine.bridge.debug(0).stops == 1
    assert machine.bridge.debug(1).stops == 2


def test_release_by_words(controlled: Client, machine: Shared) -> None:
    assert "not stopped" in controlled.words("release")
    controlled.words("stop")
    assert "it runs" in controlled.words("release")
    assert machine.query(1).holder == 0


def test_a_client_that_vanishes_leaves_nothing(controlled: Client, machine: Shared) -> None:
    controlled.words("stop")
    controlled.ask(b"Z0,%x,1" % (BASE + 0x100))
    controlled.session.close()
    assert bytes(machine.view(CODE + 0x100, 1)) == b"\x90"
    assert machine.query(1).holder == 0


def test_a_lost_lease_is_told_and_ends_the_wait(
    controlled: Client, machine: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    controlled.words("stop")
    controlled.raw(b"$vCont;c#a8")

    def refuse(*_: object) -> int:
        raise HeldError("vnode 1: gone")

    monkeypatch.setattr(machine, "control", refuse)
    until = time.monotonic() + 10
    answer = b""
    while not answer and time.monotonic() < until:
        answer = controlled.session.poll()
        time.sleep(0.02)
    assert controlled.payloads(answer) == [b"T02thread:1;core:0;"]
    assert "control" in controlled.console


def test_the_dead_are_not_stopped(machine: Shared) -> None:
    target = Controlled(piloting(machine))
    target.liveness = Liveness.DEAD
    client = Client(Session(target))
    assert client.ask(b"vCont;c") == b"T02thread:1;core:0;"
    assert client.ask(b"Z0,0,1") == b"E.web is dead: nothing is written"


def test_two_vnodes_in_one_session(machine: Shared) -> None:
    second = PlainTarget()
    second.identity = second.identity._replace(number=3, name="other")
    catalog = {2: lambda: Controlled(piloting(machine)), 3: lambda: second}
    client = Client(Session(None, catalog))  # type: ignore[arg-type]
    client.ask(b"qSupported:multiprocess+")
    assert client.ask(b"?") == b"W00"
    assert client.ask(b"m0,1") == b"E16"
    assert client.ask(b"vAttach;9").startswith(b"E.no such vnode")
    assert client.ask(b"vAttach;2") == b"T05thread:p2.1;core:0;"
    assert client.ask(b"vAttach;3") == b"T05thread:p3.1;core:0;"
    assert client.ask(b"qfThreadInfo") == b"mp2.1,p2.2,p3.1,p3.2"
    assert client.ask(b"Hgp2.2") == b"OK"
    assert client.ask(b"qC") == b"QCp2.2"
    client.words("stop")
    client.raw(b"$vCont;c:p2.-1#%02x" % (sum(b"vCont;c:p2.-1") & 255))
    assert client.session.resumed == {2}
    assert client.raw(b"\x03") == [b"T02thread:p2.1;core:0;"]
    assert client.ask(b"D;2") == b"OK"
    assert client.ask(b"qfThreadInfo") == b"mp3.1,p3.2"
    assert client.ask(b"D;3") == b"OK"
    assert client.session.phase is not Phase.CLOSED


@pytest.fixture
def nonstop(controlled: Client) -> Client:
    controlled.ask(b"qSupported:multiprocess+;swbreak+;hwbreak+")
    assert controlled.ask(b"QNonStop:1") == b"OK"
    assert controlled.ask(b"?") == b"OK"  # nothing stands still
    return controlled


def test_a_process_that_is_not_there_is_not_resumed(controlled: Client) -> None:
    controlled.ask(b"qSupported:multiprocess+")
    assert controlled.ask(b"vCont;c:p9.1") == b"E16"
    assert controlled.session.phase is Phase.STOPPED
    assert controlled.raw(b"\x03") == []


def test_non_stop_attaches_to_several(machine: Shared) -> None:
    """gdb takes OK for an answer alone, then waits to be told of what stands still."""
    stopped = Controlled(piloting(machine))
    second = PlainTarget()
    second.identity = second.identity._replace(number=3, name="other")
    client = Client(Session(None, {2: lambda: stopped, 3: lambda: second}))  # type: ignore[arg-type]
    client.ask(b"qSupported:multiprocess+")
    assert client.ask(b"QNonStop:1") == b"OK"
    stopped.pilot.halt()
    assert client.ask(b"vAttach;2") == b"OK"
    assert told(client) == b"Stop:T00thread:p2.1;core:0;"
    assert client.ask(b"vStopped") == b"T00thread:p2.2;core:1;"
    assert client.ask(b"vStopped") == b"OK"
    assert client.ask(b"vAttach;3") == b"OK"
    assert told(client) == b""  # it runs
    assert client.session.resumed == {2, 3}


def told(client: Client) -> bytes:
    """The notification that poll() gives."""
    data = client.session.poll()
    assert data[:1] == b"%" or not data
    return data[1:-3]


def test_non_stop_stops_one_cpu(nonstop: Client, machine: Shared) -> None:
    assert nonstop.ask(b"vCont;t:p2.2") == b"OK"
    assert [machine.bridge.debug(cpu).state for cpu in (0, 1)] == [
        abi.VN_DBG_RUNNING,
        abi.VN_DBG_PARKED,
    ]
    assert told(nonstop) == b"Stop:T00thread:p2.2;core:1;"
    assert told(nonstop) == b""  # until it is fetched
    assert nonstop.ask(b"vStopped") == b"OK"
    assert nonstop.ask(b"?") == b"T00thread:p2.2;core:1;"
    assert nonstop.ask(b"vStopped") == b"OK"


def test_non_stop_breakpoints_stop_one_cpu_each(nonstop: Client, machine: Shared) -> None:
    nonstop.ask(b"vCont;t:p2.-1")
    assert told(nonstop) == b"Stop:T00thread:p2.1;core:0;"
    assert nonstop.ask(b"vStopped") == b"T00thread:p2.2;core:1;"
    assert nonstop.ask(b"vStopped") == b"OK"
    assert nonstop.ask(b"Z0,%x,1" % (BASE + 0x100)) == b"OK"
    assert nonstop.ask(b"vCont;c:p2.1;c:p2.2") == b"OK"
    machine.vnodes[1].stop(1, Cause.BREAK, BASE + 0x100)
    assert told(nonstop) == b"Stop:T05thread:p2.2;core:1;swbreak:;"
    assert machine.bridge.debug(0).state == abi.VN_DBG_RUNNING
    machine.vnodes[1].stop(0, Cause.BREAK, BASE + 0x100)
    assert told(nonstop) == b""
    assert nonstop.ask(b"vStopped") == b"T05thread:p2.1;core:0;swbreak:;"
    assert nonstop.ask(b"vStopped") == b"OK"
    assert nonstop.ask(b"vCont;s:p2.1") == b"OK"
    assert told(nonstop) == b"Stop:T05thread:p2.1;core:0;"


def test_non_stop_reading_needs_no_stop(nonstop: Client) -> None:
    assert nonstop.ask(b"m%x,2" % BASE) == b"0001"
    assert nonstop.ask(b"vCont;c") == b"OK"
    assert nonstop.ask(b"m%x,2" % BASE) == b"0001"
