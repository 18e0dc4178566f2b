# SPDX-License-Identifier: GPL-2.0-or-later
"""Incidents, reports, the timeline, twins, help, themes and keys of one's own, by keys."""

import asyncio
from contextlib import nullcontext
from pathlib import Path

import pytest

from adeos import abi
from tests.tui.conftest import record, shows, text_of, until
from tui import keys, themes
from tui.errors import WrongKeys
from tui.kernels import Facts


def run(work):
    asyncio.run(work())


def fill(bench):
    bench.incident(1, "BUG: NULL pointer in crash_oops [crasher]")
    bench.incident(2, "Kernel panic: sysrq triggered crash")
    bench.incident(2, "Kernel panic: sysrq triggered crash")


def test_incidents_are_grouped_and_their_stages_drawn(bench):
    async def work():
        fill(bench)
        async with bench.open((100, 30)) as pilot:
            await pilot.press("2")
            text = await shows(pilot, "3 incidents", "Kernel panic: sysrq triggered crash", "NULL")
            assert text.count("sysrq triggered crash") == 1
            await shows(pilot, "2000.000 ms", "█", "2.07s")
            await pilot.press("down", "tab")
            await shows(pilot, "1 alpha")
            bench.incident(1, "a third kind")
            await shows(pilot, "4 incidents", "a third kind")

    run(work)


def test_a_report_with_its_panels(bench):
    async def work():
        fill(bench)
        async with bench.open((100, 30)) as pilot:
            await until(lambda: pilot.app.incidents, "incidents are read")
            await pilot.press("2", "tab", "enter")
            await shows(pilot, "incident 3", "outcome   restarted", "The kernel log")
            await pilot.press("down")
            await shows(pilot, "the last words")
            await pilot.press("escape")
            await shows(pilot, "3 incidents")

    run(work)


@pytest.mark.parametrize(("key", "verb"), [("g", "attach"), ("d", "drgn")])
def test_gdb_and_drgn_on_a_dump(bench, key, verb):
    async def work():
        fill(bench)
        async with bench.open() as pilot:
            pilot.app.suspend = nullcontext
            await until(lambda: pilot.app.incidents, "incidents are read")
            await pilot.press("2")
            await shows(pilot, "sysrq")
            await pilot.press(key)
            assert bench.children == [["vnode-debug", verb, "--incident", "3"]]

    run(work)


def test_a_capsule_is_written_and_an_export_without_a_dump_says_why(bench):
    async def work():
        fill(bench)
        async with bench.open((100, 30)) as pilot:
            await until(lambda: pilot.app.incidents, "incidents are read")
            await pilot.press("2")
            await shows(pilot, "sysrq")
            await pilot.press("c")
            await until(Path("incident-3.html").exists, "the file is there")
            assert "the last words" in Path("incident-3.html").read_text()
            await pilot.press("e")
            await shows(pilot, "incident 3 has no dump")

    run(work)


def test_the_timeline_scrubs_back_to_the_first_divergence(bench):
    async def work():
        async with bench.open((100, 30)) as pilot:
            now = pilot.app.look.wall
            points = pilot.app.recorder.points
            await shows(pilot, "alpha")
            first = points[-1]
            pilot.app.recorder.add = lambda look: False
            points.clear()
            for n in range(60):
                marks = dict(first.marks)
                if n >= 20:
                    marks[2] = marks[2]._replace(state="crashed", incident=7)
                points.append(first._replace(wall=now + 100 + n, marks=marks))
            await pilot.press("3")
            await shows(pilot, "timeline", "1 alpha", "2 beta", "✖ crashed", "0s ago")
            await pilot.press("v")
            await shows(
                pilot, "39s ago", "vnode 2: crashed", "incident 7", "running -> crashed", "!"
            )
            await pilot.press("left")
            await shows(pilot, "40s ago")
            await pilot.press("shift+right", "left", "minus")
            await shows(pilot, "2 s a column")
            await pilot.press("end")
            await shows(pilot, "0s ago")

    run(work)


