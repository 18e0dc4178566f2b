# SPDX-License-Identifier: GPL-2.0-or-later
import pytest

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.fake import FakeMachine, root_side
from debugger.cpus import BridgeCpus, DumpCpus, Hold
from debugger.errors import NothingThere
from debugger.sources import vnode
from debugger.target import Liveness

REGION = Range(0x20200000, 0x4000000)
SLOT = Range(0x10000, 0x20000)


class Machine(FakeMachine):
    """A machine with vnode 1 on two CPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.claim()
        self.bind(1, [1, 2], REGION, SLOT)
        self.bridge = Bridge.open(self, REGION, writable=True)
        self.start_vnode(7)

    def start_vnode(self, incarnation: int) -> None:
        self.bridge.init(root_side(1, incarnation, name="web"))
        self.start(1, cr3=SLOT.base + 0x1000, entry=REGION.base, rsi=REGION.base)
        self.vnodes[1].beat()

    def hold(self) -> Hold:
        binding = self.query(1)
        return Hold.STARTED if binding is not None and binding.started else Hold.PARKED

    def sample(self, cpu: int, rip: int, tsc: int, area: int = abi.VN_BR_SAMPLES) -> None:
        regs = [0] * len(abi.USER_REGS)
        regs[abi.USER_REGS.index("rip")] = rip
        regs[abi.USER_REGS.index("gs_base")] = 0x7000
        frame = abi.FRAME.unpack(bytes(abi.FRAME.size))._replace(
            flags=abi.VN_FRAME_GP, tsc=tsc, regs=tuple(regs), cr3=0x5000
        )
        at = area + cpu * abi.FRAME.size
        self.bridge.view[at : at + abi.FRAME.size] = abi.FRAME.pack(frame)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_running_vnode_shows_its_samples(machine: Machine) -> None:
    machine.sample(1, 0x1234, tsc=5)
    cpus = BridgeCpus(machine.bridge, machine.hold)
    assert (cpus.count, cpus.liveness, cpus.focus) == (2, Liveness.RUNNING, 0)
    assert cpus.registers(0) == {}
    assert cpus.state(0) == "running [no sample yet]"
    assert cpus.registers(1)["rip"] == 0x1234
    assert cpus.state(1) == "running [sampled]"
    # without VN_FRAME_CONTROL neither bases nor control registers are known
    assert not {"gs_base", "cr3"} & cpus.registers(1).keys()


def test_the_newest_frame_counts(machine: Machine) -> None:
    machine.sample(0, 1, tsc=5)
    machine.sample(0, 2, tsc=9, area=abi.VN_BR_DEBUG_REGS)
    cpus = BridgeCpus(machine.bridge, machine.hold)
    assert cpus.registers(0)["rip"] == 2
    machine.sample(0, 3, tsc=10)
    assert cpus.registers(0)["rip"] == 3


def test_a_crash_is_noticed_and_shown(machine: Machine) -> None:
    cpus = BridgeCpus(machine.bridge, machine.hold)
    assert cpus.change() is None
    machine.vnodes[1].crash(cpu=1, message="Attempted to kill init!")
    change = cpus.change()
    assert change is not None
    assert (change.text, change.gone) == ("panic: Attempted to kill init!", False)
    cpus.refresh()
    assert (cpus.liveness, cpus.focus) == (Liveness.DEAD, 1)
    assert cpus.registers(1)["rip"] == 0xFFFFFFFF81000001
    assert cpus.state(0) == "crashed [saved]"
    assert cpus.change() is None


def test_a_crash_record_is_awaited_and_counts_before_later_frames(machine: Machine) -> None:
    cpus = BridgeCpus(machine.bridge, machine.hold)
    machine.vnodes[1].crash()
    abi.CRASH.put(machine.bridge.view, abi.VN_BR_CRASH, "state", abi.VN_CRASH_WRITING)
    assert cpus.change() is None
    machine.park(1)
    change = cpus.change()
    assert change is not None
    assert change.text == "crashed"
    machine.sample(0, 0x999, tsc=1 << 60, area=abi.VN_BR_DEBUG_REGS)
    cpus.refresh()
    assert cpus.registers(0)["rip"] == 0xFFFFFFFF81000000


def test_a_hung_vnode_is_dead_once_it_is_fenced(machine: Machine) -> None:
    machine.sample(0, 1, tsc=5)
    cpus = BridgeCpus(machine.bridge, machine.hold)
    machine.park(1)
    change = cpus.change()
    assert change is not None
    assert change.text == "fenced"
    cpus.refresh()
    assert cpus.liveness is Liveness.DEAD
    assert cpus.state(0) == "fenced [saved]"


def test_halted_and_restarted(machine: Machine) -> None:
    cpus = BridgeCpus(machine.bridge, machine.hold)
    machine.vnodes[1].halt()
    change = cpus.change()
    assert change is not None
    assert change.text == "halted"
    machine.park(1)
    machine.start_vnode(8)
    change = cpus.change()
    assert change is not None
    assert change.gone
    assert "incarnation 8" in change.text


def test_moved_memory_is_gone() -> None:
    machine = Machine()
    hold = Hold.STARTED
    cpus = BridgeCpus(machine.bridge, lambda: hold)
    hold = Hold.MOVED
    change = cpus.change()
    assert change is not None
    assert change.gone


@pytest.mark.parametrize("seed", range(20))
def test_a_scribbled_bridge_costs_registers_only(machine: Machine, seed: int) -> None:
    cpus = BridgeCpus(machine.bridge, machine.hold)
    machine.vnodes[1].scribble(seed)
    change = cpus.change()
    assert change is None or change.text.isprintable()
    cpus.refresh()
    for cpu in range(cpus.count):
        cpus.registers(cpu)
        assert cpus.state(cpu).isprintable()
    assert 0 <= cpus.focus < 2


def test_a_dump_without_registers() -> None:
    cpus = DumpCpus({1: {"rip": 1}}, count=4)
    assert cpus.count == 4
    assert cpus.state(0) == "dead [no registers]"
    assert cpus.state(1) == "dead [dump]"
    assert DumpCpus({}).count == 1
    assert DumpCpus({5: {}}).count == 6


def test_no_vnode_and_no_kernel(machine: Machine) -> None:
    with pytest.raises(NothingThere, match="start it first"):
        vnode(machine, 2, "db")
    with pytest.raises(NothingThere, match="no Linux kernel"):
        vnode(machine, 1, "web")
