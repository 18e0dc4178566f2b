# SPDX-License-Identifier: GPL-2.0-or-later
"""What the campaign's vnodes boot: the box's initrd and kernel, with vnode_faults.ko added."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from box import cache, cpio, initramfs, kernels, layout

INITRD = cache.REPOSITORY / "build" / "campaign.cpio.gz"
CONFIG = "/etc/vnode-debug/campaign.toml"
CANARY = 32 << 20
"""Bytes at the end of the memory that the box reserves which no vnode is given."""
NAMES = ("alpha", "beta", "gamma")
PROFILE = Path(__file__).with_name("profile")
PATIENT = """[vnode.watch]
irq = { period_ms = 10, limit_ms = 3000 }
sched = { period_ms = 20, limit_ms = 6000 }
user = { period_ms = 100, limit_ms = 12000 }
boot_timeout_ms = 120000
"""
"""For a host that has little time for the box."""
WATCH = layout.WATCH + "boot_timeout_ms = 30000\n"
RESTART = """[vnode.restart]
intensity = 1000  # here faults are wanted
"""


def initrd(image: kernels.KernelImage, progress: Callable[[str], None]) -> Path:
    """Builds build/campaign.cpio.gz: the vnodes' initrd and a second archive behind it."""
    base = initramfs.vnode_initrd(progress)
    module = cache.REPOSITORY / "build" / "modules" / image.version / "vnode_faults.ko"
    if base is None or not module.exists():
        raise SystemExit(f"campaign: no {module}; build it: script/modules {image.version}")
    archive = cpio.Archive()
    archive.file("etc/profile", PROFILE.read_bytes())
    archive.file(f"modules/{image.version}/vnode_faults.ko", module.read_bytes())
    for path in image.load_order(["brd"]):
        name = path.name.removesuffix(".xz")
        archive.file(f"modules/{image.version}/{name}", kernels.module_bytes(path))
    initramfs.extend(base, archive, INITRD)
    return INITRD


def config(head: str, kernel: str, cpus: int, watch: str = WATCH) -> str:
    """The vnodes.toml of the campaign for a box with `cpus` CPUs for vnodes.

    `head` is what boxed.machine_toml() gives.  The last vnode gets the CPUs that are left over.
    `watch`: [vnode.watch] of each.
    """
    text = _with_canary(head) + "\n[dumps]\ncount = 12\n"
    for place, name in enumerate(NAMES):
        own = [place + 1] if place + 1 < len(NAMES) else list(range(place + 1, cpus + 1))
        initrd = f"{layout.TREE}/build/{INITRD.name}"
        text += layout.vnode_toml(place + 1, name, own, 128, f"/boot/vmlinuz-{kernel}", initrd)
        text += watch + RESTART
    return text


def _with_canary(text: str) -> str:
    """[machine] with the last range of `memory` shorter by CANARY."""
    head, size, rest = re.split(r"\+(0x[0-9a-f]+)(?=\"\])", text, maxsplit=1)
    return f"{head}+{int(size, 16) - CANARY:#x}{rest}"
