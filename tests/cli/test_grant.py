# SPDX-License-Identifier: GPL-2.0-or-later
"""grant and revoke on the root, with the real daemon; and what a vnode then sees of another."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adeos import abi
from adeos.machine import Binding
from adeos.peers import Grant
from debugger.cpus import Hold
from debugger.sources import memory_of
from introspect.errors import MemoryFault

RIG = runpy.run_path(str(Path(__file__).parents[1] / "watchdog" / "conftest.py"))
Call = Callable[..., tuple[int, str, str]]


class PeerMachine:
    """/dev/vnode-peers of vnode 1 of a fake machine: what stands in its bridge, as the agent does.

    Limit: what was mapped stays readable, where the agent lets it read as zeros.
    """

    def __init__(self, machine: Any) -> None:
        self.machine = machine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)

    def grants(self) -> tuple[Grant, ...]:
        region = self.machine.query(1).region
        view = self.machine.view(region.base + abi.VN_OFF_BRIDGE, abi.VN_BRIDGE_SIZE)
        table = abi.GRANTS.unpack(view, abi.VN_BR_GRANTS)
        return tuple(zip(table.grant, table.status, strict=True))[: table.n]

    def query(self, vnode: int) -> Binding | None:
        seen = {s.id for _, s in self.grants() if s.region_size}
        return self.machine.query(vnode) if vnode in seen else None

    def info(self) -> abi.RootInfo:
        return self.machine.info()._replace(root_pa=0)


@pytest.fixture
def rig(places: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    text = RIG["vnode_text"](1, "one", [1]) + RIG["vnode_text"](2, "two", [2, 3])
    monkeypatch.setattr("watchdog.log.write", lambda *_, **__: None)  # it shares our stderr
    made = RIG["Rig"](places, RIG["LastingMachine"](), text)
    made.start()
    made.wait(1)
    made.wait(2)
    yield made
    made.close()


@pytest.fixture
def root(rig: Any, call: Call) -> Call:
    return partial(call, machine=rig.machine)


@pytest.fixture
def vnode(rig: Any, call: Call) -> Call:
    return partial(call, machine=PeerMachine(rig.machine))


def test_grant_and_revoke(root: Call) -> None:
    assert root("grant", "two", "--to", "1") == (0, "vnode 1 (one) may look at vnode 2 (two)\n", "")
    rows = {row["id"]: row["grants"] for row in json.loads(root("status", "--json")[1])}
    assert rows == {0: [], 1: [2], 2: []}
    assert root("revoke", "2", "--from", "one")[1] == (
        "vnode 1 (one) may no longer look at vnode 2 (two)\n"
    )
    rows = {row["id"]: row["grants"] for row in json.loads(root("status", "--json")[1])}
    assert rows[1] == []


def test_grant_as_json(root: Call) -> None:
    code, out, err = root("grant", "2", "--to", "1", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["id"], found["grants"], found["taken"]) == (1, [2], True)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("grant", "9", "--to", "1"), 4, "there is no vnode 9"),
        (("grant", "2", "--to", "nine"), 4, "there is no vnode nine"),
        (("grant", "2", "--to", "2"), 2, "sees its own memory anyway"),
        (("grant", "0", "--to", "1"), 2, "the root sees every vnode"),
        (("grant", "2"), 2, "--to"),
        (("revoke", "2", "--from", "1"), 6, "was not granted"),
    ],
)
def test_refusals_are_one_line(root: Call, words: tuple[str, ...], code: int, text: str) -> None:
    found, out, err = root(*words)
    assert (found, out) == (code, "")
    assert text in err
    assert len(err.splitlines()) == 1


def test_a_vnode_sees_only_what_it_was_granted(root: Call, vnode: Call) -> None:
    code, out, err = vnode("status", "--json")
    assert (code, json.loads(out)) == (0, [])
    code, out, err = vnode("status")
    assert "the root has granted no vnode to this one" in err
    code, out, err = vnode("attach", "2")
    assert (code, out) == (4, "")
    assert "vnode 2 is not granted to this vnode; granted: none" in err
    root("grant", "2", "--to", "1")
    code, out, err = vnode("status", "--json")
    (row,) = json.loads(out)
    assert (row["id"], row["name"], row["state"]) == (2, "two", "running")
    assert row["beats"][0]["irq"]["beats"] > 0
    code, out, err = vnode("log", "1")
    assert code == 4
    assert "vnode 1 is not granted to this vnode; granted: 2 (two)" in err


def test_a_vnode_does_not_stop_another(root: Call, vnode: Call) -> None:
    root("grant", "2", "--to", "1")
    code, out, err = vnode("attach", "--stop", "2")
    assert (code, out) == (1, "")
    assert "may look at it, not stop it" in err
    assert len(err.splitlines()) == 1


def test_granted_memory_is_gone_with_the_grant(rig: Any, root: Call) -> None:
    root("grant", "2", "--to", "1")
    machine: Any = PeerMachine(rig.machine)
    binding = machine.query(2)
    memory = memory_of(machine, binding)
    start = binding.region.base + abi.VN_OFF_BRIDGE
    assert int.from_bytes(memory.read(start, 8), "little") == abi.VN_BRIDGE_MAGIC
    root("revoke", "2", "--from", "1")
    with pytest.raises(MemoryFault):
        memory.read(start, 8)
    assert memory.view(start, 8) is None
    root("grant", "2", "--to", "1")
    assert memory.read(start, 8)
    root("restart", "2", "--wait")
    with pytest.raises(MemoryFault):
        memory.read(start, 8)


def test_an_attached_debugger_is_told(rig: Any, root: Call) -> None:
    from adeos.bridge import Bridge
    from debugger.cpus import BridgeCpus
    from debugger.sources import holder

    root("grant", "2", "--to", "1")
    machine: Any = PeerMachine(rig.machine)
    binding = machine.query(2)
    cpus = BridgeCpus(Bridge.open(machine, binding.region), holder(machine, binding))
    assert cpus.change() is None
    root("restart", "2", "--wait")
    change = cpus.change()
    assert change is not None and change.gone
    assert change.text == "started again: detach and attach again"
    root("revoke", "2", "--from", "1")
    change = cpus.change()
    assert change is not None and change.gone
    assert "took the grant back" in change.text
    assert holder(machine, binding)() is Hold.TAKEN
