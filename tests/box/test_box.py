# SPDX-License-Identifier: GPL-2.0-or-later
"""The running box."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from box import cache, layout, machine
from box.errors import Refused

if TYPE_CHECKING:
    from typing import Any

    RunningBox = Any


def test_root_vnode_has_one_cpu_of_four(box: RunningBox) -> None:
    assert box.check("cat /sys/devices/system/cpu/present").strip() == "0-3"
    assert box.check("cat /sys/devices/system/cpu/online").strip() == "0"


def test_vnode_memory_is_reserved(box: RunningBox) -> None:
    taken = []
    for line in box.check("cat /proc/iomem").splitlines():
        span, _, what = line.partition(" : ")
        if what == "Reserved":
            start, end = (int(part, 16) for part in span.split("-"))
            taken.append((start, end + 1))
    for want in (layout.SLOTS, layout.LOW_POOL):
        assert any(s <= want.base and want.base + want.size <= e for s, e in taken), want


def test_versions(box: RunningBox) -> None:
    assert "Debian 13.1" in box.check("gdb --version")
    assert box.check("uname -r").strip().startswith("6.1.0-")
    assert box.check("python3 --version").startswith("Python 3.11")
    box.check("python3 -c 'import capstone, click, drgn, lz4, msgspec, zstandard'")
    box.check("command -v makedumpfile tmux less strace lsmod ps ip")


def test_exit_status_and_streams(box: RunningBox) -> None:
    done = box.run("echo out; echo err >&2; cat; exit 41", input="in")
    assert (done.returncode, done.stdout, done.stderr) == (41, "out\nin", "err\n")
    assert box.run(["printf", "%s|", "a b", "$HOME", "*"]).stdout == "a b|$HOME|*|"


def test_terminal_and_interrupt(box: RunningBox) -> None:
    """Ctrl-C reaches the program inside; its exit status comes back."""
    inner = "trap 'echo got it; exit 7' INT; test -t 0 && echo ready; while :; do sleep 0.1; done"
    argv = machine.exec_argv(["sh", "-c", inner], tty=True)
    ours, theirs = pty.openpty()
    child = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        assert "ready" in _until(ours, "ready")
        os.write(ours, b"\x03")
        assert "got it" in _until(ours, "got it")
        assert child.wait(20) == 7
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def _until(terminal: int, word: str) -> str:
    """What the terminal shows until `word`, for 20 s at most."""
    text, end = "", time.monotonic() + 20
    while word not in text and time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            text += os.read(terminal, 4096).decode()
    return text


def test_checkout_is_there_read_only(box: RunningBox) -> None:
    here = Path(__file__).relative_to(cache.REPOSITORY)
    assert box.check(["cat", f"{layout.TREE}/{here}"]) == Path(__file__).read_text()
    assert box.check(["cat", __file__]) == Path(__file__).read_text()
    assert box.run(["touch", f"{layout.TREE}/x"]).returncode != 0
    assert not (cache.REPOSITORY / "x").exists()


def test_files_both_ways(box: RunningBox, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "there").write_bytes(data)
    box.put(tmp_path / "there", "/tmp/put here")
    box.get("/tmp/put here", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_state_disk_is_private_and_writable(box: RunningBox) -> None:
    assert box.check("stat -c %a /var/lib/vnode-debug").strip() == "700"
    box.check("echo x >/var/lib/vnode-debug/.try && rm /var/lib/vnode-debug/.try")


def test_kernels_are_in_boot(box: RunningBox) -> None:
    for name in ("vmlinuz", "System.map"):
        release = box.check("uname -r").strip()
        assert box.run(f"test -s /boot/{name}-{release}").returncode == 0


def test_second_box_is_refused(box: RunningBox) -> None:
    with pytest.raises(Refused, match="runs already"):
        machine.up(machine.Options(), print)
    assert box.check("echo alive") == "alive\n"


def test_monitor_answers(box: RunningBox) -> None:
    assert box.monitor("info cpus").count("CPU #") == 4


def test_modules_load(box: RunningBox) -> None:
    release = box.check("uname -r").strip()
    if not (cache.REPOSITORY / "build/modules" / release / "kmb.ko").exists():
        pytest.skip("kmb.ko is not built: script/modules")
    box.check("test -e /dev/kmb || load-kmb")
    assert box.check("test -c /dev/kmb && echo yes") == "yes\n"


def test_runs_python_of_the_checkout(box: RunningBox) -> None:
    assert sys.version_info >= (3, 11)
    done = box.run("vnode-debug --help", timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
