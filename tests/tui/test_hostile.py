# SPDX-License-Identifier: GPL-2.0-or-later
"""What a vnode, a dump or a store can do to the screen: nothing."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.tui.conftest import record, shows, text_of, until
from tui.panes.console import Splitter
from tui.text import around, fit, matches, safe, sparkline, wrapped

NASTY = "\x1b[2J\x1b]0;owned\x07[bold red]x[/] \u202etxt.exe \udcff 日本語 👩‍👩‍👧 é"


def harmless(text):
    return all(char.isprintable() or char == "\n" for char in text)


def run(work):
    asyncio.run(work())


@given(st.text(), st.integers(0, 50))
def test_any_text_fits_in_any_width(text, width):
    made = fit(safe(text), width)
    assert cell_len(made) == width
    assert harmless(made)


@given(st.text(max_size=200), st.integers(2, 50))
def test_wrapping_loses_nothing(text, width):
    parts = wrapped(safe(text), width)
    assert "".join(parts) == safe(text)
    assert all(cell_len(part) <= width for part in parts)


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 5))
def test_context_is_each_line_once_in_order(hits, context):
    kept = around(hits, context)
    wanted = {at for at in range(len(hits)) if any(hits[max(at - context, 0) : at + context + 1])}
    assert kept == sorted(wanted)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_a_console_cut_anywhere_gives_the_same_lines(data, size):
    whole, lines, split = Splitter().feed(data), [], Splitter()
    for at in range(0, len(data), size):
        was_open = split.open
        fresh = split.feed(data[at : at + size])
        lines = (lines[:-1] if was_open and fresh else lines) + fresh
    if b"\r" not in data and b"\x1b" not in data:
        assert lines == whole
    assert all(harmless(line.replace("\t", "")) for line in lines)


def test_a_filter_and_its_inverse():
    assert matches("AB", "cab") and not matches("!ab", "cab")
    assert matches("", "x") and matches("!", "x")


@pytest.mark.parametrize("value", [float("nan"), -1.0, 1e300, None, 0])
def test_any_rate_is_one_block(value):
    assert len(sparkline([value], 100.0)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_scribbled_bridge_costs_its_own_row(bench, seed):
    async def work():
        async with bench.open((120, 24)) as pilot:
            bench.world.machine.vnodes.pop(1).scribble(seed)
            await asyncio.sleep(0.3)
            bench.beat(2)
            text = await shows(pilot, "beta", "10/10/10", "● running")
            assert harmless(text)
            await pilot.press("down", "enter", "right_square_bracket")
            assert harmless(await shows(pilot, "vnode 1"))

    run(work)


def test_hostile_titles_names_and_logs(bench):
    async def work():
        bench.incident(2, "first")
        bench.incident(2, NASTY.replace("\udcff", "") + "y" * 200)
        bench.change(1, reason="\x1b[2J[red]")
        bench.kernels.logs[1] = [record(n, f"{NASTY} {n}") for n in range(10_000)]
        async with bench.open((80, 24)) as pilot:
            await until(lambda: pilot.app.incidents, "incidents are read")
            assert harmless(await shows(pilot, "alpha"))
            await pilot.press("2")
            assert harmless(await shows(pilot, "2 incidents", "[bold red]x[/]"))
            await pilot.press("1", "down", "enter")
            assert harmless(await shows(pilot, "9999", "10000 records"))
            await pilot.press("slash", *"9998", "enter")
            await until(lambda: "9999" not in text_of(pilot), "filtered")
            await pilot.press("w")
            await shows(pilot, "9998")

    run(work)
