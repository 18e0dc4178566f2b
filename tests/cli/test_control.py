# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs that act, with the real daemon on a fake machine, by its real socket."""

import json
import runpy
import threading
from pathlib import Path

import pytest

from cli.main import run
from watchdog.client import Client
from watchdog.config import Restart
from watchdog.freezing import FREEZE_S

RIG = runpy.run_path(str(Path(__file__).parents[1] / "watchdog" / "conftest.py"))
VNODE_TEXT, MACHINE = RIG["vnode_text"], RIG["LastingMachine"]


@pytest.fixture
def rig(places, monkeypatch):
    """The daemon with vnodes one (CPU 1) and two (CPUs 2, 3) running, three (CPU 3) not started."""
    text = VNODE_TEXT(1, "one", [1]) + VNODE_TEXT(2, "two", [2, 3])
    text += VNODE_TEXT(3, "three", [4], autostart=False)
    monkeypatch.setattr("watchdog.log.write", lambda *_, **__: None)  # it shares our stderr
    made = RIG["Rig"](places, MACHINE(ncpus=4), text)
    made.start()
    made.wait(1)
    made.wait(2)
    yield made
    made.close()


@pytest.fixture
def vd(rig, capfd):
    """Runs a command line on the rig's machine: (code, stdout, stderr)."""

    def call_it(*arguments):
        capfd.readouterr()
        code = run(arguments, machine=lambda: rig.machine)
        if arguments[0] == "down" and code == 0 and "--dry-run" not in arguments:
            rig._thread.join(10)
        out, err = capfd.readouterr()
        return int(code), out, err

    return call_it


def states(vd):
    return {r["name"]: r["state"] for r in json.loads(vd("status", "--json")[1])}


def test_status_shows_what_the_daemon_published(vd):
    assert states(vd) == {
        "root": "watching",
        "one": "running",
        "two": "running",
        "three": "offline",
    }


def test_stop_and_start_wait_for_their_end(vd):
    code, out, _ = vd("stop", "one", "two", "--wait")
    assert (code, out) == (0, "vnode 1 (one): stopped\nvnode 2 (two): stopped\n")
    assert states(vd)["one"] == "stopped"
    code, out, _ = vd("start", "one", "--wait", "--json")
    assert code == 0
    assert json.loads(out)[0]["state"] == "running"
    assert json.loads(out)[0]["incarnation"] == 2


def test_fence_keeps_the_memory(vd, rig):
    assert vd("fence", "one", "--dry-run")[1].startswith("vnode 1 (one): is running; park CPU 1")
    assert vd("fence", "one")[:2] == (0, "vnode 1 (one): fenced\n")
    code, _, err = vd("fence", "one")
    assert code == 6 and "is fenced; only a vnode that runs" in err
    assert rig.machine.query(1) is not None and rig.incidents() == []
    assert vd("start", "one", "--wait")[0] == 0


def test_restart_waits_for_a_new_incarnation(vd, rig):
    code, out, _ = vd("restart", "2", "--wait", "--json")
    assert code == 0
    assert json.loads(out)[0]["incarnation"] == 2
    assert rig.incidents() == []


def test_waiting_ends_with_7(vd, rig):
    rig.mute.add(3)
    rig.machine.boots = False
    code, out, err = vd("start", "three", "--wait", "--timeout", "0.3")
    assert (code, out) == (7, "")
    assert "vnode 3 (three) is booting after 0.3 s" in err


def test_a_wrong_name_among_right_ones_stops_nothing(vd):
    code, _, err = vd("stop", "one", "nine")
    assert code == 4
    assert "there is no vnode nine" in err
    assert states(vd)["one"] == "running"


@pytest.mark.parametrize(
    "words",
    [
        ("stop", "1"),
        ("restart", "2"),
        ("start", "three"),
        ("inject", "1", "panic"),
        ("dump", "1"),
        ("down",),
    ],
)
def test_dry_runs_change_nothing(vd, words):
    before = states(vd)
    code, out, err = vd(*words, "--dry-run")
    assert (code, err) == (0, "")
    assert out
    assert states(vd) == before


