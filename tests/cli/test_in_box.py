# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of the host that do their work in the box: output, exit codes, terminal, Ctrl-C."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VD = [sys.executable, str(ROOT / "vnode_debug.py")]
LIMIT_S = 120


def vd(*words):
    return subprocess.run([*VD, *words], capture_output=True, text=True, timeout=LIMIT_S)


@pytest.fixture(autouse=True)
def _no_device():
    if Path("/dev/kmb").exists():
        pytest.skip("this machine has a /dev/kmb: its verbs work here")


def test_doctor_checks_the_root_vnode(box):
    done = vd("doctor", "--json")
    report = json.loads(done.stdout)
    assert report["role"] == "root vnode"
    verdicts = {c["name"]: c["verdict"] for c in report["checks"]}
    assert verdicts["/dev/kmb"] == verdicts["CPUs"] == verdicts["memory"] == "ok"
    assert done.returncode == 0, report


def test_failures_have_the_far_verbs_code_and_line(box):
    done = vd("show", "999999")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("vnode-debug: no incident 999999")
    assert done.stderr.count("\n") == 1


def test_exec_passes_words_output_and_exit_code(box):
    done = vd("box", "exec", "--", "sh", "-c", 'printf "%s|" "$@"; exit 9', "sh", "a b", "$x", "'")
    assert (done.returncode, done.stdout) == (9, "a b|$x|'|")


def on_terminal(words, keys_after):
    """(exit code, output) of a command on a pseudo-terminal; keys are typed once text was seen."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(words[0], words)
    output, end = b"", time.monotonic() + LIMIT_S
    wait = list(keys_after)
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                output += os.read(fd, 65536)
            except OSError:  # the program has ended
                break
        if wait and wait[0][0] in output:
            os.write(fd, wait.pop(0)[1])
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


def test_a_shell_gets_a_terminal_of_this_ones_kind(box):
    keys = [(b"# ", b"test -t 0 && echo is-a-$((40+2))-tty; exit 7\r")]
    code, output = on_terminal([*VD, "box", "shell"], keys)
    assert b"is-a-42-tty" in output
    assert code == 7


def test_ctrl_c_reaches_the_far_verb(box):
    code, output = on_terminal([*VD, "box", "console"], [(b"box: ready", b"\x03")])
    assert code == 130, output[-200:]
    words = [*VD, "box", "exec", "--", "sh", "-c", "trap 'exit 33' INT; echo on; sleep 60"]
    code, output = on_terminal(words, [(b"on", b"\x03")])
    assert code == 33
