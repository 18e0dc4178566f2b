# SPDX-License-Identifier: GPL-2.0-or-later
"""The successor's verbs on a fake machine whose root panics, hangs or halts."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from adeos import abi
from adeos.machine import Binding
from adeos.peers import Grant
from crashdump.incident import DumpState
from crashdump.store import IncidentStore
from watchdog import paths

Call = Callable[..., tuple[int, str, str]]
RAM = 0x100000
MESSAGE = "sysrq triggered \x1b[31mcrash"


class Successor:
    """/dev/vnode-peers of the successor, to which no vnode was granted."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.seen = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)

    def grants(self) -> tuple[Grant, ...]:
        return ()

    def query(self, vnode: int) -> Binding | None:
        return None

    def info(self) -> abi.RootInfo:
        found: abi.RootInfo = self.machine.info()
        return found._replace(owner_pid=0, root_pa=found.root_pa if self.seen else 0)


@pytest.fixture
def successor(world: Any) -> Successor:
    world.machine.add_root_ram(RAM, memoryview(bytearray(1 << 20)))
    world.machine.successor(1)
    world.machine.root_beat()
    return Successor(world.machine)


@pytest.fixture
def call(call: Call, successor: Successor) -> Call:
    return partial(call, machine=successor)


def rows(call: Call) -> list[dict[str, Any]]:
    code, out, _ = call("status", "--json")
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_status_shows_the_root_and_all_vnodes(call: Call, successor: Successor) -> None:
    root, alpha, beta = rows(call)
    assert (root["id"], root["state"]) == (0, "watching")
    assert (alpha["name"], beta["name"], beta["restarts"]) == ("alpha", "beta", 3)
    successor.machine.root_ends(abi.LastState.PANIC, MESSAGE)
    root = rows(call)[0]
    assert root["state"] == "crashed"
    assert "triggered" in root["reason"]
    code, out, err = call("status")
    assert (code, "attach 0" in err, "\x1b" in out) == (0, True, False)


def test_a_silent_kernel_and_an_orderly_end_have_words_of_their_own(
    call: Call, successor: Successor, world: Any
) -> None:
    world.clock.advance(1.5)
    assert rows(call)[0]["state"] == "silent"
    successor.machine.root_ends(abi.LastState.HALTED)
    assert rows(call)[0]["state"] == "halted"


def test_a_panic_becomes_an_incident_with_the_memory_in_place(
    call: Call, successor: Successor
) -> None:
    successor.machine.root_ends(abi.LastState.PANIC, MESSAGE)
    code, out, _ = call("successor", "--json")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [one["event"] for one in events] == ["watching", "panic", "not analysed"]
    with IncidentStore(paths.state_dir(), read_only=True) as store:
        (incident,) = store.list()
    assert (incident.vnode, incident.reason, incident.comm) == (0, "panic", "bash")
    assert "triggered" in incident.message and "\x1b" not in incident.message
    assert incident.dump.state is DumpState.HELD
    assert [(one.base, one.size) for one in incident.dump.extents] == [(RAM, 1 << 20)]
    assert "attach 0" in incident.dump.reason


def test_the_same_end_is_recorded_once(call: Call, successor: Successor) -> None:
    successor.machine.root_ends(abi.LastState.PANIC, MESSAGE)
    call("successor")
    code, out, _ = call("successor")
    assert (code, "since earlier" in out) == (0, True)
    with IncidentStore(paths.state_dir(), read_only=True) as store:
        assert len(store.list()) == 1


def test_the_held_memory_is_written_when_asked(call: Call, successor: Successor) -> None:
    """Without a kernel in it, it is raw memory, which the remark says."""
    from adeos.bridge import RootBridge
    from crashdump import root

    successor.machine.root_ends(abi.LastState.PANIC, MESSAGE)
    now = root.look(successor)  # type: ignore[arg-type]
    assert RootBridge.open(successor).last() == now.last  # type: ignore[arg-type]
    with IncidentStore(paths.private_dir(paths.state_dir())) as store:
        incident = root.record(store, successor, now, "panic")  # type: ignore[arg-type]
        dump = root.write(store, incident.id, successor).dump  # type: ignore[arg-type]
        assert dump.state is DumpState.DONE
        assert (store.path(incident.id) / dump.path).stat().st_size > 1 << 20


def test_a_halt_is_no_crash(call: Call, successor: Successor) -> None:
    successor.machine.root_ends(abi.LastState.HALTED)
    code, out, _ = call("successor")
    assert (code, "halt" in out) == (0, True)
    with IncidentStore(paths.state_dir(), read_only=True) as store:
        (incident,) = store.list()
    assert not incident.crash


@pytest.mark.parametrize("words", [("attach", "0"), ("drgn", "-e", "1", "0"), ("log", "0")])
def test_memory_without_a_kernel_is_said(call: Call, words: tuple[str, ...]) -> None:
    code, _, err = call(*words)
    assert code != 0
    assert err.count("\n") == 1 and "root" in err


def test_the_root_is_never_stopped(call: Call) -> None:
    code, _, err = call("attach", "--stop", "0")
    assert (code, "never stopped" in err) == (1, True)
    assert call("log", "-f", "0")[0] == 2


def test_elsewhere_the_root_is_not_seen(call: Call, successor: Successor) -> None:
    successor.seen = False
    for words in (("attach", "0"), ("log", "0"), ("successor",)):
        code, _, err = call(*words)
        assert (code, err.count("\n")) == (4, 1), err
        assert "successor" in err