def test_a_restarts_dry_run_shows_what_a_crash_leads_to(vd):
    code, out, _ = vd("restart", "two", "--dry-run")
    assert code == 0 and "After a crash, strategy spare:" in out
    assert [line.split()[0] for line in out.splitlines()[2:]] == [
        "fenced",
        "captured",
        "loaded",
        "started",
        "running",
    ]
    (item,) = json.loads(vd("restart", "2", "--dry-run", "--strategy", "manual", "--json")[1])
    assert item["strategy"] == "manual" and item["steps"][-1]["step"] == "started"
    code, out, err = vd("restart", "2", "--dry-run", "--strategy", "hope")
    assert (code, out) == (2, "") and "'hope' is not one of" in err


def test_slots_are_staged_shown_and_blessed(vd, rig):
    new = rig.config.parent / "new"
    new.write_bytes(RIG["tiny_bzimage"]() + bytes(512))
    assert vd("bless", "one")[1] == "vnode 1 (one): slot a is good; a starts next\n"
    code, out, _ = vd("stage", "one", "--kernel", str(new))
    assert code == 0 and out.startswith(f"vnode 1 (one): slot b: {new} (")
    _, out, _ = vd("slots", "one")
    assert [line.split()[2:4] for line in out.splitlines()[1:]] == [
        ["a", "good"],
        ["b", "indeterminate"],
    ]
    assert len(json.loads(vd("slots", "--json")[1])) == 3
    code, out, _ = vd("bless", "one", "--slot", "b", "--bad", "--json")
    assert code == 0 and json.loads(out)["next"] == "a"
    rig.stop()
    assert "called bad by an operator" in vd("slots", "1")[1], "without a daemon"
    assert vd("bless", "one")[0] == 6
    (rig.state / "slots" / "1.json").write_text("[]")
    code, out, err = vd("slots")
    assert (code, out, err.count("\n")) == (1, "", 1) and "1.json" in err


def test_clear_takes_out_of_quarantine(vd, rig):
    assert vd("clear", "one")[0] == 6
    rig.machine.unparkable.add(1)
    rig.machine.vnodes[1].crash()
    rig.wait(1, "quarantined")
    assert vd("clear", "one")[0] == 6, "its CPU is not parked"
    rig.machine.unparkable.clear()
    assert vd("clear", "one")[:2] == (0, "vnode 1 (one): stopped\n")


def test_reload_says_what_it_did_and_what_not(vd, rig):
    assert vd("reload")[1] == "nothing has changed\n"
    text = rig.config.read_text().replace("cpus = [1]", "cpus = [4]")
    rig.config.write_text(text.replace("[watch]\n", "[dumps]\ncount = 9\n[watch]\n"))
    code, out, err = vd("reload")
    assert (code, out) == (0, "[dumps]\n")
    assert err == "not done: vnode 1 (one): cpus: it runs; stop it, then reload\n"
    assert json.loads(vd("reload", "--json")[1])["applied"] == []
    rig.config.write_text("[[vnode]\n")
    code, out, err = vd("reload")
    assert (code, out) == (3, "") and str(rig.config) in err


def test_refusals_are_the_daemons_words(vd):
    code, out, err = vd("start", "one")
    assert (code, out) == (6, "")
    assert err == 'vnode-debug: vnode 1 "one" is already running\n'


