# SPDX-License-Identifier: GPL-2.0-or-later
"""The overview by keys: rows, order, filter, marks, and what a dead daemon looks like."""

import asyncio

import pytest

from adeos import abi
from adeos.abi import Layer
from tests.tui.conftest import shows, text_of, until
from tui.widgets.grid import Grid


def run(work):
    asyncio.run(work())


def names(pilot):
    """The names in the order of the rows."""
    return [row.pieces[1].text for row in pilot.app.screen.query_one(Grid).rows]


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (300, 100), (40, 10)])
def test_a_row_for_the_root_and_each_vnode_at_every_size(bench, size):
    async def work():
        bench.incident(2, "first")
        bench.incident(2, "Kernel panic: sysrq triggered crash")
        async with bench.open(size) as pilot:
            bench.beat(2)
            text = await shows(pilot, "root", "alpha", "● running", "beta")
            assert all(len(line) <= size[0] for line in text.splitlines())
            if size[0] >= 80:
                await shows(pilot, "10/10/10", "ok", "2 Kernel pa", "● watching: daemon 4711")
            if size[0] >= 160:
                await shows(pilot, "16M/64M", "25%", "█")

    run(work)


def test_a_state_has_a_mark_a_word_and_a_reason(bench):
    async def work():
        async with bench.open((120, 24)) as pilot:
            bench.change(2, state=abi.StatusState.CRASHED, reason="panic")
            await shows(pilot, "✖ crashed", "panic", "1 crashed")
            bench.change(2, state=abi.StatusState.QUARANTINED, reason="budget")
            await shows(pilot, "⛌ quarantined", "budget")
            bench.change(2, state=abi.StatusState.RUNNING, reason="", incarnation=5)
            await until(lambda: text_of(pilot).count("● running") == 2, "it runs again")

    run(work)


def test_a_hung_layer_nears_its_limit_and_passes_it(bench):
    async def work():
        async with bench.open() as pilot:
            bench.beat(1)
            bench.world.machine.vnodes[1].hang(Layer.SCHED)
            bench.beat(0.3)
            bench.beat(0.6)
            await shows(pilot, "sched over")

    run(work)


def test_a_debugger_that_holds_a_vnode_is_named(bench):
    async def work():
        async with bench.open((200, 24)) as pilot:
            bench.world.machine.control(1, 30_000)
            await shows(pilot, "pid ", "30 s")
            bench.world.machine.release(1)
            await until(lambda: "pid " not in text_of(pilot), "it is released")

    run(work)


def test_a_dead_daemon_is_told_and_beats_are_read_on(bench):
    async def work():
        async with bench.open((100, 24)) as pilot:
            await shows(pilot, "● watching")
            bench.world.machine.foreign_owner = 0
            bench.world.machine._claimed = False  # as when its process is gone
            await shows(pilot, "the daemon is dead", "✖ unwatched")
            for _ in range(20):
                bench.world.clock.advance(0.1)
                bench.world.machine.vnodes[1].beat()
            await shows(pilot, "10/10/10")

    run(work)


def test_a_daemon_that_comes_back_takes_the_banner_away(bench):
    async def work():
        async with bench.open((100, 24)) as pilot:
            bench.world.clock.advance(75)
            await shows(pilot, "last beat was 75 s ago", "late")
            bench.world.tick()
            await until(lambda: "75 s ago" not in text_of(pilot), "the banner goes")

    run(work)


def test_a_machine_that_no_daemon_ever_took(bench):
    async def work():
        bench.world.root.view[:64] = bytes(64)
        async with bench.open() as pilot:
            await shows(pilot, "no daemon has run", "vnode-debug up")

    run(work)


def test_sorting_by_the_next_column_and_the_other_way_round(bench):
    async def work():
        async with bench.open() as pilot:
            assert names(pilot) == ["root", "alpha", "beta"]
            await pilot.press("r")
            assert names(pilot) == ["beta", "alpha", "root"]
            await pilot.press("s")  # by name
            assert names(pilot) == ["alpha", "beta", "root"]
            await shows(pilot, "NAME▴")
            await pilot.click(Grid, offset=(3, 0))  # on the head of ID
            assert names(pilot) == ["root", "alpha", "beta"]

    run(work)


def test_a_filter_narrows_and_an_exclamation_mark_inverts_it(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("slash", *"beta")
            await until(lambda: names(pilot) == ["beta"], "filtered while it is typed")
            await pilot.press("enter")
            await shows(pilot, "beta")
            await pilot.press("slash", "home", "exclamation_mark", "enter")
            await until(lambda: names(pilot) == ["root", "alpha"], "inverted")
            await pilot.press("slash", "escape")
            await until(lambda: len(names(pilot)) == 3, "no filter")

    run(work)


def test_marks_gather_vnodes_for_one_action(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("down", "space", "space")
            await shows(pilot, "▪")
            assert pilot.app.screen.query_one(Grid).chosen == ["1", "2"]
            await pilot.press("D")
            await shows(pilot, "dump vnode 1 (alpha), 2 (beta)?", "y does it")
            await pilot.press("y")
            await until(lambda: len(bench.daemon.asked) == 2, "both are asked for")
            assert [words["vnode"] for _, words in bench.daemon.asked] == [1, 2]
            await pilot.press("asterisk")
            assert len(pilot.app.screen.query_one(Grid).marks) == 3
            await pilot.press("asterisk")
            assert not pilot.app.screen.query_one(Grid).marks

    run(work)


def test_a_click_chooses_and_a_second_one_opens(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.click(Grid, offset=(8, 3))
            assert pilot.app.screen.query_one(Grid).cursor_key == "2"
            await pilot.click(Grid, offset=(8, 3), times=2)
            await shows(pilot, "vnode 2 (beta)")
            await pilot.press("escape")
            await shows(pilot, "alpha")

    run(work)


def test_the_cursor_stays_on_its_vnode_when_the_order_changes(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("down", "down", "r")
            grid = pilot.app.screen.query_one(Grid)
            assert grid.cursor_key == "2"
            bench.world.vnode(3, "gamma")
            await shows(pilot, "gamma")
            assert grid.cursor_key == "2"

    run(work)


def test_only_lines_that_changed_are_drawn_again(bench):
    async def work():
        async with bench.open() as pilot:
            await shows(pilot, "alpha")
            grid = pilot.app.screen.query_one(Grid)
            await asyncio.sleep(1.2)  # the recorder's first points are in
            drawn = []
            plain = grid.render_line
            grid.render_line = lambda y: drawn.append(y) or plain(y)
            await asyncio.sleep(0.5)
            assert drawn == []
            bench.change(2, restarts=4, state=abi.StatusState.SUSPECT)
            await until(lambda: drawn, "a line is drawn")
            assert set(drawn) == {3}

    run(work)
