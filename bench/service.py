# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests per second of a service through a crash, as a plot: docs/service.svg.

    script/modules && .venv/bin/python -m bench.service        # a box of its own, some minutes

Three vnodes serve HTTP (busybox httpd behind the console), restarted by a standby, from an image
and by a boot.  Each is made to panic while it is asked as fast as it answers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from bench.boxed import in_box, machine_toml, say, up
from box import cache, cpio, initramfs, kernels, layout, machine

INITRD = cache.REPOSITORY / "build" / "service.cpio.gz"
PICTURE = cache.REPOSITORY / "docs" / "service.svg"
CONFIG = "/etc/vnode-debug/service.toml"
BOX = machine.Options(memory=4 << 30, cpus=4, fresh=True)
WAYS = ("standby", "warm", "cold")
BEFORE_S, AFTER_S = 4.0, 12.0
BIN_S = 0.25
PROFILE = """# /etc/profile of a vnode that serves
export PATH=/bin
mkdir -p /tmp/www
echo served >/tmp/www/index.html
stty raw -echo </dev/hvc0
while :; do httpd -i -h /tmp/www </dev/hvc0 >/dev/hvc0 2>/dev/null; done
"""


def prepare() -> None:
    """Start the three vnodes and wait for the images that their restarts want."""
    image = kernels.fetch("cloud", say)
    base = initramfs.vnode_initrd(say)
    if base is None:
        raise SystemExit(f"service: no modules for {image.version}; script/modules builds them")
    archive = cpio.Archive()
    archive.file("etc/profile", PROFILE.encode())
    initramfs.extend(base, archive, INITRD)
    text, kernel = machine_toml(), f"/boot/vmlinuz-{image.version}"
    for vnode, way in enumerate(WAYS, 1):
        initrd = f"{layout.TREE}/build/{INITRD.name}"
        text += layout.vnode_toml(vnode, way, [vnode], 128, kernel, initrd)
        text += f'{layout.WATCH}{layout.RESTART}strategy = "{way}"\n'
    up(CONFIG, text, 200)
    end = time.monotonic() + 200
    while len(json.loads(in_box(["vnode-debug", "images", "--json"]))) < 3:
        if time.monotonic() > end:
            raise SystemExit("service: the images of the vnodes do not appear")
        time.sleep(2)


def measure(vnode: int) -> list[float]:
    """Seconds of the answers, 0 = the panic."""
    words = f"cd {layout.TREE} && PYTHONPATH=. exec python3 -m bench.service_root"
    line = f"{words} {vnode} {BEFORE_S} {AFTER_S}"
    found: dict[str, Any] = json.loads(in_box(["sh", "-c", line]))
    return list(found["answers"])


def gap(answers: list[float]) -> float:
    """Seconds from the last answer before the panic to the first after it, inf = none came."""
    after = [at for at in answers if at > 0]
    before = [at for at in answers if at <= 0]
    return (after[0] if after else float("inf")) - (before[-1] if before else 0.0)


def rates(answers: list[float]) -> tuple[list[float], list[float]]:
    """(middle of each bin in s, answers per second in it)."""
    count = round((BEFORE_S + AFTER_S) / BIN_S)
    bins = [0] * count
    for at in answers:
        place = int((at + BEFORE_S) / BIN_S)
        if 0 <= place < count:
            bins[place] += 1
    return [(i + 0.5) * BIN_S - BEFORE_S for i in range(count)], [n / BIN_S for n in bins]


def plot(found: dict[str, list[float]], file: Path) -> None:
    """A curve for each way."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "vnode-debug"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(found), sharex=True, figsize=(8, 5.2), squeeze=False)
    for axis, (way, answers) in zip(axes[:, 0], found.items(), strict=True):
        axis.step(*rates(answers), where="mid", color="#20639b")
        axis.axvline(0, color="#b33", linewidth=1)
        axis.set_title(f"{way}: no answer for {gap(answers) * 1000:.0f} ms", fontsize=10)
        axis.set_ylabel("requests/s")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("seconds after the panic")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    machine.up(BOX, say)
    try:
        prepare()
        found = {way: measure(vnode) for vnode, way in enumerate(WAYS, 1)}
    finally:
        machine.down(say)
    plot(found, PICTURE)
    for way, answers in found.items():
        say(f"{way}: {len(answers)} answers, none for {gap(answers) * 1000:.0f} ms")
    say(f"load {os.getloadavg()[0]:.1f}; {PICTURE}")


if __name__ == "__main__":
    main()
