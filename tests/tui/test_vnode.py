# SPDX-License-Identifier: GPL-2.0-or-later
"""The vnode screen by keys: each pane, what can be done in it, and what a vnode does meanwhile."""

import asyncio

import pytest

from tests.tui.conftest import record, shows, task, text_of, until
from tui.panes.tasks import tree_order
from tui.widgets.lines import Lines

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def run(work):
    asyncio.run(work())


def test_the_log_follows_what_is_added(bench):
    async def work():
        bench.kernels.logs[1] = [record(n, f"line {n}") for n in range(100)]
        async with bench.open() as pilot:
            await pilot.press("down", "enter")
            await shows(pilot, "line 99", "100 records")
            assert "line 50" not in text_of(pilot)
            bench.kernels.logs[1] = [*bench.kernels.logs[1], record(100, "fresh", 3)]
            await shows(pilot, "fresh", "101 records")

    run(work)


def test_scrolling_up_freezes_the_log_and_f_follows_again(bench):
    async def work():
        bench.kernels.logs[1] = [record(n, f"line {n}") for n in range(100)]
        async with bench.open() as pilot:
            await pilot.press("down", "enter")
            await shows(pilot, "line 99")
            await pilot.press("pageup", "pageup")
            await until(lambda: "line 99" not in text_of(pilot), "scrolled up")
            bench.kernels.logs[1] = [*bench.kernels.logs[1], record(100, "fresh")]
            await shows(pilot, "101 records")
            assert "fresh" not in text_of(pilot)
            await pilot.press("f")
            await shows(pilot, "fresh")

    run(work)


def test_levels_wrapping_and_a_filter_with_context(bench):
    async def work():
        bench.kernels.logs[1] = [
            record(1, "first"), record(2, "sick", 4), record(3, "third"),
            record(4, "x" * 200 + "tail"),
        ]  # fmt: skip
        async with bench.open() as pilot:
            await pilot.press("down", "enter")
            await shows(pilot, "first", "third")
            await pilot.press("l")
            assert "first" not in await shows(pilot, "sick", "warn and worse")
            await pilot.press("l", "l")
            assert "tail" not in await shows(pilot, "first")
            await pilot.press("w")
            await shows(pilot, "tail")
            await pilot.press("slash", *"sick", "enter")
            await until(lambda: "third" not in text_of(pilot), "the filter works")
            await pilot.press("x")
            await shows(pilot, "first", "sick", "third")
            await pilot.press("slash", *"!", "enter")
            await pilot.press("slash", "escape")
            await shows(pilot, "tail")

    run(work)


def test_the_log_of_the_incarnation_before(bench):
    async def work():
        bench.kernels.logs[1] = [record(1, "of this one")]
        number = bench.incident(1, "Kernel panic")
        async with bench.open() as pilot:
            await until(lambda: pilot.app.incidents, "the incident is read")
            await pilot.press("down", "enter")
            await shows(pilot, "of this one")
            await pilot.press("p")
            assert "of this one" not in await shows(pilot, "the last words", "incarnation 1")
            await pilot.press("p")
            await shows(pilot, "of this one")
            assert number == 1

    run(work)


def test_a_restart_is_told_and_the_new_log_read(bench):
    async def work():
        bench.kernels.logs[1] = [record(n, f"old {n}") for n in range(5)]
        async with bench.open() as pilot:
            await pilot.press("down", "enter")
            await shows(pilot, "old 4")
            bench.kernels.logs[1] = [record(0, "new kernel")]
            bench.change(1, incarnation=2, state=2)
            assert "old" not in await shows(pilot, "new kernel", "booting")

    run(work)


def test_without_a_kernel_one_line_says_so(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("down", "enter")
            await shows(pilot, "vnode 1 has no kernel")

    run(work)


def test_the_console_shows_harmless_lines_and_takes_typed_ones(bench):
    async def work():
        vnode = bench.world.machine.vnodes[1]
        vnode.print(b"boot\r\n\x1b[2J\x1b]0;owned\x07login: ")
        async with bench.open() as pilot:
            await pilot.press("down", "enter", "right_square_bracket")
            await shows(pilot, "boot", "login:")
            vnode.print(b"root\r\n# [bold]x[/bold]\r\n")
            text = await shows(pilot, "login: root", "# [bold]x[/bold]")
            assert "owned" not in text
            await pilot.press("i")
            await until(
                lambda: pilot.app.focused and pilot.app.focused.__class__.__name__ == "TypedLine",
                "the line has the focus",
            )
            await pilot.press(*"ls", "enter")
            await until(lambda: bench.daemon.asked, "the daemon is asked")
            assert bench.daemon.asked == [("console-input", {"vnode": 1, "data": "bHMN"})]
            await pilot.press("escape")
            await until(lambda: isinstance(pilot.app.focused, Lines), "the lines have the focus")

    run(work)


def test_readonly_types_nothing(bench):
    async def work():
        async with bench.open(readonly=True) as pilot:
            await pilot.press("down", "enter", "right_square_bracket", "i", *"ls", "enter")
            await shows(pilot, "this dashboard is read-only")
            assert bench.daemon.asked == []

    run(work)


def test_tasks_with_the_stack_of_the_one_under_the_cursor(bench):
    async def work():
        bench.kernels.task_list = [
            task(0, 0, "swapper"), task(1, 0, "init"), task(7, 1, "child\x1b[2J[red]"),
            task(9, 7, "grandchild", "D"),
        ]  # fmt: skip
        async with bench.open() as pilot:
            await pilot.press("down", "enter", "right_square_bracket", "right_square_bracket")
            text = await shows(pilot, "child\\x1b[2J[red]", "stack_of_0")
            assert "    child" not in text
            await pilot.press("down", "down")
            await shows(pilot, "stack_of_7", "ret_from_fork")
            await pilot.press("t")
            await shows(pilot, "  child", "      grandchild")
            await pilot.press("slash", *"grand", "enter")
            await until(lambda: "swapper" not in text_of(pilot), "filtered")

    run(work)


def test_cpus_with_registers_code_and_stack(bench):
    async def work():
        async with bench.open((100, 30)) as pilot:
            await pilot.press("down", "enter", *["right_square_bracket"] * 3)
            await shows(pilot, "ffffffff81000000", "=> 0x11", "idle_0", "running [sampled]")
            await pilot.press("down")
            await until(lambda: text_of(pilot).count("idle_1") == 2, "the other CPU's stack")

    run(work)


def test_memory_that_cannot_be_read_is_one_line(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("down", "enter", *["right_square_bracket"] * 4)
            await shows(pilot, "no kernel here")

    run(work)


def test_incidents_of_this_vnode_alone(bench):
    async def work():
        bench.incident(1, "Kernel panic: mine")
        bench.incident(2, "Kernel panic: another's")
        async with bench.open((100, 30)) as pilot:
            await pilot.press("down", "enter", "left_square_bracket")
            text = await shows(pilot, "Kernel panic: mine", "2000.000 ms", "█")
            assert "another's" not in text

    run(work)


def test_a_circle_of_parents_is_shown_once():
    found = tree_order([task(5, 6, "a"), task(6, 5, "b"), task(1, 0, "init")])
    assert sorted(one.pid for one, _ in found) == [1, 5, 6]
