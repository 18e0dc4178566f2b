# SPDX-License-Identifier: GPL-2.0-or-later
"""events, history and config check: read from files, without a daemon."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from watchdog.eventlog import NAME, EventLog

ROOT = Path(__file__).resolve().parents[2]
T0 = 1_700_000_000.0

STORY = [
    {"time": T0, "level": "info", "event": "daemon", "pid": 7},
    {"time": T0 + 1, "event": "booting", "vnode": 2, "name": "web", "was": "loading"},
    {"time": T0 + 3, "event": "running", "vnode": 2, "name": "web", "was": "booting"},
    {"time": T0 + 4, "event": "probe", "vnode": 2, "silent": 1},
    {"time": T0 + 5, "event": "running", "vnode": 3, "name": "db", "was": "booting"},
    {
        "time": T0 + 63,
        "level": "warning",
        "event": "crashed",
        "vnode": 2,
        "name": "web",
        "was": "running",
        "reason": "panic \x1b[2J",
        "incarnation": 4,
    },
]


@pytest.fixture
def story(places):
    directory = places / "state"
    directory.mkdir()
    made = EventLog(directory)
    made.start()
    for record in STORY:
        made.put(record)
    made.stop()
    return directory


def test_events_for_people_and_programs(call, story):
    result = call("events")
    assert result.code == 0 and len(result.out.splitlines()) == len(STORY)
    assert "\x1b" not in result.out and r"panic \x1b[2J" in result.out
    found = json.loads(call("events", "--json").out)
    assert [one["event"] for one in found] == [one["event"] for one in STORY]
    assert len(json.loads(call("events", "--vnode", "web", "-n", "2", "--json").out)) == 2
    assert json.loads(call("events", "--since", "1h", "--json").out) == []


def test_history_tells_how_long_each_state_lasted(call, story):
    rows = json.loads(call("history", "web", "--json").out)
    assert [(row["state"], row["seconds"]) for row in rows[:2]] == [
        ("booting", 2.0),
        ("running", 60.0),
    ]
    assert rows[2]["state"] == "crashed" and rows[2]["seconds"] > 1000
    text = call("history", "2").out
    assert text.splitlines()[2].split()[2:4] == ["running", "1m00s"]
    assert "\x1b" not in text


def test_no_log_yet(call, places):
    result = call("events")
    assert (result.code, result.out, result.err) == (0, "", "no events\n")


def test_a_log_of_other_things_is_no_harm(call, story):
    with (story / NAME).open("ab") as file:
        file.write(b'{"seq": 99, "time": "x", "event": ["y"], "was": 1}\n{"seq": 100}\n\x00\xff\n')
    assert call("events").code == 0
    assert call("history", "web").code == 0


def test_following_shows_what_comes_over_the_end_of_a_daemon(story):
    words = [sys.executable, str(ROOT / "vnode_debug.py"), "events", "-f", "--json", "-n", "0"]
    follower = subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ, text=True)
    try:
        got: list[dict] = []

        def read() -> None:
            got.extend(json.loads(line) for line in follower.stdout)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        for number in range(40):
            made = EventLog(story)
            made.start()
            made.put({"event": f"e{number}"})
            made.stop()
            time.sleep(0.05)
            if got:
                break
        end = time.monotonic() + 10
        while (not got or got[-1]["event"] != f"e{number}") and time.monotonic() < end:
            time.sleep(0.05)
        assert got[-1]["event"] == f"e{number}"
        seqs = [one["seq"] for one in got]
        assert seqs == list(range(seqs[0], seqs[-1] + 1))
    finally:
        follower.kill()
        follower.wait()


def test_config_check(call, places):
    file = places / "vnodes.toml"
    file.write_text("[watch]\nperiod_ms = 10\n")
    assert call("config", "check").out == f"{file}: 0 vnode(s), no mistakes\n"
    file.write_text(
        '[watch]\nperiod_ms = 0\n[hooks]\non_incident = [["page"], []]\n[dumps]\nfree = "x"\n'
    )
    result = call("config", "check", str(file))
    assert (result.code, result.out) == (3, "")
    assert [line.split(":")[2] for line in result.err.splitlines()] == ["2", "4", "6"]
    result = call("config", "check", str(file), "--json")
    assert result.code == 3 and len(json.loads(result.out)["mistakes"]) == 3


@pytest.mark.parametrize(
    "line",
    [
        '{"seq": 1, "event": "running", "vnode": 2, "was": "booting"}',
        '{"seq": 1, "event": ["running"], "vnode": 2, "was": "booting", "time": 1}',
        '{"seq": 1, "event": "running", "vnode": 2, "was": "booting", "time": "noon"}',
        "[" * 100_000,
    ],
    ids=["no time", "a list", "a word for a time", "deep"],
)
def test_a_record_that_no_daemon_writes_is_passed_over(call, places, line):
    """Found by tests/fuzz/fuzz_machine.py."""
    good = {"seq": 2, "event": "running", "vnode": 2, "was": "booting", "time": T0}
    (places / "state").mkdir()
    (places / "state" / NAME).write_text(f"{line}\n{json.dumps(good)}\n")
    result = call("history", "2", "--json")
    assert result.code == 0
    assert [row["time"] for row in json.loads(result.out)] == [T0]
    assert call("events").code == 0
