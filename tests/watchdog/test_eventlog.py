# SPDX-License-Identifier: GPL-2.0-or-later
"""The event log: whole lines, bounded, numbered on after a kill, readable over a rotation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from watchdog import eventlog, log
from watchdog.eventlog import NAME, EventLog, Tail, read

ROOT = Path(__file__).resolve().parents[2]


def write(directory: Path, *events: str) -> None:
    made = EventLog(directory)
    made.start()
    for event in events:
        made.put({"event": event})
    made.stop()


def test_numbers_go_on_and_order_stays(tmp_path):
    write(tmp_path, "a", "b")
    write(tmp_path, "c")
    assert [(one["seq"], one["event"]) for one in read(tmp_path)] == [(1, "a"), (2, "b"), (3, "c")]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_it_is_bounded_and_a_follower_sees_all_of_a_rotation(tmp_path, monkeypatch):
    monkeypatch.setattr(eventlog, "LIMIT", 2000)
    tail, seen = Tail(tmp_path), []
    for number in range(200):
        write(tmp_path, f"event {number}")
        seen += tail.poll()
    assert [one["event"] for one in seen] == [f"event {number}" for number in range(200)]
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 2 * 2000 + 200
    assert [one["seq"] for one in read(tmp_path)][-1] == 200
    assert tail.poll() == []


@pytest.mark.parametrize(
    "torn", [b'{"seq": 3, "ev', b"\xff\xfe", b"[1]\n", b'{"seq": "x"}\n', b"\0" * 99]
)
def test_a_torn_line_is_skipped_and_what_follows_is_whole(tmp_path, torn):
    write(tmp_path, "a", "b")
    with (tmp_path / NAME).open("ab") as file:
        file.write(torn)
    write(tmp_path, "c")
    assert [one["event"] for one in read(tmp_path)] == ["a", "b", "c"]
    assert [one["seq"] for one in read(tmp_path)] == [1, 2, 3]


def test_a_killed_writer_loses_no_whole_record(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom watchdog.eventlog import EventLog\n"
        "made = EventLog(Path(sys.argv[1])); made.start()\n"
        "for n in range(1 << 30):\n"
        "    made.put({'event': str(n)})\n"
        "    made._queue.qsize() > 1000 and __import__('time').sleep(0.001)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    try:
        end = time.monotonic() + 20
        while not list(read(tmp_path)):
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    write(tmp_path, "after")
    found = list(read(tmp_path))
    assert [one["seq"] for one in found] == list(range(found[0]["seq"], found[-1]["seq"] + 1))
    assert found[-1]["event"] == "after"
    assert [int(one["event"]) for one in found[:-1]] == [one["seq"] - 1 for one in found[:-1]]


def test_a_full_disk_is_told_once_and_harms_nobody(tmp_path, monkeypatch, capfd):
    made = EventLog(tmp_path)

    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        made.start()
        for _ in range(3):
            made.put({"event": "lost?"})
            time.sleep(0.05)
        made.stop()
    assert capfd.readouterr().err.count("No space left") == 1


def test_a_vnode_that_flaps_does_not_push_out_the_others(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(eventlog.time, "monotonic", lambda: clock[0])
    made = EventLog(tmp_path)
    made.start()
    for _ in range(1000):
        made.put({"event": "suspect", "vnode": 2})
    made.put({"event": "suspect", "vnode": 3})
    clock[0] = eventlog.EVERY_S
    made.put({"event": "suspect", "vnode": 2})
    made.stop()
    found = list(read(tmp_path))
    assert [one["vnode"] for one in found] == [2] * eventlog.OFTEN + [3, 2]
    assert found[-1]["skipped_before"] == 1000 - eventlog.OFTEN


def test_records_that_do_not_fit_are_counted(tmp_path):
    made = EventLog(tmp_path)
    for number in range(5000):
        made.put({"event": str(number)})
    made.start()
    made.put({"event": "late"})
    made.stop()
    assert next(iter(read(tmp_path)))["dropped_before"] >= 5000 - 4096


def test_a_log_line_is_a_record_for_the_sinks_and_json_when_asked(monkeypatch, capfd):
    got: list[dict] = []
    monkeypatch.setattr(log, "sinks", {got.append})
    log.start(as_json=True)
    log.write("warning", "crashed", vnode=2, what=ValueError("no \x1b[2J"), seconds=1.5)
    log.stop()
    log.start()
    log.stop()
    (record,) = got
    assert (record["event"], record["level"], record["vnode"]) == ("crashed", "warning", 2)
    line = json.loads(capfd.readouterr().err)
    assert line == record and line["what"] == "no \x1b[2J"


def test_the_daemons_states_are_in_the_log(rig):
    rig.machine.vnodes[2].crash()
    rig.wait(2, "running", incarnation=2)
    rig.finished(1)
    rig.stop()
    records = list(read(rig.state))
    states = [one["event"] for one in records if one.get("vnode") == 2 and "was" in one]
    assert states == [
        "loading",
        "booting",
        "running",
        "crashed",
        "fenced",
        "restarting",
        "booting",
        "running",
    ]
    assert {"daemon", "incident", "incident-done"} <= {one["event"] for one in records}
