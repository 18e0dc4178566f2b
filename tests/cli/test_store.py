# SPDX-License-Identifier: GPL-2.0-or-later
"""incidents and show, on a real store."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.store import parse_when
from crashdump.incident import Dump, DumpState, IncidentState, Witness
from crashdump.store import IncidentStore

NOW = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))
MS = 1_000_000


@pytest.fixture
def store(places):
    """Three incidents: a panic of 2 an hour ago, a hang of 1 a minute ago, an open one now."""
    with IncidentStore(places / "state") as made:
        now = time.time()
        one = made.create(
            vnode=2,
            name="beta",
            incarnation=1,
            reason="panic",
            crash=True,
            opened=now - 3600,
            message="sysrq \x1b[2J crash",
            cpu=0,
            comm="sh",
            pid=7,
        )
        dump = Dump(state=DumpState.DONE, path="vmcore", size=256 << 20, stored=34 << 20)
        stamps = {"fault": 0, "seen": 2 * MS, "fenced": 3 * MS, "running": 1500 * MS}
        made.finish(
            one.id,
            IncidentState.COMPLETE,
            stamps=stamps,
            dump=dump,
            successor=2,
            outcome="restarted",
            witnesses=(Witness(1, "alpha", 1, 1000, 1234),),
        )
        (made.path(one.id) / "kmsg.txt").write_text("line 1\nline \x1b[31m2\nline 3\n")
        made.create(
            vnode=1, name="alpha", incarnation=1, reason="irqhang", crash=True, opened=now - 60
        )
        made.create(vnode=2, name="beta", incarnation=2, reason="oops", crash=True)
        yield made


def ids(result):
    return [one["id"] for one in json.loads(result.out)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), [1, 2, 3]),
        (("-r",), [3, 2, 1]),
        (("-n", "2"), [2, 3]),
        (("-n", "2", "-r"), [3, 2]),
        (("-n", "0"), []),
        (("--vnode", "2"), [1, 3]),
        (("--vnode", "alpha"), [2]),
        (("--reason", "oops"), [3]),
        (("--since", "30m"), [2, 3]),
        (("--until", "30m"), [1]),
        (("--since", "2h", "--until", "30m"), [1]),
        (("--vnode", "9"), []),
    ],
)
def test_selection_and_order(call, store, arguments, expected):
    assert ids(call("incidents", "--json", *arguments)) == expected


def test_table(call, store):
    lines = call("incidents").out.splitlines()
    assert len(lines) == 4
    assert lines[1].split()[-3:] == ["done", "34M", "1.50s"]
    assert "interrupted" not in lines[3]


def test_no_incidents(call):
    assert json.loads(call("incidents", "--json").out) == []
    result = call("incidents")
    assert (result.code, result.out, result.err) == (0, "", "no incidents\n")
    assert call("-q", "incidents").err == ""


def test_show_tells_stages_witnesses_and_the_end_of_the_log(call, store):
    result = call("show", "1", "-n", "2")
    assert result.code == 0
    assert "\x1b" not in result.out
    words = [line.split() for line in result.out.splitlines()]
    assert ["seen", "2.000", "2.000"] in words
    assert ["running", "1500.000", "1497.000"] in words
    assert ["1", "alpha", "1", "1000", "1234", "lived", "on"] in words
    assert "line 1" not in result.out
    assert "line 3" in result.out


def test_show_json_has_all_of_it(call, store):
    record = json.loads(call("show", "1", "--json").out)
    assert record["dump"]["path"] == str(store.path(1) / "vmcore")
    assert record["stages"][1] == {"stage": "seen", "at_ms": 2.0, "step_ms": 2.0}
    assert record["log_tail"][-1] == "line 3"
    assert record["directory"] == str(store.path(1))


def test_an_unknown_incident_is_not_found(call, store):
    result = call("show", "99")
    assert (result.code, result.out) == (4, "")
    assert "no incident 99" in result.err


def test_looking_changes_nothing(call, places):
    call("incidents")
    assert not (places / "state").exists()


def test_the_log_of_an_incident_without_a_dump_says_why(call, store):
    result = call("log", "--incident", "3")
    assert result.code == 4
    assert "incident 3 has no dump" in result.err


@pytest.mark.parametrize(
    ("text", "seconds_ago"),
    [
        ("2h", 7200),
        ("2h ago", 7200),
        ("-30m", 1800),
        ("1d", 86400),
        ("0s", 0),
        ("1w", 604800),
        ("12:00", 0),
        ("11:30", 1800),
        ("2026-11-21 11:00", 3600),
        ("2026-11-21T11:59:30", 30),
        ("2026-11-21", 12 * 3600),
    ],
)
def test_times(text, seconds_ago):
    assert parse_when(text, NOW) == NOW - seconds_ago


@given(st.text())
def test_any_text_is_a_time_or_none(text):
    moment = parse_when(text, NOW)
    assert moment is None or isinstance(moment, float)
