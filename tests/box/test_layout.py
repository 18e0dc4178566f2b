# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from box import layout
from box.errors import BadOption
from watchdog import config


def test_default_box() -> None:
    plan = layout.plan(2 * layout.GIB, 4)
    assert plan.cpus == (1, 2, 3)
    assert plan.kernel_arguments == [
        "maxcpus=1",
        "tsc=reliable",
        "no_ipi_broadcast=1",
        "memmap=0x50000$0x10000",
        "memmap=0x40200000$0x30000000",
    ]
    assert plan.module_arguments == "mem=0x30000000+0x40200000 low=0x10000+0x50000 cpus=1-3"


@pytest.mark.parametrize(("memory", "pools"), [("2G", 1), ("3G", 1), ("4G", 2), ("6G", 2)])
def test_high_pool_wants_ram_up_there(memory: str, pools: int) -> None:
    plan = layout.plan(layout.parse_size(memory), 4)
    assert len(plan.pools) == pools


@given(st.integers(0, 8192), st.integers(0, 20))
def test_pools_lie_in_ram_and_apart(two_mib: int, cpus: int) -> None:
    memory = two_mib << 21
    try:
        plan = layout.plan(memory, cpus)
    except BadOption:
        assert memory < 2 * layout.GIB or not 2 <= cpus <= 16
        return
    low_end = 2 * layout.GIB if memory >= layout.Q35_SPLIT_FROM else memory
    ram = [(0, low_end), (layout.FOUR_GIB, layout.FOUR_GIB + memory - low_end)]
    end = 0
    for pool in plan.pools:
        assert pool.base >= end
        end = pool.base + pool.size
        assert any(start <= pool.base and end <= stop for start, stop in ram)
        assert pool.base % (2 * layout.MIB) == 0 == pool.size % (2 * layout.MIB)


@pytest.mark.parametrize("memory", ["2G", "6G"])
@pytest.mark.parametrize("cpus", [2, 3, 4, 8])
def test_config_is_what_the_daemon_reads(memory: str, cpus: int) -> None:
    plan = layout.plan(layout.parse_size(memory), cpus)
    text = layout.vnodes_toml(plan, "/boot/vmlinuz-1", "")
    table = tomllib.loads(text)
    assert table["machine"]["cpus"] == list(plan.cpus)
    read = config.parse(text, Path("/etc/vnode-debug/vnodes.toml"), files=False)
    assert [(span.base, span.size) for span in read.machine.spans] == list(plan.pools)
    assert {vnode.name for vnode in read.vnode} >= {"alpha"}


def test_config_of_the_default_box() -> None:
    text = layout.vnodes_toml(layout.plan(2 * layout.GIB, 4), "/boot/vmlinuz-1", "")
    read = config.parse(text, Path("/etc/vnode-debug/vnodes.toml"), files=False)
    assert [(v.id, v.name, v.cpus, v.autostart) for v in read.vnode] == [
        (1, "alpha", (1,), True),
        (2, "beta", (2,), True),
        (3, "pair", (2, 3), False),
    ]
    assert all(v.inject for v in read.vnode)


def test_debian_goes_to_vnode_1_where_there_is_room() -> None:
    plan = layout.plan(4 * layout.GIB, 4)
    text = layout.vnodes_toml(plan, "/boot/vmlinuz-1", "", debian=True)
    read = config.parse(text, Path("/etc/vnode-debug/vnodes.toml"), files=False)
    assert [(v.id, v.initrd, v.memory) for v in read.vnode] == [
        (1, layout.DEBIAN_INITRD, "768M"),
        (2, layout.INITRD, "256M"),
        (3, layout.INITRD, "256M"),
    ]
    with pytest.raises(BadOption, match="4G"):
        layout.vnodes_toml(layout.plan(2 * layout.GIB, 4), "/boot/vmlinuz-1", "", debian=True)


@pytest.mark.parametrize(
    ("text", "size"), [("2G", 2 << 30), ("512M", 512 << 20), ("7", 7), ("1GiB", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert layout.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1.5G", "2T", "1" * 40])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(BadOption):
        layout.parse_size(text)


@given(st.sets(st.integers(0, 64)))
def test_cpu_list_names_each_cpu_once(cpus: set[int]) -> None:
    named: set[int] = set()
    for part in filter(None, layout.cpu_list(sorted(cpus)).split(",")):
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == cpus
