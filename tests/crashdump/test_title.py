# SPDX-License-Identifier: GPL-2.0-or-later
"""Titles and events of logs, without a kernel."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crashdump.analysis import oops
from crashdump.analysis.oops import Kind, decisive, find_events, lines_of
from crashdump.analysis.title import MAX_TITLE, culprit, is_helper, normalise, plain
from tests.crashdump.oopses import NULL_61, SAMPLES

PLAIN = [
    ("at 0xffffffffc0201045", "at ADDR"),
    ("at ffff88800a7d4c10 now", "at ADDR now"),
    ("(____ptrval____)", "ADDR"),
    ("widget_store.isra.3+0x1c/0x50 [widget]", "widget_store"),
    ("soft lockup - CPU#1 stuck for 22s!", "soft lockup - stuck for NUMs!"),
    ("hard LOCKUP on cpu 2", "hard LOCKUP"),
    ("BUG kmalloc-64: x", "BUG kmalloc-64: x"),
    ("unknown-block(8,1)", "unknown-block(NUM,NUM)"),
    ("drivers/x86_64/v4l2.c:77!", "drivers/x86_64/v4l2.c:LINE!"),
    ("a \t\n b", "a b"),
    ("deadbeef is a word, feedface too", "deadbeef is a word, feedface too"),
    ("0badc0de is a number", "ADDR is a number"),
    ("x" * 500, "x" * MAX_TITLE),
]


@pytest.mark.parametrize(("text", "expected"), PLAIN)
def test_what_differs_between_boots_is_left_out(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text(max_size=2000))
def test_a_title_is_short_and_stays_as_it_is(text: str) -> None:
    title = normalise(text)
    assert len(title) <= MAX_TITLE
    assert len(normalise(title)) <= MAX_TITLE


@given(st.integers(1 << 40, (1 << 64) - 1), st.integers(0, 255), st.integers(0, 1 << 20))
def test_titles_are_equal_for_any_address_cpu_and_offset(va: int, cpu: int, offset: int) -> None:
    text = f"stuck at {va:#x} on CPU {cpu} in fn.part.0+{offset:#x}/0x200000 [mod]"
    assert normalise(text) == "stuck at ADDR in fn"


@pytest.mark.parametrize("name", SAMPLES)
def test_each_kernel_s_words_give_the_title(name: str) -> None:
    sample = SAMPLES[name]
    event = decisive(find_events(lines_of(sample.text)))
    assert event is not None
    assert (event.title, event.culprit) == (sample.title, sample.culprit)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_title_survives_stamps_other_cpus_and_addresses(name: str) -> None:
    """The same fault, printed by a console with stamps, elsewhere in memory, on another CPU."""
    sample = SAMPLES[name]
    text = re.sub(r"\b(CPU: )\d", r"\g<1>7", sample.text)
    text = re.sub(r"\bffff8", "ffff9", text)
    text = re.sub(r"cpu \d|CPU#\d", lambda m: m[0][:-1] + "5", text)
    lines = text.splitlines()
    stamped = [f"<4>[{12 + i // 100:5d}.{i:06d}] {line}" for i, line in enumerate(lines)]
    before = ["[    0.000000] Linux version 6.1.0", "[    1.5] random: crng init done"]
    event = decisive(find_events(lines_of("\n".join(before + stamped))))
    assert event is not None and event.title == sample.title
    assert event.ts_ns >= 12 * 10**9


def test_registers_cpu_and_task_are_read() -> None:
    (event,) = find_events(lines_of(NULL_61))
    assert (event.cpu, event.pid, event.comm) == (0, 77, "sh")
    assert event.rip == ("widget_store", 0x1C, "widget", 0)
    assert event.registers["sp"] == 0xFFFFC900001B7D30
    assert event.registers["bp"] == 0xFFFFC900001B7D48
    assert event.registers["r8"] == 0 and event.registers["bx"] == 0xFFFF888003A10000
    assert event.registers["cr2"] == 8
    assert event.trace == ["widget_write+0x2a"]


def test_callers_ids_keep_two_cpus_apart() -> None:
    """CONFIG_PRINTK_CALLER: another CPU's lines in between are not this event's."""
    mine = NULL_61.splitlines()
    other = "CPU: 9 PID: 99 Comm: other Not tainted 6.1.0 #1"
    woven = [f"[    1.000000][   T77] {line}\n[    1.000000][   C9] {other}" for line in mine]
    (event,) = find_events(lines_of("\n".join(woven)))
    assert (event.cpu, event.comm, event.culprit) == (0, "sh", "widget_store")


def test_an_old_warning_does_not_explain_a_later_oops() -> None:
    warning = SAMPLES["warning-panic"].text.replace("Kernel panic", "no panic")
    event = decisive(find_events(lines_of(warning + NULL_61)))
    assert event is not None and event.kind is Kind.OOPS


def test_of_tasks_that_hang_the_first_one_told_counts() -> None:
    second = SAMPLES["hung"].text.replace("widget_flush", "other_wait")
    text = SAMPLES["hung"].text + second + "Kernel panic - not syncing: hung_task: blocked tasks\n"
    event = decisive(find_events(lines_of(text)))
    assert event is not None and event.title == SAMPLES["hung"].title


def test_a_panic_after_very_many_warnings_is_found() -> None:
    warning = SAMPLES["warning-panic"].text.replace("Kernel panic", "no panic")
    text = warning * 4000 + SAMPLES["sysrq"].text
    events = find_events(lines_of(text))
    assert len(events) == oops.MAX_EVENTS
    event = decisive(events)
    assert event is not None and event.title == SAMPLES["sysrq"].title


def test_a_quiet_log_has_no_event() -> None:
    text = "Linux version 6.1\nRAMDISK: gzip image found\nwidget: no problem here\n"
    assert find_events(lines_of(text)) == [] and decisive([]) is None


WORDS = [line for sample in SAMPLES.values() for line in sample.text.splitlines()]
NOISE = st.one_of(st.sampled_from(WORDS), st.text(max_size=80))


@given(st.lists(NOISE, max_size=60))
@example(["Kernel panic - not syncing: {fn} {what!r} {0} %s"])
@example(["BUG: KASAN: " + "x " * 400 + "in a+0x1/0x2"])
def test_any_log_is_read(lines: list[str]) -> None:
    found = lines_of("\n".join(lines))
    events = find_events(found)
    for event in events:
        assert 0 <= event.start < event.end <= len(found)
        assert 0 < len(event.title) <= MAX_TITLE
        assert "+0x" not in event.culprit
    event = decisive(events)
    assert (event is None) == (not events)


def test_hostile_logs_cost_little() -> None:
    """Long lines and many events: patterns must not go back and forth."""
    import time

    began = time.process_time()
    for piece in (
        "BUG: " * 5000,
        "INFO: task " + "a:" * 5000,
        "RIP: " * 5000,
        "0" * 50_000,
        "Call Trace:\n" + "? " * 5000,
        "x+0x" * 5000,
        " invoked oom-killer:" * 999,
    ):
        lines = oops.lines_of((piece + "\n") * 300)
        decisive(find_events(lines))
        normalise(piece)
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "name",
    [
        *("memcpy_erms", "_raw_spin_lock", "schedule", "__mutex_lock", "panic", "kfree"),
        *("__alloc_frozen_pages_noprof", "alloc_pages_mpol", "__rwbase_read_lock", "rt_read_lock"),
        "cache_from_obj",
    ],
)
def test_helpers_are_not_blamed(name: str) -> None:
    assert is_helper(name)
    assert culprit([name, "widget_open.cold+0x1/0x2"]) == "widget_open"
    assert culprit([name]) == name


@pytest.mark.parametrize(
    "name", ["widget_panic", "scheduler_tick", "memcpy_to_widget", "die_hard", "download_page"]
)
def test_others_are(name: str) -> None:
    assert plain(name) == name
    assert not is_helper(name)


def test_what_is_no_code_is_nobodys_fault() -> None:
    assert culprit(["", "widget_open"]) == "widget_open"
    assert culprit(["", ""]) == ""
