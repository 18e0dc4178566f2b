# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs and memory blocks of a sysfs made of files."""

from __future__ import annotations

import pytest

from adeos.errors import MachineMissing
from adeos.hotplug import Block, Hotplug, stretches, write_in_time


@pytest.fixture
def system(tmp_path):
    memory = tmp_path / "sys/devices/system/memory"
    cpu = tmp_path / "sys/devices/system/cpu"
    zones = {0: "none", 1: "DMA32", 2: "DMA32 Movable", 9: "Movable", 10: "Normal"}
    for number, zone in zones.items():
        (memory / f"memory{number}").mkdir(parents=True)
        (memory / f"memory{number}/state").write_text("online\n")
        (memory / f"memory{number}/valid_zones").write_text(f"{zone}\n")
    (memory / "block_size_bytes").write_text("8000000\n")
    (cpu / "cpu0").mkdir(parents=True)
    (cpu / "cpu1").mkdir()
    (cpu / "cpu1/online").write_text("1\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    return tmp_path


def test_what_may_be_tried(system) -> None:
    hotplug = Hotplug(system)
    assert hotplug.block_size() == 128 << 20
    assert hotplug.available() == 2 << 20
    assert hotplug.blocks() == [Block(1, "DMA32"), Block(9, "Movable"), Block(10, "Normal")]


def test_a_block_goes_and_comes_back_into_its_zone(system) -> None:
    hotplug = Hotplug(system)
    state = system / "sys/devices/system/memory/memory9/state"
    block = Block(9, "Movable")
    assert hotplug.offline(block) == ""
    assert state.read_text() == "offline\n"
    assert block not in hotplug.blocks()
    hotplug.online(block)
    assert state.read_text() == "online_movable\n"
    hotplug.online(block)  # is there: nothing to do
    kernel = Block(10, "Normal")
    hotplug.offline(kernel)
    hotplug.online(kernel)
    assert (state.parent.parent / "memory10/state").read_text() == "online_kernel\n"


def test_a_cpu_goes_and_comes_back(system) -> None:
    hotplug = Hotplug(system)
    assert hotplug.cpu_online(1)
    hotplug.set_cpu(1, online=False)
    assert not hotplug.cpu_online(1)
    with pytest.raises(MachineMissing, match="CPU 0 cannot be taken offline"):
        hotplug.cpu_online(0)
    with pytest.raises(MachineMissing, match="the machine has no CPU 7"):
        hotplug.cpu_online(7)


def test_a_kernel_that_refuses(system) -> None:
    hotplug = Hotplug(system, lambda path, word, limit: "Device or resource busy")
    assert hotplug.offline(Block(9, "Movable")) == "Device or resource busy"
    with pytest.raises(MachineMissing, match="CPU 1 does not go offline: Device or resource busy"):
        hotplug.set_cpu(1, online=False)


def test_a_kernel_without_memory_hotplug(tmp_path) -> None:
    with pytest.raises(MachineMissing, match="has no memory hotplug; boot it with memmap="):
        Hotplug(tmp_path).block_size()


def test_writing_says_why_it_failed_and_ends_in_time(tmp_path) -> None:
    import os

    assert "nonexistent" in write_in_time(tmp_path / "no/file", "1", 5.0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it for writing waits for a reader
    assert write_in_time(pipe, "1", 0.2) == "not done in 0.2 s"


def test_stretches_take_movable_memory_first_and_high_memory_before_low() -> None:
    blocks = [Block(n, "Movable" if n in (4, 5) else "Normal") for n in (1, 2, 3, 4, 5, 8)]
    found = [[block.number for block in stretch] for stretch in stretches(blocks, 2)]
    assert found == [[5, 4], [5, 4, 3, 2, 1]]
    assert [[b.number for b in s] for s in stretches(blocks, 1)][1:] == [[8], [5, 4, 3, 2, 1]]
    assert list(stretches(blocks, 6)) == []
    assert list(stretches([], 1)) == []
