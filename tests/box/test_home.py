# SPDX-License-Identifier: GPL-2.0-or-later
"""Records, stale boxes, refusals: all that can be tried without booting."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from box import home, host, machine, process
from box.errors import BadOption, BoxError, HostLacks, Refused


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VNODE_DEBUG_BOX", str(tmp_path / "box"))
    (tmp_path / "box").mkdir(mode=0o700)
    return tmp_path / "box"


def record_of(pid: int, *, ready: bool = True) -> home.Record:
    identity = process.identify(pid)
    assert identity is not None
    return home.Record(
        *(pid, identity.start, 2222, 2 << 30, 4, "tcg", "6.1"), started=time.time(), ready=ready
    )


@pytest.fixture
def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def test_no_record_is_down() -> None:
    assert machine.status().state is home.State.DOWN
    assert not machine.running()
    assert machine.down(print) is False
    with pytest.raises(Refused, match="box up"):
        machine.exec_argv(["true"], tty=False)


def test_a_live_process_is_a_box(sleeper: subprocess.Popen[bytes]) -> None:
    home.write_record(record_of(sleeper.pid, ready=False))
    assert machine.status().state is home.State.BOOTING
    home.write_record(record_of(sleeper.pid))
    assert machine.status().state is home.State.RUNNING
    with pytest.raises(Refused, match="runs already") as caught:
        machine.up(machine.Options(), print)
    assert caught.value.exit_code == 6
    sleeper.kill()
    sleeper.wait()
    assert machine.status().state is home.State.DEAD


def test_a_reused_pid_is_no_box(sleeper: subprocess.Popen[bytes], directory: Path) -> None:
    """Another process with the pid of a killed QEMU is neither taken for it nor ended."""
    record = record_of(sleeper.pid)
    home.write_record(replace(record, start=record.start - 1))
    assert machine.status().state is home.State.DEAD
    assert machine.down(print) is False
    assert not (directory / "box.json").exists()
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()


def test_down_ends_the_process_of_the_record(sleeper: subprocess.Popen[bytes]) -> None:
    home.write_record(record_of(sleeper.pid, ready=False))
    assert machine.down(print) is True
    assert machine.status().state is home.State.DOWN


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b'{"a": 1}', b"\xff\xfe"])
def test_damaged_record(directory: Path, content: bytes) -> None:
    (directory / "box.json").write_bytes(content)
    with pytest.raises(BoxError, match=r"box\.json is damaged"):
        machine.status()


def test_two_commands_at_once(directory: Path) -> None:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another command"):
            machine.down(print)


def test_long_directory_gets_short_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VNODE_DEBUG_BOX", str(tmp_path / ("x" * 120)))
    sockets = home.sockets()
    assert len(str(sockets)) <= home.SOCKET_PATH_MAX
    assert sockets.stat().st_mode & 0o777 == 0o700
    sockets.rmdir()


def test_port_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        with pytest.raises(Refused, match="port"):
            host.free_port(other.getsockname()[1])
    assert host.free_port(0) > 0


@pytest.mark.parametrize("port", [-1, 70000])
def test_port_that_cannot_be(port: int) -> None:
    with pytest.raises(BoxError):
        host.free_port(port)


def test_too_little_memory() -> None:
    with pytest.raises(HostLacks, match="memory") as caught:
        host.check(1 << 50)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("options", [{"memory": 1 << 30}, {"cpus": 1}, {"cpus": 99}])
def test_bad_options_start_nothing(options: dict[str, int], directory: Path) -> None:
    with pytest.raises(BadOption):
        machine.up(machine.Options(**options), print)
    assert list(directory.iterdir()) == []


@given(st.text(max_size=30), st.integers(0, 1 << 63))
def test_process_names_do_not_fool_the_parser(name: str, start: int) -> None:
    line = f"77 ({name}) S " + " ".join(["1"] * 18) + f" {start} 5 6\n"
    assert process.parse_stat(line) == ("S", start)


def test_own_identity_is_stable() -> None:
    mine = process.identify(os.getpid())
    assert mine is not None and process.alive(mine)
    assert not process.alive(mine._replace(start=mine.start + 1))
    assert process.identify(1 << 30) is None
