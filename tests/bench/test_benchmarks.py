# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of script/bench out of takes; what it asks of the box; nothing is measured here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import watch_tick
from bench.peers import __main__, kdump, run, triage, vnode
from bench.peers.table import Column, Contender, Line, NotHere, Table, from_json, page, render
from bench.peers.texts import INTRO, SECTIONS
from watchdog import config

GIB = 1 << 30
COLUMNS = [Column("s", "time, s"), Column("MiB", "size, MiB", 0)]


def table(*lines: Line) -> Table:
    return Table("A title", "Some words.", "script/bench --only it", COLUMNS, list(lines))


def rows(text: str) -> list[list[str]]:
    found = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[2:]]


def test_medians_spreads_and_ratios() -> None:
    ours = Line("ours", [{"s": 1.0, "MiB": 40}, {"s": 3.0, "MiB": 40}, {"s": 2.0, "MiB": 40}])
    theirs = Line("theirs", [{"s": 5.0, "MiB": 1024.0}, {"s": 7.0, "MiB": 1024.0}])
    first, second = rows(render(table(ours, theirs)))
    assert first == ["ours", "3", "**2.00** (1.00 to 3.00)", "**40** (40 to 40)"]
    assert second == ["theirs", "2", "**6.00** (5.00 to 7.00) x3", "**1,024** (1,024 to 1,024) x26"]


def test_one_take_has_no_spread_and_a_missing_figure_is_blank() -> None:
    first, second = rows(render(table(Line("ours", [{"s": 2.0}]), Line("b", [{"s": 1.0}]))))
    assert first == ["ours", "1", "**2.00**", ""]
    assert second == ["b", "1", "**1.00** x0.5", ""]


def test_who_is_not_here_says_why_and_failures_are_told() -> None:
    failed = Line("b", [{"s": 1.0}], failures=["no dump"])
    text = render(table(Line("ours", absent="no memory"), Line("a", absent="no apt"), failed))
    assert rows(text) == [
        ["ours", "0", "not here: no memory", ""],
        ["a", "0", "not here: no apt", ""],
        ["b", "1, 1 failed: no dump", "**1.00**", ""],
    ]
    assert "    script/bench --only it\n" in text


def test_takes_survive_their_file() -> None:
    one = table(Line("ours", [{"s": 1.5}], failures=["x"]), Line("b", absent="why"))
    assert from_json(json.loads(json.dumps(one.json()))) == one


def test_the_page_has_every_section_with_its_tables() -> None:
    facts = dict.fromkeys(("date", "cores", "cpu", "memory", "versions", "commit"), "?")
    sections = dict(SECTIONS.values())
    found = [(heading, table(Line("ours", [{"s": 1.0}]))) for heading in sections]
    text = page(INTRO.format(**facts), sections, found)
    assert text.startswith("# Side by side")
    assert [f"## {heading}" in text for heading in sections] == [True] * len(sections)
    assert text.count("### A title") == len(sections) == len(__main__.PARTS)


def test_turns_begin_with_another_one_each_time_and_one_that_is_absent_is_left_alone() -> None:
    calls: list[str] = []

    def measure(name: str) -> dict[str, float]:
        calls.append(name)
        if name == "c":
            raise NotHere("no such thing")
        if name == "b" and calls.count("b") == 1:
            raise RuntimeError("a\nbad take")
        return {"s": float(len(calls))}

    plan = run.Plan(2, [256], set())
    contenders = [Contender(name, name, lambda name=name: measure(name)) for name in "abc"]
    a, b, c = run.take_turns(plan, "work", contenders)
    assert "".join(calls) == "abcba"
    assert len(a.takes) == 2 and a.failures == []
    assert len(b.takes) == 1 and b.failures == ["a bad take"]
    assert c.absent == "no such thing"
    assert [one.name for one in run.take_turns(run.Plan(1, [], {"a"}), "", contenders)] == ["a"]


