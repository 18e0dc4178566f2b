# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs and memory taken from a running root, on a sysfs made of files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from adeos.errors import MachineMissing
from adeos.hotplug import Hotplug
from watchdog import loan, module, paths
from watchdog.config import Config, MachineConfig, VnodeConfig
from watchdog.errors import ModuleError

MIB = 1 << 20
BLOCK = 128 * MIB


class System:
    """A root of four CPUs and 16 blocks of 128 MiB; `stuck` ones stay."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stuck: set[int] = set()
        self.log: list[str] = []
        for number in range(16):
            self.put(f"memory/memory{number}/state", "online")
            self.put(f"memory/memory{number}/valid_zones", "Normal" if number else "none")
        self.put("memory/block_size_bytes", f"{BLOCK:x}")
        self.put("cpu/cpu0/present", "")
        for number in (1, 2, 3):
            self.put(f"cpu/cpu{number}/online", "1")
        (root / "proc").mkdir()
        self.available(2048)

    def available(self, mib: int) -> None:
        (self.root / "proc/meminfo").write_text(f"MemAvailable: {mib << 10} kB\n")

    def put(self, name: str, text: str) -> None:
        path = self.root / "sys/devices/system" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def write(self, path: Path, word: str, limit_s: float) -> str:
        assert paths.loan_record().exists(), "on record before anything is switched"
        name = path.parent.name
        self.log.append(f"{name} {word}")
        if name.removeprefix("memory") in map(str, self.stuck) or f"{name} {word}" in self.stuck:
            return "Device or resource busy"
        path.write_text(("online" if word.startswith("online") else word) + "\n")
        return ""

    @property
    def hotplug(self) -> Hotplug:
        return Hotplug(self.root, self.write)

    def offline(self) -> set[str]:
        found = set()
        for path in (self.root / "sys/devices/system").glob("*/*/*"):
            if path.read_text().strip() in ("offline", "0"):
                found.add(path.parent.name)
        return found


@pytest.fixture
def system(tmp_path, monkeypatch):
    monkeypatch.setenv("VNODE_DEBUG_RUN", str(tmp_path / "run"))
    return System(tmp_path)


def vnode(number: int, cpus: tuple[int, ...], memory: str = "256M") -> VnodeConfig:
    return VnodeConfig(id=number, name=f"v{number}", kernel="/k", cpus=cpus, memory=memory)


TWO = Config(vnode=(vnode(1, (1,)), vnode(2, (2, 3))))


def test_what_is_not_said_is_what_the_vnodes_need_together(system) -> None:
    machine = loan.take(TWO, system.hotplug)
    # 514 MiB are five blocks, the highest ones
    assert machine.memory == (f"{11 * BLOCK:#x}+{5 * BLOCK:#x}",)
    assert machine.cpus == (1, 2, 3)
    assert machine.low == "0x10000+0x30000"
    assert system.offline() == {"cpu1", "cpu2", "cpu3", *(f"memory{n}" for n in range(11, 16))}
    lent = loan.current()
    assert lent is not None
    assert lent.words == "CPUs 1,2,3, 640M of memory"
    assert loan.give_back(system.hotplug) == lent
    assert system.offline() == set()
    assert loan.current() is None
    assert loan.give_back(system.hotplug) == loan.Loan()


def test_sizes_are_runs_and_ranges_stay_as_they_are(system) -> None:
    machine = MachineConfig(memory=("512M", "0x140000000+1G", "300M"), low="0x20000+0x20000")
    taken = loan.take(msgspec.structs.replace(TWO, machine=machine), system.hotplug)
    assert taken.memory == (
        "0x140000000+1G",
        f"{12 * BLOCK:#x}+{4 * BLOCK:#x}",
        f"{9 * BLOCK:#x}+{3 * BLOCK:#x}",
    )
    assert taken.low == "0x20000+0x20000"


def test_reserved_memory_and_cpus_that_are_offline_are_no_loan(system) -> None:
    for cpu in (1, 2, 3):
        system.put(f"cpu/cpu{cpu}/online", "0")
    machine = MachineConfig(memory=("0x140000000+1G",), low="0x10000+0x30000", cpus=(1, 2, 3))
    taken = loan.take(msgspec.structs.replace(TWO, machine=machine), system.hotplug)
    assert taken == machine
    assert (loan.current(), system.log) == (None, [])


def test_a_block_in_use_is_passed_by_and_what_went_before_it_comes_back(system) -> None:
    system.stuck = {12}
    machine = loan.take(TWO, system.hotplug)
    assert machine.memory == (f"{7 * BLOCK:#x}+{5 * BLOCK:#x}",)
    assert {name for name in system.offline() if name[0] == "m"} == {
        f"memory{n}" for n in range(7, 12)
    }
    assert len(loan.current().blocks) == 5


def test_a_run_for_each_vnode_where_one_for_all_is_not_to_be_had(system) -> None:
    system.stuck = {4, 8, 12}
    machine = loan.take(TWO, system.hotplug)
    # the first has the root bridge too: 258 MiB
    assert machine.memory == (f"{13 * BLOCK:#x}+{3 * BLOCK:#x}", f"{10 * BLOCK:#x}+{2 * BLOCK:#x}")


def test_no_room_is_one_line_and_everything_comes_back(system) -> None:
    system.stuck = {2, 4, 6, 8, 10, 12, 14}
    with pytest.raises(MachineMissing, match=r"128M went offline, then: block 2: .*movable"):
        loan.take(TWO, system.hotplug)
    loan.give_back(system.hotplug)
    assert system.offline() == set()
    system.available(600)
    with pytest.raises(MachineMissing, match="the vnodes want 640M, the root can spare 472M"):
        loan.take(TWO, system.hotplug)


def test_a_cpu_that_stays(system) -> None:
    system.stuck = {"cpu2 0"}
    with pytest.raises(MachineMissing, match="CPU 2 does not go offline"):
        loan.take(TWO, system.hotplug)
    loan.give_back(system.hotplug)
    assert system.offline() == set()


def test_giving_back_tries_all_and_keeps_the_record_until_all_is_back(system) -> None:
    loan.take(TWO, system.hotplug)
    system.stuck = {13, "cpu1 1"}
    with pytest.raises(MachineMissing, match="CPU 1 does not go online"):
        loan.give_back(system.hotplug)
    assert system.offline() == {"cpu1", "memory13"}
    system.stuck = set()
    loan.give_back(system.hotplug)
    assert system.offline() == set()


def test_a_damaged_record_is_not_guessed_at(system) -> None:
    paths.private_dir(paths.run_dir())
    paths.loan_record().write_text("{")
    with pytest.raises(ModuleError, match="put CPUs and memory online by hand"):
        loan.give_back(system.hotplug)


def test_a_module_that_does_not_load_leaves_nothing_taken(system, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "DEVICE", tmp_path / "kmb")
    monkeypatch.setattr(loan, "Hotplug", lambda: system.hotplug)
    machine = MachineConfig(module=str(tmp_path / "kmb.ko"))
    config = msgspec.structs.replace(TWO, machine=machine)
    seen = []

    def refuse(given: MachineConfig) -> None:
        seen.append(module.parameters(given))
        raise ModuleError("no")

    monkeypatch.setattr(module, "_insert", refuse)
    with pytest.raises(ModuleError, match="no"):
        module.load(config)
    assert seen == [[f"mem={11 * BLOCK:#x}+{5 * BLOCK:#x}", "low=0x10000+0x30000", "cpus=1,2,3"]]
    assert system.offline() == set()
    assert not paths.loan_record().exists()

    monkeypatch.setattr(module, "_insert", lambda given: module.DEVICE.touch())
    assert module.load(config)
    assert module.load(config) is False  # a new daemon finds it loaded
    module.DEVICE.unlink()  # killed before anything else, say
    assert module.unload().cpus == [1, 2, 3]
    assert system.offline() == set()
