# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a boot, from a log and two stamps."""

from __future__ import annotations

from cli.boot import AGENT, INIT, parts
from introspect.printk import LogRecord


def record(ms: float, text: str) -> LogRecord:
    return LogRecord(seq=0, ts_ns=int(ms * 1e6), level=6, caller="T1", text=text)


LOG = [
    record(0, "Linux version 6.1"),
    record(900, INIT),
    record(1000, AGENT + '2 "web", incarnation 1'),
    record(5000, AGENT + "said later"),
]


def test_the_agents_record_tells_when_the_clock_began() -> None:
    found = parts(LOG, 1300.0, 1500.0)
    assert [(part.name, round(part.ms)) for part in found] == [
        ("unpack", 300),
        ("kernel", 900),
        ("agent", 100),
        ("user", 200),
    ]


def test_without_its_record_there_are_two_parts() -> None:
    found = parts(LOG[:2], 1300.0, 1500.0)
    assert [(part.name, round(part.ms)) for part in found] == [("agent", 1300), ("user", 200)]


def test_a_lying_log_gives_no_negative_part() -> None:
    for log in (
        [record(5e12, AGENT)],
        [record(0, AGENT), record(9e9, INIT)],
        [record(100, AGENT), record(90, INIT)],
    ):
        assert all(part.ms >= 0 for part in parts(log, 1300.0, 10.0))