def test_inject_panic_then_the_incident_is_there(vd, rig):
    code, out, _ = vd("inject", "two", "panic", "--cpu", "1")
    assert (code, out) == (0, "vnode 2 (two): panic injected\n")
    rig.wait(2, incarnation=2)
    rig.finished(1)
    (incident,) = json.loads(vd("incidents", "--json")[1])
    assert (incident["reason"], incident["cpu"], incident["vnode"]) == ("panic", 1, 2)
    code, out, _ = vd("show", "1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line[:4] in ("faul", "seen", "fenc")]
    assert "1 one" in out
    assert "Kernel panic - not syncing" in out


def test_inject_of_a_cpu_that_is_not_there(vd):
    code, _, err = vd("inject", "one", "panic", "--cpu", "1")
    assert code == 2
    assert "has 1 CPU(s)" in err


def test_dump_writes_a_vmcore_and_prints_its_path(vd, rig):
    code, out, err = vd("dump", "1")
    assert code == 0, err
    assert Path(out.strip()).stat().st_size > 32 << 20
    assert "different moments" in err


def test_console_shows_what_the_vnode_wrote_and_passes_keys(vd, rig):
    vnode = rig.machine.vnodes[1]
    vnode.print(b"login: \x1b[31mred\x1b[0m\r\n")
    code, out, _ = vd("console", "1")
    assert (code, out) == (0, "login: \\x1b[31mred\\x1b[0m\n")
    assert json.loads(vd("console", "1", "--json")[1])["text"] == out
    from cli.console import write

    write(rig.client, 1, b"ls\r")
    assert vnode.keys() == b"ls\r"


def test_console_goes_on_over_a_restart(vd, rig):
    from cli.console import Console

    console = Console(rig.machine, __import__("cli.observe").observe.find(rig.machine, "one"))
    rig.machine.vnodes[1].print(b"first")
    assert console.read() == (b"first", "")
    vd("restart", "one", "--wait")
    rig.machine.vnodes[1].print(b"second")
    data, remark = console.read()
    assert (data, remark) == (b"", "vnode 1 was restarted: incarnation 2")
    assert console.read() == (b"second", "")


def test_log_of_a_vnode_without_a_kernel(vd):
    code, out, err = vd("log", "one")
    assert (code, out) == (1, "")
    assert err.startswith("vnode-debug: vnode 1 (one), running: no Linux kernel")


def test_log_of_a_stopped_vnode_points_to_its_incidents(vd):
    vd("stop", "one", "--wait")
    code, _, err = vd("log", "one")
    assert code == 4
    assert "vnode-debug incidents" in err


def test_commands_without_a_daemon(vd, rig):
    rig.stop()
    for words in (("stop", "1"), ("restart", "1"), ("dump", "1"), ("inject", "1", "oops")):
        code, out, err = vd(*words)
        assert (code, out) == (6, "")
        assert "no daemon at" in err
        assert err.count("\n") == 1
    assert states(vd)["root"] == "unwatched"


def test_waiting_notices_the_daemons_death(vd, rig):
    rig.mute.add(3)
    rig.machine.boots = False
    killer = threading.Timer(0.3, rig.stop)
    killer.start()
    code, _, err = vd("start", "three", "--wait", "--timeout", "20")
    killer.join()
    assert code == 6
    assert "the daemon died over it" in err


def test_down_stops_all(vd, rig):
    code, out, err = vd("down", "--json")
    assert (code, err) == (0, "")
    assert [one["name"] for one in json.loads(out)["stopped"]] == ["one", "two"]
    assert rig.machine.query(1) is None
    code, _, err = vd("down")
    assert (code, err) == (0, "the daemon was not running\n")


def test_down_can_leave_the_vnodes_running(vd, rig):
    assert vd("down", "--keep-running")[0] == 0
    assert rig.machine.query(1).started == 1
    code, _, err = vd("down")
    assert code == 6
    assert "'vnode-debug up' adopts them" in err
    rig.start()
    assert states(vd)["one"] == "running"


def test_up_of_a_running_daemon_only_says_so(vd, rig):
    code, out, err = vd("up", "--config", str(rig.config), "--wait")
    assert code == 0
    assert "runs already" in err
    assert out == "vnode 1 (one): running\nvnode 2 (two): running\n"


def test_up_dry_run_checks_the_config(vd, rig):
    code, out, _ = vd("up", "--config", str(rig.config), "--dry-run")
    assert code == 0
    assert "3 vnode(s), no mistakes" in out
    rig.config.write_text("[[vnode]]\nid = 0\nname = '9'\n")
    code, out, err = vd("up", "--config", str(rig.config), "--dry-run")
    assert (code, out) == (3, "")
    assert all(line.startswith(f"vnode-debug: {rig.config}") for line in err.splitlines())


def test_a_second_daemon_is_refused(vd, rig):
    code, out, err = vd("daemon", "--config", str(rig.config))
    assert (code, out) == (6, "")
    assert err.count("\n") == 1
    assert rig.client.call("ping")["ok"]


def test_freeze_waits_for_all_that_the_daemon_waits_for(call, world, monkeypatch):
    asked = []

    def answer(client, verb, *, timeout=None, **_):
        asked.append(client.timeout if timeout is None else timeout)
        return {"images": []}

    monkeypatch.setattr(Client, "call", answer)
    assert call("freeze", "2", world=world).code == 0
    assert len(asked) == 1 and asked[0] > FREEZE_S + Restart().resume_ms / 1000
