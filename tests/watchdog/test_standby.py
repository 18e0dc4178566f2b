# SPDX-License-Identifier: GPL-2.0-or-later
"""Two real daemons on one fake machine: killed, hung, ended; one leader at each moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adeos.bridge import RootBridge
from crashdump.incident import DumpState
from crashdump.store import IncidentStore
from tests.watchdog.hardware import Hardware
from watchdog import notify
from watchdog.client import Client
from watchdog.errors import WatchdogError
from watchdog.eventlog import read
from watchdog.standby import HUNG_S, POLL_S, START_S, _Pace

HERE = Path(__file__).resolve()


class Pair:
    """A machine, and the daemons started on it."""

    def __init__(self, directory: Path, text: str, kernel: bytes) -> None:
        self.directory = directory
        self.hardware = Hardware(directory)
        (directory / "vmlinuz").write_bytes(kernel)
        self.config = directory / "vnodes.toml"
        self.config.write_text("[watch]\nrealtime = false\n" + text)
        self.state = directory / "state"
        self.client = Client(directory / "run" / "control.sock", timeout=10)
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as out:
            command = [sys.executable, "-m", "tests.watchdog.hardware"]
            command += [str(self.directory), str(self.config), *words]
            daemon = subprocess.Popen(command, stdout=out, stderr=out, cwd=HERE.parents[2])
        self.daemons.append(daemon)
        return daemon

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def until(self, true, what: str, limit: float = 30.0) -> None:
        end = time.monotonic() + limit
        while not true():
            assert time.monotonic() < end, f"waited {limit} s for: {what}\n{self.log()}"
            time.sleep(0.002)

    def leads(self, daemon: subprocess.Popen[bytes]) -> bool:
        try:
            return self.client.call("ping", timeout=1.0)["pid"] == daemon.pid
        except WatchdogError:
            return False

    def both(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        """A leader whose vnodes run, and a standby that waits."""
        leader = self.start()
        self.until(lambda: self.leads(leader), "the leader")
        self.until(lambda: self.runs(1), "vnode 1")
        return leader, self.stand_by()

    def stand_by(self) -> subprocess.Popen[bytes]:
        before = self.log().count("standby pid=")
        daemon = self.start("--standby")
        self.until(lambda: self.log().count("standby pid=") > before, "the standby")
        return daemon

    def runs(self, vnode: int, incarnation: int = 1) -> bool:
        status = RootBridge.open(self.hardware).status(vnode)
        return (
            status is not None
            and status.state.name == "RUNNING"
            and status.incarnation >= incarnation
        )

    def incidents(self) -> list:
        with IncidentStore(self.state, read_only=True) as store:
            return store.list()

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()
        self.hardware.close()


@pytest.fixture
def pair(tmp_path, monkeypatch, rig_tools):
    monkeypatch.setenv("VNODE_DEBUG_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("VNODE_DEBUG_STATE", str(tmp_path / "state"))
    text = rig_tools.vnode_text(1, "one", [1])
    for limit in ("300", "450", "600"):  # beats and daemons are in processes that share CPUs
        text = text.replace(f"limit_ms = {limit}", "limit_ms = 3000")
    made = Pair(tmp_path, text, rig_tools.tiny_bzimage())
    yield made
    made.close()


def test_a_killed_leader_is_succeeded_within_a_second(pair):
    leader, standby = pair.both()
    vnode = pair.hardware.vnodes[1]
    leader.kill()
    began = time.monotonic()
    leader.wait()
    pair.until(lambda: pair.leads(standby), "the standby leads")
    took = time.monotonic() - began
    print(f"answers {took * 1000:.0f} ms after the kill")
    assert took < 1.0
    assert pair.hardware.claims == [leader.pid, standby.pid]
    assert pair.hardware.vnodes[1] is vnode, "untouched"
    pair.until(lambda: [one for one in read(pair.state) if one["event"] == "take-over"], "a word")
    head = RootBridge.open(pair.hardware).head()
    assert (head.pid, head.epoch) == (standby.pid, 2)


def test_a_crash_while_nobody_leads_is_handled_by_the_standby(pair):
    leader, standby = pair.both()
    leader.kill()
    pair.hardware.vnodes[1].crash(message="unseen")
    pair.until(lambda: pair.runs(1, 2), "its successor")
    pair.until(lambda: [one for one in pair.incidents() if one.closed], "the incident")
    (one,) = pair.incidents()
    assert (one.reason, one.message, one.outcome) == ("panic", "unseen", "restarted")
    assert pair.hardware.starts == [1, 1]
    assert pair.leads(standby)


def test_a_hung_leader_is_killed_before_it_is_succeeded(pair):
    leader, standby = pair.both()
    leader.send_signal(signal.SIGSTOP)
    pair.until(lambda: pair.leads(standby), "the standby leads", limit=20)
    assert leader.wait(5) == -signal.SIGKILL
    assert pair.hardware.claims == [leader.pid, standby.pid]
    pair.until(lambda: "leader-hangs" in pair.log(), "it says so")


def test_an_orderly_end_is_not_succeeded_and_the_next_leader_is(pair):
    leader, standby = pair.both()
    pair.client.call("shutdown", vnodes="stop")
    assert leader.wait(10) == 0
    time.sleep(1.0)
    assert standby.poll() is None and pair.hardware.owner_pid == 0
    assert pair.hardware.query(1) is None, "what was stopped stays stopped"
    second = pair.start()
    pair.until(lambda: pair.leads(second), "the next leader")
    pair.until(lambda: pair.runs(1), "vnode 1")
    second.kill()
    pair.until(lambda: pair.leads(standby), "the standby leads")
    standby.terminate()
    assert standby.wait(10) == 0


def test_a_standby_ends_when_told(pair):
    leader, standby = pair.both()
    standby.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert standby.poll() is None
    standby.terminate()
    assert standby.wait(10) == 0
    assert pair.leads(leader)


def test_sighup_reads_the_config_anew(pair):
    leader = pair.start()
    pair.until(lambda: pair.runs(1), "vnode 1")
    pair.config.write_text("[dumps]\ncount = 3\n" + pair.config.read_text())
    leader.send_signal(signal.SIGHUP)
    pair.until(lambda: "reload what=[dumps]" in pair.log(), "it")
    pair.config.write_text("[dumps]\ncount = -3\n")
    leader.send_signal(signal.SIGHUP)
    pair.until(lambda: "error: reload" in pair.log(), "a word about the mistake")
    assert pair.leads(leader) and pair.runs(1)


def test_of_two_standbys_one_leads(pair):
    leader, first = pair.both()
    second = pair.stand_by()
    leader.kill()
    pair.until(lambda: pair.leads(first) or pair.leads(second), "one of them leads")
    time.sleep(0.5)
    assert len(pair.hardware.claims) == 2
    assert first.poll() is None and second.poll() is None


UNITS = sorted((HERE.parents[2] / "watchdog" / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_run_commands_that_there_are(unit):
    import click

    from cli.main import overview

    text = unit.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    program, *words = line.removeprefix("ExecStart=").split()
    assert Path(program).name == "vnode-debug"
    with overview.make_context("vnode-debug", words) as context:
        name, command, rest = overview.resolve_command(context, words)
        assert isinstance(command, click.Command)
        assert command.make_context(name, rest, parent=context).params
    assert ("Type=notify" in text) == ("WatchdogSec=" in text)


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("30000000", None, 30.0), ("30000000", "1", 0.0), ("", None, 0.0), ("soon", None, 0.0)],
)
def test_systemd_is_told_when_it_wants_to_know(monkeypatch, usec, pid, seconds):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_s() == seconds


def test_signs_of_life_stop_when_nothing_moves(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "60000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        moves = iter([1, 2, 3])

        async def run() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(notify.keep_alive(lambda: next(moves, 3)), 0.5)

        asyncio.run(run())
        got = []
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                got.append(systemd.recv(100))
    assert got == [b"WATCHDOG=1"] * 3


ROUNDS = int(os.environ.get("VNODE_DEBUG_KILLS", "6"))


def test_killed_in_turn_at_random_moments_of_incidents(pair):
    """VNODE_DEBUG_KILLS=200 for a campaign."""
    rng = random.Random(5)
    leader, standby = pair.both()
    took = []
    for number in range(1, ROUNDS + 1):
        pair.until(lambda n=number: pair.runs(1, n), f"incarnation {number}")
        pair.hardware.vnodes[1].crash(message=f"round {number}")
        time.sleep(rng.random() * 0.1)
        leader.kill()
        began = time.monotonic()
        leader.wait()
        pair.until(lambda: pair.leads(standby), "the standby leads")  # noqa: B023
        took.append(time.monotonic() - began)
        leader, standby = standby, pair.stand_by()
    pair.until(lambda: pair.runs(1, ROUNDS + 1), "the last successor")

    def settled() -> bool:
        return all(one.closed and one.dump.state is DumpState.DONE for one in pair.incidents())

    pair.until(settled, "closed incidents with dumps", limit=60)
    found = pair.incidents()
    messages = [one.message for one in found]
    assert messages == [f"round {n}" for n in range(1, ROUNDS + 1)], pair.log()
    failed = [one.incarnation for one in found]
    assert failed == sorted(set(failed)), "no incarnation recorded twice"
    assert len(pair.hardware.starts) == ROUNDS + 1, "one start a fault"
    assert len(set(pair.hardware.claims)) == len(pair.hardware.claims) == ROUNDS + 1
    took.sort()
    print(f"{ROUNDS} kills: answers after {took[len(took) // 2]:.2f} s, at most {took[-1]:.2f} s")


def test_two_standbys_at_boot_make_a_leader_and_a_standby(pair):
    first = pair.start("--standby")
    pair.until(lambda: pair.leads(first), "the first leads")
    assert "take-over" not in pair.log()
    second = pair.stand_by()
    first.terminate()
    pair.until(lambda: pair.leads(second), "the second leads")
    assert first.wait(10) == 0


def test_time_in_which_the_standby_stood_still_is_not_the_leaders():
    pace = _Pace()
    assert not pace.hung(7, 100.0)
    assert not pace.hung(7, 160.0), "a minute asleep counts as one look"
    looks = [pace.hung(7, 160.0 + n * POLL_S) for n in range(1, 100)]
    assert looks.count(True) == 1, "said once"
    assert abs(looks.index(True) * POLL_S - HUNG_S) <= 3 * POLL_S
    assert not pace.hung(8, 180.0)


def test_a_leader_that_starts_has_more_time():
    pace = _Pace()
    looks = [pace.hung(0, 1.0 + n * POLL_S) for n in range(int(START_S / POLL_S) + 2)]
    assert looks.index(True) * POLL_S >= START_S - 2 * POLL_S
