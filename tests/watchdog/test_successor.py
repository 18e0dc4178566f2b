# SPDX-License-Identifier: GPL-2.0-or-later
"""Who succeeds the root, and what that vnode concludes from what it sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adeos import abi
from adeos.bridge import Bridge
from adeos.errors import PlacementError
from watchdog import config
from watchdog.errors import ConfigError
from watchdog.successor import Lookout, Verdict

Rig = Any
BLANK = abi.LAST.unpack(bytes(abi.LAST.size))


def look_over(lookout: Lookout, beats: list[tuple[float, int]]) -> list[tuple[float, Verdict]]:
    """The verdicts of looks at (time, beat)."""
    found = [(at, lookout.look(BLANK._replace(beat=beat), at)) for at, beat in beats]
    return [(at, verdict) for at, verdict in found if verdict is not None]


def steady(start: float, count: int) -> list[float]:
    return [start + n / 10 for n in range(count)]


def test_a_root_that_beats_is_left_alone() -> None:
    beats = [(at, n) for n, at in enumerate(steady(5.0, 100))]
    assert look_over(Lookout(), beats) == []


def test_silence_of_a_second_is_a_hang_told_once() -> None:
    beats = [(at, 7) for at in steady(5.0, 60)]
    ((at, verdict),) = look_over(Lookout(), beats)
    assert verdict is Verdict.HANG
    assert 5.9 < at < 6.2


def test_a_root_that_beats_again_is_back_and_may_hang_again() -> None:
    lookout = Lookout()
    beats = [(at, 7) for at in steady(0.0, 20)] + [(2.1, 8)] + [(at, 8) for at in steady(2.2, 20)]
    assert [verdict for _, verdict in look_over(lookout, beats)] == [
        Verdict.HANG,
        Verdict.BACK,
        Verdict.HANG,
    ]


def test_a_late_successor_blames_nobody() -> None:
    lookout = Lookout()
    assert look_over(lookout, [(0.0, 7), (0.1, 7), (30.0, 7), (60.0, 7), (60.1, 8)]) == []
    assert lookout.late == 2


@pytest.mark.parametrize(
    ("state", "verdict"),
    [(abi.LastState.PANIC, Verdict.PANIC), (abi.LastState.HALTED, Verdict.HALT)],
)
def test_what_the_root_says_itself_is_taken_at_once(state: abi.LastState, verdict: Verdict) -> None:
    lookout = Lookout()
    assert lookout.look(BLANK, 0.0) is None
    assert lookout.look(BLANK._replace(state=state), 0.1) is verdict
    assert lookout.look(BLANK._replace(state=state), 0.2) is None


# The daemon's part


def root_pa_told(rig: Rig, vnode: int) -> int:
    bridge = Bridge.open(rig.machine, rig.machine.query(vnode).region)
    return int(abi.GRANTS.get(bridge.view, abi.VN_BR_GRANTS, "root_pa"))


@pytest.fixture
def succeeded(make_rig: Callable[..., Rig], rig_tools: Any) -> Rig:
    """Two vnodes, "two" the root's successor."""
    text = '[machine]\nsuccessor = "two"\n'
    text += rig_tools.vnode_text(1, "one", [1]) + rig_tools.vnode_text(2, "two", [2])
    rig = make_rig(text).start()
    rig.wait(1)
    rig.wait(2)
    return rig


def test_the_successor_alone_is_told_where_the_root_is(succeeded: Rig) -> None:
    assert succeeded.machine.last().successor == 2
    pa = succeeded.machine.info().root_pa
    succeeded.until(lambda: root_pa_told(succeeded, 2) == pa, "the successor is told")
    assert root_pa_told(succeeded, 1) == 0


def test_it_is_told_again_after_its_restart(succeeded: Rig) -> None:
    succeeded.client.call("restart", vnode=2)
    succeeded.wait(2, incarnation=2)
    pa = succeeded.machine.info().root_pa
    succeeded.until(lambda: root_pa_told(succeeded, 2) == pa, "the new incarnation is told")


def test_a_reload_names_another_or_none(succeeded: Rig) -> None:
    text = succeeded.config.read_text()
    succeeded.config.write_text(text.replace('successor = "two"', 'successor = "1"'))
    reply = succeeded.client.call("reload")
    assert "[machine] successor" in reply["applied"]
    assert succeeded.machine.last().successor == 1
    assert root_pa_told(succeeded, 1) == succeeded.machine.info().root_pa
    assert root_pa_told(succeeded, 2) == 0
    succeeded.config.write_text(text.replace('successor = "two"', ""))
    succeeded.client.call("reload")
    assert succeeded.machine.last().successor == 0
    assert root_pa_told(succeeded, 1) == 0


def test_a_kmb_that_cannot_costs_the_succession_alone(
    make_rig: Callable[..., Rig], rig_tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PlacementError("kmb.ko does not know this command")

    monkeypatch.setattr("adeos.fake.FakeMachine.successor", refuse)
    rig = make_rig('[machine]\nsuccessor = "one"\n' + rig_tools.vnode_text(1, "one", [1])).start()
    rig.wait(1)
    assert root_pa_told(rig, 1) == 0


def test_an_unknown_successor_is_a_mistake(rig_tools: Any) -> None:
    text = '[machine]\nsuccessor = "nobody"\n' + rig_tools.vnode_text(1, "one", [1])
    with pytest.raises(ConfigError) as caught:
        config.parse(text, Path("/x.toml"), files=False)
    assert "/x.toml:2" in str(caught.value)
    assert 'there is no vnode "nobody"' in str(caught.value)
