# SPDX-License-Identifier: GPL-2.0-or-later
"""A vnode with a Debian on its console, and another for it to look at."""

from __future__ import annotations

import os
import pty
import re
import secrets
import select
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    RunningBox = Any

UNTIL = 700.0  # s; vnode-debug starts slowly on a CPU that is emulated on a busy host
CONFIG = "/tmp/peers.toml"


class Console:
    """`vnode-debug console 1` on a terminal, with a shell at the other end."""

    def __init__(self) -> None:
        from box import machine

        ours, theirs = pty.openpty()
        argv = machine.exec_argv(["vnode-debug", "console", "1"], tty=True)
        self._end = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._fd = ours
        self._seen = b""
        self._count = 0
        self._token = secrets.token_hex(3)  # the console shows what earlier readers saw as well

    def type(self, line: str) -> None:
        os.write(self._fd, line.encode() + b"\n")

    def wait(self, pattern: str, timeout: float = UNTIL) -> str:
        """What came up to the end of `pattern`, and not before."""
        end = time.monotonic() + timeout
        wanted = re.compile(pattern.encode(), re.DOTALL)
        while (found := wanted.search(self._seen)) is None:
            left = end - time.monotonic()
            tail = self._seen[-3000:].decode(errors="replace")
            assert left > 0, f"no {pattern!r} on the console: {tail}"
            if select.select([self._fd], [], [], min(left, 1.0))[0]:
                self._seen += os.read(self._fd, 65536)
        text = self._seen[: found.end()]
        self._seen = self._seen[found.end() :]
        return text.decode(errors="replace").replace("\r", "")

    def run(self, command: str, timeout: float = UNTIL) -> tuple[int, str]:
        """(exit status, output) of a shell line in the vnode."""
        self.type(self.marked(command))
        mark = self._mark()
        self.wait(rf"begin-{mark}\r?\n", timeout)
        text = self.wait(rf"end-{mark}-\d+\.", timeout)
        output, _, status = text.rpartition(f"end-{mark}-")
        return int(status.rstrip(".")), output

    def marked(self, command: str) -> str:
        """A line that says where its output begins and ends; its echo does not look like that."""
        self._count += 1
        mark = self._mark()
        return f"echo 'begin-''{mark}'; {command} 2>&1; echo 'end-''{mark}-'$?."

    def _mark(self) -> str:
        return f"{self._token}-{self._count}"

    def kill(self) -> None:
        """End it where the root answers no more."""
        self._end.kill()
        self._end.wait()
        os.close(self._fd)

    def close(self) -> None:
        os.write(self._fd, b"\x1d")
        try:
            self._end.wait(20)
        except subprocess.TimeoutExpired:
            self._end.kill()
        os.close(self._fd)


class Peers:
    """The root's vnode-debug, and vnode 1's console."""

    def __init__(self, box: RunningBox) -> None:
        self.box = box
        self.console = Console()

    def root(self, *words: str) -> str:
        return str(self.box.check(["vnode-debug", *words], UNTIL))


# Beats often enough to be seen, seldom enough for a host that has many tests to run.
PATIENT = """[vnode.watch]
irq = { period_ms = 100, limit_ms = 10000 }
sched = { period_ms = 200, limit_ms = 20000 }
user = { period_ms = 500, limit_ms = 30000 }
boot_timeout_ms = 600000
"""


def config(kernel: str) -> str:
    """vnodes.toml: a Debian in vnode 1, and vnode 2 small as always."""
    from box import layout

    text = "[watch]\nperiod_ms = 50\n"
    for number, initrd, memory in (
        (1, layout.DEBIAN_INITRD, layout.DEBIAN_MEMORY >> 20),
        (2, layout.INITRD, 256),
    ):
        text += layout.vnode_toml(number, f"peer{number}", [number], memory, kernel, initrd)
        text += PATIENT + layout.RESTART
    return text


@pytest.fixture
def console_type() -> type[Console]:
    """For a test that opens the console itself."""
    return Console


@pytest.fixture(scope="package")
def peers(box: RunningBox) -> Iterator[Peers]:
    from box import kernels, userland

    kernel = kernels.fetch("cloud", print)
    userland.debian_initrd([kernel], print)
    box.run(["vnode-debug", "down"], UNTIL)
    text = config(f"/boot/vmlinuz-{kernel.version}")
    assert box.run(["sh", "-c", f"cat >{CONFIG}"], input=text).returncode == 0
    box.check(["vnode-debug", "up", "--config", CONFIG, "--wait", "--timeout", "600"], UNTIL)
    both = Peers(box)
    try:
        both.console.wait("is up after .*#")
        both.console.run("dmesg -n 1")  # no kernel message amid the output
        yield both
    finally:
        both.console.close()
        box.run(["vnode-debug", "down"], UNTIL)
