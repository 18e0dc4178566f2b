# SPDX-License-Identifier: GPL-2.0-or-later
"""What a vnode's bridge says of the vnodes that it may look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adeos import abi
from adeos.bridge import Bridge
from watchdog import config
from watchdog.client import CommandError
from watchdog.errors import ConfigError

Rig = Any


def granted(rig: Rig, holder: int) -> dict[int, tuple[abi.Grant, abi.Status]]:
    """By vnode, as the holder's agent reads it."""
    bridge = Bridge.open(rig.machine, rig.machine.query(holder).region)
    table = abi.GRANTS.unpack(bridge.view, abi.VN_BR_GRANTS)
    assert table.seq % 2 == 0
    pairs = list(zip(table.grant, table.status, strict=True))[: table.n]
    return {status.id: (grant, status) for grant, status in pairs}


def refused(rig: Rig, verb: str, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(CommandError) as caught:
        rig.client.call(verb, **arguments)
    return caught.value.exit_code, str(caught.value)


def test_a_grant_tells_where_the_vnode_is(rig: Rig) -> None:
    reply = rig.client.call("grant", vnode="two", to=1)
    assert (reply["id"], reply["grants"], reply["taken"]) == (1, [2], True)
    grant, status = granted(rig, 1)[2]
    binding = rig.machine.query(2)
    assert (status.name, status.state, status.incarnation) == ("two", abi.StatusState.RUNNING, 1)
    assert (status.region_base, status.region_size) == tuple(binding.region)
    assert (status.slot_base, status.slot_size) == tuple(binding.slot)
    assert (grant.started, grant.start_tsc) == (binding.started, binding.start_tsc)
    assert granted(rig, 2) == {}


def test_a_restart_of_the_vnode_is_told(rig: Rig) -> None:
    rig.client.call("grant", vnode=2, to=1)
    before = granted(rig, 1)[2]
    rig.client.call("restart", vnode=2)
    rig.wait(2, incarnation=2)
    rig.until(lambda: granted(rig, 1)[2][1].incarnation == 2, "the new incarnation is told")
    grant, status = granted(rig, 1)[2]
    assert grant.start_tsc > before[0].start_tsc
    assert (status.region_base, status.region_size) == tuple(rig.machine.query(2).region)


def test_a_restarted_holder_has_its_grants_again(rig: Rig) -> None:
    rig.client.call("grant", vnode=2, to=1)
    rig.client.call("restart", vnode=1)
    rig.wait(1, incarnation=2)
    rig.until(lambda: set(granted(rig, 1)) == {2}, "the table is written anew")


def test_a_stopped_vnode_has_no_memory(rig: Rig) -> None:
    rig.client.call("grant", vnode=2, to=1)
    rig.client.call("stop", vnode=2)
    rig.until(lambda: rig.machine.query(2) is None, "vnode 2 is released")
    rig.until(lambda: granted(rig, 1)[2][1].region_size == 0, "the holder is told")
    grant, status = granted(rig, 1)[2]
    assert (grant.started, status.slot_size) == (0, 0)
    assert status.state is abi.StatusState.STOPPED


def test_an_agent_that_does_not_hear_is_told_of(rig: Rig) -> None:
    rig.machine.vnodes[1].deaf = True
    assert rig.client.call("grant", vnode=2, to=1)["taken"] is False


def test_revoke_empties_the_table(rig: Rig) -> None:
    rig.client.call("grant", vnode=2, to=1)
    assert rig.client.call("revoke", vnode=2, **{"from": "one"})["grants"] == []
    assert granted(rig, 1) == {}
    code, text = refused(rig, "revoke", vnode=2, **{"from": 1})
    assert code == 6
    assert text == 'vnode 1 "one" was not granted vnode 2 "two"'


@pytest.mark.parametrize(
    ("vnode", "to", "code"),
    [(9, 1, 4), (2, 9, 4), (2, None, 4), (2, 2, 2), (0, 1, 2), (2, "root", 2)],
)
def test_grants_that_make_no_sense(rig: Rig, vnode: object, to: object, code: int) -> None:
    assert refused(rig, "grant", vnode=vnode, to=to)[0] == code
    assert granted(rig, 1) == granted(rig, 2) == {}


def test_a_later_daemon_keeps_what_was_granted(rig: Rig) -> None:
    rig.client.call("grant", vnode=2, to=1)
    rig.kill()
    rig.start()
    assert set(granted(rig, 1)) == {2}
    assert rig.client.call("revoke", vnode=2, **{"from": 1})["grants"] == []


def test_grants_of_the_config(make_rig: Callable[..., Rig], rig_tools: Any) -> None:
    one = rig_tools.vnode_text(1, "one", [1]).replace(
        "inject = true", "inject = true\ngrants = [{ vnode = 2 }]"
    )
    rig = make_rig(one + rig_tools.vnode_text(2, "two", [2])).start()
    rig.wait(1)
    rig.wait(2)
    rig.until(lambda: set(granted(rig, 1)) == {2}, "what the config grants is written")


@pytest.mark.parametrize(
    ("grants", "what"),
    [
        ("[{ vnode = 1 }]", "1 is the vnode itself"),
        ("[{ vnode = 7 }]", "there is no vnode 7"),
        ("[{ vnode = 2 }, { vnode = 2 }]", "vnode 2 is granted twice"),
        ("[2]", "is no table"),
        ("[{}]", "missing"),
    ],
)
def test_wrong_grants_in_the_config(grants: str, what: str, rig_tools: Any) -> None:
    one = rig_tools.vnode_text(1, "one", [1]).replace(
        "inject = true", f"inject = true\ngrants = {grants}"
    )
    with pytest.raises(ConfigError) as caught:
        config.parse(one + rig_tools.vnode_text(2, "two", [2]), Path("/x.toml"), files=False)
    assert what in str(caught.value)
    assert str(caught.value).startswith("/x.toml:")