def test_the_timeline_shows_the_log_lines_of_that_moment(bench):
    async def work():
        bench.beat(5)
        up = bench.client().look().vnode(1).row.uptime_s
        bench.kernels.logs[1] = [record(int(up), "a warning\x1b[2J[red]", 4)]
        async with bench.open((100, 30)) as pilot:
            await pilot.press("3")
            await shows(pilot, "a warning[red]", "╷")

    run(work)


def test_twins_show_only_what_differs(bench):
    async def work():
        same = {"modules": ("loop", "ext4"), "log": ("[x] cpu 1 up",)}
        bench.kernels.fact_list = {
            1: Facts({"command line": ("quiet", "panic=-1"), **same, "sysctls": ("a = 1",)}),
            2: Facts(
                {
                    "command line": ("quiet", "panic=5"),
                    "modules": ("loop", "crasher\x1b[2J"),
                    "log": ("[x] cpu 2 up", "only here"),
                    "sysctls": ("a = 1",),
                }
            ),
        }
        async with bench.open((100, 30)) as pilot:
            await pilot.press("down", "equals_sign")
            text = await shows(pilot, "4 differences", "panic=-1", "panic=5", "crasher\\x1b[2J")
            assert "only here" in text
            assert "quiet" not in text
            assert "cpu 1 up" not in text

    run(work)


def test_twins_of_unreadable_vnodes_say_why(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("down", "equals_sign")
            await shows(pilot, "twins 1 alpha and 2 beta", "KeyError")
            await pilot.press("escape", "home", "equals_sign")
            await shows(pilot, "mark two vnodes")

    run(work)


def test_help_lists_the_keys_that_are_in_use(bench):
    async def work():
        async with bench.open((100, 70), keymap={"restart": "f9"}) as pilot:
            await pilot.press("question_mark")
            await shows(pilot, "f9        restart", "command palette")
            await pilot.press("escape", "down", "R")
            assert "restart vnode" not in text_of(pilot)
            await pilot.press("f9")
            await shows(pilot, "restart vnode 1 (alpha)?")

    run(work)


def test_themes_in_turn_and_a_picture_of_the_screen(bench):
    async def work():
        async with bench.open() as pilot:
            seen = set()
            for _ in themes.NAMES:
                await pilot.press("ctrl+t")
                seen.add(pilot.app.theme)
            assert seen == set(themes.NAMES)
            await pilot.press("ctrl+s")
            await until(lambda: list(Path().glob("*.svg")), "a picture")
            assert "alpha" in next(iter(Path().glob("*.svg"))).read_text()

    run(work)


def test_states_differ_without_colour(bench, monkeypatch):
    async def work():
        monkeypatch.setenv("NO_COLOR", "1")
        bench.change(2, state=abi.StatusState.CRASHED)
        async with bench.open() as pilot:
            await shows(pilot, "✖ crashed", "● running")
            strips = pilot.app.screen._compositor.render_strips()
            assert pilot.app.ansi_color or pilot.app.no_color
            assert strips

    run(work)


def test_the_line_under_the_cursor_is_copied(bench):
    async def work():
        async with bench.open() as pilot:
            await pilot.press("down", "y")
            await until(lambda: "alpha" in pilot.app.clipboard, "it is copied")

    run(work)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[keys]\nrestart = "f9"\n', None),
        ('[keys]\nreboot = "R"\n', "there is no action 'reboot'"),
        ('[keys]\nrestart = "\x07"\n', "tui.toml"),
        ("[keys]\nrestart = 7\n", "is no key"),
        ("keys = 1\n", "is no table"),
        ("[keys\n", "tui.toml"),
        ("[keys]\n" + "a = 1\n" * 100_000, "tui.toml"),
    ],
)
def test_the_file_of_keys(tmp_path, text, said):
    path = tmp_path / "tui.toml"
    path.write_text(text)
    if said is None:
        assert keys.load(path) == {"restart": "f9"}
        return
    with pytest.raises(WrongKeys, match=said) as caught:
        keys.load(path)
    assert len(str(caught.value).splitlines()) == 1


def test_no_file_of_keys_is_no_mistake(tmp_path):
    assert keys.load(tmp_path / "none.toml") == {}


def test_the_documented_keys_are_those_of_the_code():
    text = (Path(__file__).resolve().parents[2] / "docs/dashboard.md").read_text()
    assert keys.table() in text
