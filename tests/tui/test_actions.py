# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions by keys: what is asked of the daemon, the blast radius, the terminal handed over."""

import asyncio
from contextlib import nullcontext

import pytest

from adeos import abi
from tests.tui.conftest import shows, text_of, until
from tui.actions import ACTIONS, Reach, blast_radius, needs_answer
from watchdog.client import CommandError


def run(work):
    asyncio.run(work())


ASKED = [
    ("S", "start", {}),
    ("X", "stop", {}),
    ("R", "restart", {}),
    ("F", "fence", {}),
    ("I", "stage", {"timeout": 3600.0}),
    ("D", "dump", {"timeout": 3600.0}),
    ("N", "registers", {}),
    ("P", "inject", {"kind": "panic"}),
]
HANDED = [
    ("g", ["vnode-debug", "attach", "--read-only", "1"], False),
    ("G", ["vnode-debug", "attach", "--stop", "1"], True),
    ("d", ["vnode-debug", "drgn", "1"], False),
    ("c", ["vnode-debug", "console", "1"], False),
]


@pytest.mark.parametrize(("key", "verb", "arguments"), ASKED, ids=lambda v: str(v)[:10])
def test_an_action_is_asked_of_the_daemon_once_it_is_confirmed(bench, key, verb, arguments):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("down", key)
            await shows(pilot, "vnode 1 (alpha)?", "y does it")
            await pilot.press("n")
            await until(lambda: "y does it" not in text_of(pilot), "no")
            assert bench.daemon.asked == []
            await pilot.press(key, "y")
            await until(lambda: bench.daemon.asked, "the daemon is asked")
            assert bench.daemon.asked == [(verb, {"vnode": 1, **arguments})]
            await shows(pilot, "restarting")

    run(work)


@pytest.mark.parametrize(("key", "argv", "confirmed"), HANDED, ids=lambda v: str(v)[:12])
def test_a_program_gets_the_terminal_and_the_dashboard_comes_back(bench, key, argv, confirmed):
    async def work():
        async with bench.open() as pilot:
            pilot.app.suspend = nullcontext
            await pilot.press("down", key)
            if confirmed:
                await shows(pilot, "stand still", "deadlines (irq 0.3 s, sched 0.45 s, user 1 s)")
                await pilot.press("y")
            await until(lambda: bench.children, "the program ran")
            assert bench.children == [argv]
            await shows(pilot, "alpha", "● running")

    run(work)


def test_gdb_on_marked_vnodes_is_one_gdb(bench):
    async def work():
        async with bench.open() as pilot:
            pilot.app.suspend = nullcontext
            await pilot.press("down", "space", "space", "g")
            assert bench.children == [["vnode-debug", "attach", "--read-only", "1", "2"]]

    run(work)


def test_a_program_that_fails_is_told(bench):
    async def work():
        bench.child_code = 4
        async with bench.open() as pilot:
            pilot.app.suspend = nullcontext
            await pilot.press("down", "g")
            await shows(pilot, "vnode-debug attach: exit code 4")

    run(work)


def test_where_no_terminal_can_be_handed_over_that_is_said(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("down", "g")
            await shows(pilot, "this needs a terminal")
            assert bench.children == []

    run(work)


def test_readonly_asks_nothing_and_looks_still(bench):
    async def work():
        async with bench.open(readonly=True) as pilot:
            pilot.app.suspend = nullcontext
            await pilot.press("down", *"SXRDNPG")
            await shows(pilot, "this dashboard is read-only")
            assert bench.daemon.asked == []
            assert bench.children == []
            await pilot.press("g", "c")
            assert bench.children == [
                ["vnode-debug", "attach", "--read-only", "1"],
                ["vnode-debug", "console", "--no-input", "1"],
            ]

    run(work)


def test_the_root_is_no_vnode(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("home", "R")
            await shows(pilot, "the root is no vnode")

    run(work)


@pytest.mark.parametrize("what", ["dead", "refused", "broken"])
def test_a_daemon_that_does_not_do_it_says_why_in_one_line(bench, what):
    async def work():
        bench.daemon.dead = what == "dead"
        bench.daemon.error = {
            "refused": CommandError("alpha is held\x1b[2J [red]by[/red] 7", 6),
            "broken": RuntimeError("boom"),
        }.get(what)
        wanted = {
            "dead": "no daemon at",
            "refused": "[red]by[/red]",
            "broken": "RuntimeError",
        }[what]
        async with bench.open() as pilot:
            await pilot.press("down", "X", "y")
            await shows(pilot, wanted, "alpha")

    run(work)


def test_the_palette_does_what_keys_do(bench):
    async def work():
        async with bench.open((100, 30)) as pilot:
            await pilot.press("down", "ctrl+p")
            await pilot.press(*"restart")
            await shows(pilot, "key R")
            await pilot.press("enter", "enter")
            await shows(pilot, "restart vnode 1 (alpha)?")

    run(work)


def test_who_else_is_hit_is_told(bench):
    bench.change(2, grants=1 << 1)
    bench.world.machine.control(1, 30_000)
    look = bench.client().look()
    vnode = look.vnode(1)
    for action in ACTIONS.values():
        lines = blast_radius(action, vnode, look)
        assert all(lines) and (lines or not needs_answer(action))
        if action.reach is Reach.ENDS:
            text = "\n".join(lines)
            assert "every program on it" in text
            assert "vnode 2 (beta), which may look at it, loses sight of it" in text
            assert "controls it now, with a debugger" in text
    bench.change(1, state=abi.StatusState.STOPPED)
    look = bench.client().look()
    assert blast_radius(ACTIONS["stop"], look.vnode(1), look)[0].endswith("nothing runs on it")
