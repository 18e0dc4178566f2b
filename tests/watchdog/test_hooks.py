# SPDX-License-Identifier: GPL-2.0-or-later
"""Hooks: the incident on their input, a time limit, bounded output, and no harm to the watch."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from watchdog import hooks
from watchdog.eventlog import read


def daemon_with(make_rig, rig_tools, *scripts: str, timeout: int = 5):
    """A rig whose hooks are these shell scripts."""
    argvs = json.dumps([["/bin/sh", "-c", script] for script in scripts])
    text = f"[hooks]\non_incident = {argvs}\ntimeout_s = {timeout}\n"
    rig = make_rig(text + rig_tools.vnode_text(1, "one", [1])).start()
    rig.wait(1)
    rig.machine.vnodes[1].crash(message="boo\x1b[2J")
    rig.wait(1, "running", incarnation=2)
    return rig


def ran(rig, count: int = 1, event: str = "hook") -> list[dict]:
    def found() -> list[dict]:
        return [one for one in read(rig.state) if one["event"] == event]

    rig.until(lambda: len(found()) >= count, f"{count} of {event} in the event log")
    return found()


def test_a_hook_gets_the_incident(make_rig, rig_tools, tmp_path):
    rig = daemon_with(make_rig, rig_tools, f"cat > {tmp_path}/got; echo done; echo >&2 err")
    (record,) = ran(rig)
    assert (record["code"], record["id"], record["program"]) == ("0", 1, "/bin/sh")
    assert record["output"] == "done\\nerr\\n"
    got = json.loads((tmp_path / "got").read_text())
    assert (got["id"], got["outcome"], got["message"]) == (1, "restarted", "boo\\x1b[2J")


def test_one_that_overstays_is_killed_with_its_children(make_rig, rig_tools, tmp_path):
    script = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    rig = daemon_with(make_rig, rig_tools, script, "echo next", timeout=1)
    first, second = ran(rig, 2)
    assert (first["code"], first["level"]) == ("killed", "warning")
    assert second["output"] == "next\\n", "the others still run"
    pid = int((tmp_path / "pid").read_text())

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    rig.until(gone, "its child is gone")


@pytest.mark.parametrize(
    ("script", "code", "size"),
    [
        ("exec 0<&-; exit 3", "3", 0),
        ("yes | head -c 10000000", "0", hooks.OUTPUT_MAX),
        ("kill -9 $$", "-9", 0),
        ("printf '\\377\\033[2J'", "0", 11),
    ],
)
def test_odd_hooks(make_rig, rig_tools, script, code, size):
    rig = daemon_with(make_rig, rig_tools, script)
    (record,) = ran(rig)
    assert record["code"] == code and len(record["output"]) == size
    assert record["output"].isprintable()


def test_the_watch_goes_on_while_a_hook_hangs(make_rig, rig_tools):
    rig = daemon_with(make_rig, rig_tools, "sleep 600", timeout=3600)
    began = time.monotonic()
    rig.machine.vnodes[1].crash()
    rig.wait(1, "running", incarnation=3)
    assert time.monotonic() - began < 5
    assert rig.stop() == 0


def test_a_missing_program_is_told(make_rig, rig_tools):
    text = '[hooks]\non_incident = [["/nonexistent/page"]]\n' + rig_tools.vnode_text(1, "one", [1])
    rig = make_rig(text).start()
    rig.wait(1)
    rig.machine.vnodes[1].crash()
    (record,) = ran(rig)
    assert record["level"] == "error" and "No such file" in record["what"]
