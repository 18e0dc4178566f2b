# SPDX-License-Identifier: GPL-2.0-or-later
"""Ours: a vnode with one CPU in a box of two, its successor in a spare region or in place.

The box stands still (QMP stop) while others are measured.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.peers.table import NotHere, Take
from box import host, kernels, layout, machine
from box.errors import BoxError

NAMES = {
    "hold": "**ours**, the region kept as the dump, successor in a spare one",
    "standby": "**ours**, the same, the successor frozen after its boot and resumed",
    "copy": "**ours**, the region copied to the disk first",
}
CONFIG = "/etc/vnode-debug/bench.toml"
GIB = 1 << 30
ROOT = 3 * GIB  # of the box, besides the high pool: the root's and the low pool
OTHERS = 5 * GIB  # to be left: a guest of a peer, files, translated code
UNTIL_S = 300


def pool_for(mebibytes: int, modes: int) -> int:
    """Bytes above 5 GiB for vnodes of that size: one region, or two when a spare is wanted."""
    return max(modes * (mebibytes << 20), GIB)


def affordable(sizes: list[int], free: int) -> tuple[int, bool]:
    """The greatest size (MiB) of `sizes` for which a box may be had, and whether with a spare."""
    for size in sorted(sizes, reverse=True):
        for modes in (2, 1):
            if ROOT + pool_for(size, modes) + OTHERS <= free:
                return size, modes == 2
    return 0, False


def toml(pool: int, kernel: str, module: str, mebibytes: int, mode: str) -> str:
    """A vnodes.toml for one vnode."""
    ranges = ", ".join(f'"{one}"' for one in (layout.LOW_POOL, high(pool)))
    standby = mode == "standby"
    return (
        f'[machine]\nmemory = [{ranges}]\nlow = "{layout.SLOTS}"\ncpus = [1]\n'
        f'module = "{module}"\n[watch]\nhold = {str(mode != "copy").lower()}\n[dumps]\ncount = 1\n'
        + layout.vnode_toml(1, "bench", [1], mebibytes, f"/boot/vmlinuz-{kernel}", layout.INITRD)
        + layout.WATCH
        + layout.RESTART
        + ('strategy = "standby"\nquick = 1000  # takes follow each other\n' if standby else "")
    )


def high(pool: int) -> layout.Range:
    return layout.Range(layout.HIGH_POOL.base, pool)


class Box:
    """A box with the vnode of one size and mode at a time."""

    def __init__(self, pool: int, kernel: str) -> None:
        self._pool = pool
        self._kernel = kernel
        self._now: tuple[int, str] | None = None

    def run(self, *words: str, stdin: str = "", timeout: float = UNTIL_S) -> str:
        """Output of a command in the box."""
        done = machine.run(words, stdin=stdin, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def use(self, mebibytes: int, mode: str) -> None:
        """Runs the vnode of that size; between hold and copy a reload is enough."""
        before, self._now = self._now, (mebibytes, mode)
        if before == self._now:
            return
        module = f"{layout.TREE}/build/modules/{self._kernel}/kmb.ko"
        text = toml(self._pool, self._kernel, module, mebibytes, mode)
        if before and before[0] == mebibytes and "standby" not in (before[1], mode):
            self.run("sh", "-c", f"cat >{CONFIG}", stdin=text)
            self.run("vnode-debug", "reload")
        else:
            self.run("sh", "-c", "vnode-debug down --timeout 60 || true")
            if not before:  # it was loaded with the box's own memory
                self.run("sh", "-c", "rmmod kmb || true")
            self.run("sh", "-c", f"cat >{CONFIG}", stdin=text)
            self.run("vnode-debug", "up", "--config", CONFIG, "--wait", "--timeout", "200")

    def wait_for_standby(self) -> None:
        """Until one stands by: at first it boots twice, later the failed region is filled."""
        end = time.monotonic() + UNTIL_S
        while time.monotonic() < end:
            images = json.loads(self.run("vnode-debug", "images", "1", "--json"))
            if {one["role"] for one in images} == {"standby", "running"}:
                return
            time.sleep(1)
        raise RuntimeError(f"no standby after {UNTIL_S} s")

    def stop(self) -> None:
        machine.monitor("stop")

    def go_on(self) -> None:
        machine.monitor("cont")


@contextlib.contextmanager
def box(mebibytes: int, spare: bool, say: Callable[[str], None]) -> Iterator[Box]:
    """A box with room for a vnode of that size, and a second of it when `spare`."""
    pool = pool_for(mebibytes, 2 if spare else 1)
    more = layout.Range(layout.HIGH_POOL.base + layout.HIGH_POOL.size, pool - GIB)
    if machine.running():
        raise NotHere(f"a box runs in {machine.directory()}: end it, or name another place")
    try:
        kernel = kernels.fetch("cloud", say).version
        append = f"memmap={more.size:#x}${more.base:#x}" if more.size else ""
        options = machine.Options(
            memory=ROOT + pool, cpus=2, fresh=True, append=append, boot_timeout=600
        )
        machine.up(options, say)
    except BoxError as error:
        raise NotHere(str(error)) from error
    try:
        yield Box(pool, kernel)
    finally:
        with contextlib.suppress(BoxError):
            machine.monitor("cont")
        machine.down(say)
        machine.remove(say)


def free_memory() -> int:
    """Bytes that a box and a guest may take."""
    return host.available_memory(Path("/proc/meminfo").read_text())


def measure(box: Box, mebibytes: int, mode: str) -> Take:
    """One panic of the vnode, timed by its incident: on the machine's clock, not through ssh."""
    box.go_on()
    try:
        box.use(mebibytes, mode)
        if mode == "standby":
            box.wait_for_standby()
        # idle time: the last take's region is cleared, the next start prepared, images checked
        time.sleep(5 + mebibytes / 512)
        words = ("inject", "1", "panic", "--wait", "--timeout", str(UNTIL_S), "--json")
        incident = json.loads(box.run("vnode-debug", *words, timeout=UNTIL_S + 60))[0]
        dump, way = incident["dump"], incident["restart"]
        wanted = "copy" if mode == "copy" else "hold"
        if (dump["mode"], dump["state"], way == "standby") != (wanted, "done", mode == "standby"):
            raise RuntimeError(f"{dump['mode']}, {dump['state']}, restarted by {way}")
        return take(incident, float(box.run("stat", "-c", "%.9Y", incident["dump"]["path"])))
    finally:
        box.stop()


def take(incident: dict[str, Any], written: float) -> Take:
    """The figures of an incident whose vmcore was written at Unix time `written`."""
    stamps = {name: at / 1e9 for name, at in incident["stamps"].items()}
    fault = stamps["fault"]
    return {
        "safe": stamps["captured"] - fault,
        "file": written - incident["opened"] + stamps["seen"] - fault,
        "running": stamps["running"] - fault,
        "MiB": incident["dump"]["stored"] / (1 << 20),
    }
