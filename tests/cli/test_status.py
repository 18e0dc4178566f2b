# SPDX-License-Identifier: GPL-2.0-or-later
"""status: what shared memory shows, with a daemon, without one, and with hostile vnodes."""

import json

import pytest

from adeos import abi
from adeos.abi import Layer
from cli import observe
from cli.status import beats, cells, remark_on


def looks(world, seconds=1.0, happening=lambda: None):
    """Rows of two samples so far apart."""
    before = observe.take(world.machine)
    happening()
    world.clock.advance(seconds)
    return {row.id: row for row in observe.describe(before, observe.take(world.machine))}


def test_table_lists_the_root_and_the_vnodes(call, world):
    result = call("status", world=world)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split()[:4] == ["ID", "NAME", "STATE", "REASON"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["0", "root", "watching"],
        ["1", "alpha", "running"],
        ["2", "beta", "running"],
    ]
    assert lines[3].split()[-6:] == ["3", "cold", "-", "9", "2", "64M"]
    assert result.err == ""


def test_json_is_a_list_with_the_same_facts(call, world):
    rows = json.loads(call("status", "--json", world=world).out)
    assert [row["name"] for row in rows] == ["root", "alpha", "beta"]
    assert rows[2]["restarts"] == 3
    assert rows[2]["last_incident"] == 9
    assert rows[2]["cpus"] == [2]
    assert rows[2]["memory"] == 64 << 20
    assert rows[1]["release"] == "6.1.0-fake"
    assert set(rows[1]["beats"][0]) == {"irq", "sched", "user"}


def test_json_is_an_empty_list_when_no_daemon_ever_ran(call, world):
    world.root.view[:64] = bytes(64)
    result = call("status", "--json", world=world)
    assert (result.code, json.loads(result.out)) == (0, [])


def test_rates_are_those_between_the_samples(world):
    vnode = world.machine.vnodes[1]
    vnode.beat()

    def a_second_of_beats():
        for _ in range(100):
            world.clock.advance(0.01)
            vnode.beat()

    row = looks(world, 0.0, a_second_of_beats)[1]
    assert row.beats[0]["irq"].rate_hz == pytest.approx(100)
    assert beats(row) == "100/100/100"


def test_a_hung_layer_shows_a_rate_of_zero(world):
    vnode = world.machine.vnodes[1]
    vnode.beat()
    vnode.hang(Layer.SCHED)

    def beat_on():
        for _ in range(10):
            world.clock.advance(0.1)
            vnode.beat()

    row = looks(world, 0.0, beat_on)[1]
    assert beats(row) == "10/0/0"
    assert row.beats[0]["user"].age_s == pytest.approx(1.0)


def test_counters_that_run_backwards_have_no_rate(world):
    vnode = world.machine.vnodes[1]
    vnode.beat(5)

    def go_back():
        at = abi.VN_BR_BEATS
        vnode.view[at : at + abi.BEAT.size] = abi.BEAT.pack(
            abi.Beat((1, 1, 1, 0), (1 << 63, 1, 1, 0))
        )

    row = looks(world, 1.0, go_back)[1]
    assert beats(row) == "?/?/?"
    assert row.beats[0]["irq"].age_s is None


@pytest.mark.parametrize("seed", range(20))
def test_a_scribbled_bridge_spoils_only_its_own_row(world, seed):
    rows = looks(world, 1.0, lambda: world.machine.vnodes[1].scribble(seed))
    assert rows[2].state == "running"
    assert all(text.isprintable() for text in cells(rows[1]))


def test_a_dead_daemon_is_told_with_the_age_of_its_last_beat(call, world):
    world.clock.advance(75)
    world.machine.close()
    result = call("status", world=world)
    assert "unwatched" in result.out
    assert "the daemon is dead, its last beat was 1m15s ago" in result.err
    assert len(result.err.splitlines()) == 1
    assert call("-q", "status", world=world).err == ""


def test_a_daemon_that_lives_and_does_not_tick_is_late(call, world):
    world.clock.advance(75)
    result = call("status", world=world)
    assert "late" in result.out
    assert "the daemon's last beat was 1m15s ago" in result.err
    assert len(result.err.splitlines()) == 1


def test_a_machine_nobody_owns_is_unwatched_however_fresh_the_beat(world):
    world.machine.close()
    rows = looks(world, 0.001)
    assert rows[0].state == "unwatched"
    assert "dead" in remark_on(list(rows.values()))


def test_a_name_full_of_escapes_is_harmless(call, world):
    status = world.root.status(1)
    world.root.publish(status._replace(reason="\x1b[2J\x1b]0;owned\x07"))
    result = call("status", world=world)
    assert "\x1b" not in result.out
    assert "\x07" not in result.out


def test_without_a_machine_one_line_says_what_to_do(call):
    result = call("status")
    assert (result.code, result.out) == (5, "")
    assert "vnode-debug box up" in result.err
    assert len(result.err.splitlines()) == 1
