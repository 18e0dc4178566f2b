# SPDX-License-Identifier: GPL-2.0-or-later
"""Working on another machine: quoting, exit codes, who ends when the caller goes away.

ssh is replaced by a script that hands the command line to a shell, as sshd does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import remote
from cli.errors import MachineMissing
from cli.session import Session

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = [sys.executable, str(ROOT / "vnode_debug.py")]
SSH = """#!/bin/sh
printf '%s\\n' "$@" > "$SHIM_LOG"
while [ "$1" != -- ]; do shift; done
shift 2
exec sh -c "exec $*"
"""


@pytest.fixture
def ssh(places, monkeypatch):
    """A machine "far" that is this one; returns the file with ssh's last arguments."""
    tools = places / "bin"
    tools.mkdir()
    for name, text in (("ssh", SSH), ("vnode-debug", f'#!/bin/sh\nexec {" ".join(LAUNCHER)} "$@"')):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SHIM_LOG", str(places / "ssh.log"))
    return places / "ssh.log"


def test_output_and_exit_code_are_the_far_verbs(call, ssh):
    result = call("--host", "root@far", "incidents", "--json")
    assert (result.code, json.loads(result.out)) == (0, [])
    assert ssh.read_text().splitlines()[:3] == ["-T", "--", "root@far"]
    result = call("--host", "root@far", "show", "7")
    assert result.code == 4
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "word",
    [
        "a b",
        "; touch owned",
        "$(touch owned)",
        "'\"",
        "*",
        "\\",
        "\n",
        "-",
        "--",
        "é\u202e",
    ],
)
def test_arguments_arrive_as_they_are(call, ssh, places, monkeypatch, word):
    monkeypatch.chdir(places)
    result = call("--host", "far", "incidents", "--json", f"--reason={word}")
    assert (result.code, result.out.strip(), result.err) == (0, "[]", "")
    assert not (places / "owned").exists()


@pytest.mark.parametrize("host", ["", "-oProxyCommand=id", "a b", "a@b@c", "root@", "x;y", "$(id)"])
def test_a_host_that_ssh_could_misread_is_refused(call, ssh, host):
    result = call(f"--host={host}", "incidents")
    assert result.code == 2
    assert "is not USER@MACHINE" in result.err
    assert not ssh.exists()


def test_quiet_and_no_color_travel(call, ssh):
    assert call("-q", "--host", "far", "incidents").err == ""
    assert "NO_COLOR=1" in ssh.read_text()


def test_a_connection_that_fails_is_one_line(call, ssh, places):
    (places / "bin/ssh").write_text("#!/bin/sh\nexit 255\n")
    result = call("--host", "far", "incidents")
    assert result.code == 5
    assert "far cannot be reached" in result.err


def test_no_ssh_client(call, places, monkeypatch):
    monkeypatch.setenv("PATH", str(places))
    result = call("--host", "far", "incidents")
    assert result.code == 5
    assert "openssh-client" in result.err


def test_verbs_of_this_machine_refuse_a_host(call, ssh):
    result = call("--host", "far", "box", "status")
    assert result.code == 2
    assert "works on this machine" in result.err


def test_a_terminal_is_asked_for_when_there_is_one():
    target = remote.machine_at("far")
    assert target.command(["status"], terminal=True)[:2] == ["ssh", "-tt"]
    assert "--remote-end" not in target.command(["status"], terminal=True)[-1]
    assert "--remote-end status" in target.command(["status"], terminal=False)[-1]


class Elsewhere:
    """Session.elsewhere with and without a device, a box and a host."""

    target = remote.Target("box", lambda far, terminal: [*far])

    def session(self, monkeypatch, tmp_path, *, device, box):
        monkeypatch.setattr("cli.session.DEVICE", tmp_path if device else tmp_path / "none")
        return Session(box=lambda: self.target if box else None)


class TestElsewhere(Elsewhere):
    def test_the_device_here_comes_first(self, monkeypatch, tmp_path):
        session = self.session(monkeypatch, tmp_path, device=True, box=True)
        assert session.elsewhere(required=True) is None

    def test_then_the_box(self, monkeypatch, tmp_path):
        session = self.session(monkeypatch, tmp_path, device=False, box=True)
        assert session.elsewhere(required=True) is self.target

    def test_a_host_goes_before_both(self, monkeypatch, tmp_path):
        session = self.session(monkeypatch, tmp_path, device=True, box=True)
        session.host = remote.machine_at("far")
        assert session.elsewhere(required=False) is session.host

    def test_nothing_at_all(self, monkeypatch, tmp_path):
        session = self.session(monkeypatch, tmp_path, device=False, box=False)
        assert session.elsewhere(required=False) is None
        with pytest.raises(MachineMissing, match="box up"):
            session.elsewhere(required=True)


WAITER = """
import signal, sys, time
from cli.remote import end_with_the_caller
try:
    end_with_the_caller()
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
"""


def test_the_far_end_ends_when_its_reader_is_gone():
    process = subprocess.Popen(
        [sys.executable, "-c", WAITER], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    assert process.poll() is None
    process.stdout.close()
    assert process.stderr.read() == b"interrupted\n"
    assert process.wait(30) == 0


def test_ctrl_c_ends_the_caller_with_130(ssh, places):
    (places / "bin/vnode-debug").write_text("#!/bin/sh\necho ready\nexec sleep 60\n")
    process = subprocess.Popen(
        [*LAUNCHER, "--host", "far", "incidents"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout.readline() == b"ready\n"
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert time.monotonic() - begin < 20
    assert b"Traceback" not in process.stderr.read()


def test_completion_offers_nothing_when_the_far_side_is_slow(ssh, places):
    (places / "bin/vnode-debug").write_text("#!/bin/sh\nexec sleep 60\n")
    assert remote.machine_at("far").capture(["status", "--json"], 0.2) == b""
