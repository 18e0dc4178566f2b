# SPDX-License-Identifier: GPL-2.0-or-later
"""What needs a terminal, on a real pseudo-terminal: status --watch, the console, Ctrl-C."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30

PROGRAM = """
import runpy, sys
from cli.main import run
world = runpy.run_path("tests/cli/conftest.py")["FakeWorld"]()
world.daemon()
world.vnode(1, "alpha").print(b"login: \\x1b[1mbold\\x1b[0m\\r\\n")
sys.exit(run(sys.argv[1:], machine=lambda: world.machine))
"""


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *words):
        self.fd, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=ROOT,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        )

    def until(self, text):
        """Read until this text was shown."""
        end = time.monotonic() + LIMIT_S
        while text not in self.output:
            assert time.monotonic() < end, self.output
            if select.select([self.fd], [], [], 0.1)[0]:
                self.output += os.read(self.fd, 65536)

    def type(self, keys):
        os.write(self.fd, keys)

    def end(self):
        """The exit code; what is left of the output is read."""
        code = self.process.wait(LIMIT_S)
        while select.select([self.fd], [], [], 0)[0]:
            self.output += os.read(self.fd, 65536)
        return code

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self.slave)


@pytest.fixture
def terminal(places):
    made = []

    def make(*words):
        made.append(Terminal(*words))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_watch_redraws_until_q_and_leaves_the_last_table(terminal):
    tty = terminal("status", "--watch", "--interval", "0.1")
    tty.until(b"\x1b[?1049h")
    tty.until(b"alpha")
    assert termios.tcgetattr(tty.slave)[3] & termios.ICANON == 0
    tty.type(b"q")
    assert tty.end() == 0
    after = tty.output.partition(b"\x1b[?1049l")[2]
    assert b"alpha" in after
    assert termios.tcgetattr(tty.slave) == tty.before


def test_watch_ends_on_an_interrupt_and_puts_the_terminal_back(terminal):
    tty = terminal("status", "--watch")
    tty.until(b"alpha")
    tty.process.send_signal(signal.SIGINT)
    assert tty.end() == 130
    assert b"interrupted" in tty.output
    assert b"Traceback" not in tty.output
    assert termios.tcgetattr(tty.slave) == tty.before


def test_console_gives_the_terminal_the_vnodes_bytes_until_the_escape_key(terminal):
    tty = terminal("console", "1")
    tty.until(b"login: \x1b[1mbold\x1b[0m\r\n")
    tty.type(b"\x1d")
    assert tty.end() == 0
    assert termios.tcgetattr(tty.slave) == tty.before


def test_console_without_input_shows_no_escapes(terminal):
    tty = terminal("console", "1", "--no-input")
    tty.until(b"login: \\x1b[1mbold")
    tty.process.send_signal(signal.SIGINT)
    assert tty.end() == 130


def test_keys_without_a_daemon_end_the_console_with_a_line(terminal):
    tty = terminal("console", "1")
    tty.until(b"bold")
    tty.type(b"x")
    assert tty.end() == 6
    assert b"no daemon at" in tty.output
    assert termios.tcgetattr(tty.slave) == tty.before


def test_watch_without_a_terminal_adds_lines(places):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "status", "--watch", "--interval", "0.1"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    lines = [process.stdout.readline().split()[1:5] for _ in range(2)]
    assert lines == [[b"0", b"root", b"watching", b"daemon"], [b"1", b"alpha", b"running", b"-"]]
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_S) == 130
    assert process.stderr.read() == b"vnode-debug: interrupted\n"


def test_watch_as_json_is_a_line_a_look(places):
    import json

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "status", "--watch", "--interval", "0.1", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(3):
        assert [row["id"] for row in json.loads(process.stdout.readline())] == [0, 1]
    process.stdout.close()
    assert process.wait(LIMIT_S) == 141
    assert process.stderr.read() == b""
