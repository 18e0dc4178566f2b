# SPDX-License-Identifier: GPL-2.0-or-later
"""What the box wants of its host, checked before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

from box import cache
from box.errors import HostLacks, Refused

SPARE_MEMORY = 256 << 20  # QEMU itself and its translated code
PACKAGES = (
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("mksquashfs", "squashfs-tools"),
    ("busybox", "busybox-static"),
    ("mkfs.ext4", "e2fsprogs"),
    ("depmod", "kmod"),
    ("ssh", "openssh-client"),
)


def check(memory: int) -> None:
    """HostLacks unless programs and `memory` bytes for the guest are there."""
    if not (cache.REPOSITORY / "box/guest").is_dir() or not (cache.REPOSITORY / "script").is_dir():
        raise HostLacks(
            "the box is built from a checkout of vnode-debug: clone it, run script/demo"
        )
    for name, package in PACKAGES:
        cache.program(name, package)
    available = available_memory(Path("/proc/meminfo").read_text())
    if available < memory + SPARE_MEMORY:
        raise HostLacks(
            f"the box wants {memory + SPARE_MEMORY >> 20} MiB of memory,"
            f" {available >> 20} MiB are free: end something, or give it less"
        )


def available_memory(meminfo: str) -> int:
    """Bytes that may be taken without swapping, out of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise HostLacks("/proc/meminfo has no MemAvailable: this needs Linux 3.14 or newer")


def free_port(wanted: int) -> int:
    """A free port of 127.0.0.1: the wanted one, or any when that is 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except (OSError, OverflowError) as error:
            raise Refused(f"port {wanted} of 127.0.0.1: {error}: take another one") from None
        return int(probe.getsockname()[1])