def test_out_of_time_there_is_one_turn() -> None:
    plan = run.Plan(5, [256], set(), until=0)
    (line,) = run.take_turns(plan, "work", [Contender("a", "a", lambda: {"s": 1.0})])
    assert len(line.takes) == 1
    assert plan.load().startswith("Load of the host") and not plan.loads


def test_tables_of_a_part_take_the_place_of_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "HOME", tmp_path)
    monkeypatch.setattr(__main__, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(__main__, "facts", dict)
    old, new = table(Line("old", [{"s": 1.0}])), table(Line("new", [{"s": 2.0}]))
    __main__.save([("reads", old), ("restart", old)])
    __main__.save([("reads", new)])
    assert __main__.kept() == [("restart", old), ("reads", new)]


def test_what_a_process_took_is_its_own() -> None:
    ballast = b"x" * (200 << 20)
    took = triage.timed([sys.executable, "-c", "print('done')"], {}, [b"done"])
    assert took["peak"] < 100 and len(ballast)
    assert took["CPU"] > 0 and took["s"] > 0
    with pytest.raises(RuntimeError, match="exit code 3"):
        triage.timed([sys.executable, "-c", "raise SystemExit(3)"], {}, [])
    with pytest.raises(RuntimeError, match="done"):
        triage.timed([sys.executable, "-c", ""], {}, [b"done"])


def test_one_that_only_fails_is_given_up() -> None:
    def measure() -> dict[str, float]:
        raise OSError("broken")

    (line,) = run.take_turns(run.Plan(5, [], set()), "work", [Contender("a", "a", measure)])
    assert line.absent == "failed twice: broken" and len(line.failures) == 2


@pytest.mark.parametrize(
    ("free", "found"),
    [
        (40, (4096, True)),
        (16, (4096, True)),
        (15, (4096, False)),
        (12, (4096, False)),
        (11, (1024, True)),
        (10, (1024, True)),
        (9, (1024, False)),
        (8, (0, False)),
    ],
)
def test_the_size_of_the_box_follows_the_free_memory(free: int, found: tuple[int, bool]) -> None:
    assert vnode.affordable([256, 1024, 4096], free * GIB) == found


@pytest.mark.parametrize("mode", vnode.NAMES)
def test_the_config_of_the_box_is_one(mode: str, tmp_path: Path) -> None:
    for name in ("kernel", "initrd", "kmb.ko"):
        (tmp_path / name).write_bytes(b"")
    path = tmp_path / "vnodes.toml"
    text = vnode.toml(8 * GIB, "6.1", "kmb.ko", 4096, mode)
    text = text.replace("/boot/vmlinuz-6.1", "kernel").replace(vnode.layout.INITRD, "initrd")
    path.write_text(text)
    found = config.load(path)
    assert found.watch.hold is (mode != "copy")
    assert (found.vnode[0].restart.strategy == "standby") is (mode == "standby")
    assert found.vnode[0].span.size == 4 * GIB


def test_the_figures_of_an_incident() -> None:
    stamps = {"fault": 0, "seen": 2e6, "captured": 30e6, "started": 40e6, "running": 2e9}
    incident = {"stamps": stamps, "opened": 1000.0, "dump": {"stored": 64 << 20}}
    assert vnode.take(incident, 1005.0) == pytest.approx(
        {"safe": 0.03, "file": 5.002, "running": 2.0, "MiB": 64}
    )


@pytest.mark.parametrize("words", [["--sizes", "big"], ["--sizes", "100"], ["-n", "0"]])
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        __main__.main(words)
    assert end.value.code == 2
    assert "script/bench" in capsys.readouterr().err


def test_the_crash_kernel_reboots_whatever_became_of_its_dump() -> None:
    assert kdump.CRASH_INIT.rstrip().endswith("reboot -f")
    assert " && " not in kdump.CRASH_INIT


def test_the_watch_tick_is_measured_on_vnodes_that_run(capsys: pytest.CaptureFixture[str]) -> None:
    watch_tick.main(vnodes=2, ticks=5)
    assert "2 vnodes, 5 ticks: median" in capsys.readouterr().out
