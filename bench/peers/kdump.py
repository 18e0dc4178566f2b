# SPDX-License-Identifier: GPL-2.0-or-later
"""kdump in a QEMU guest: a crash kernel, makedumpfile as Debian's kdump-tools call it, a reboot.

The dump goes straight to a virtio disk, without a file system.  What kdump needs lies on another
disk and is loaded once the guest is up, so that it costs its boot nothing.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import time
from pathlib import Path

from bench.peers.guest import CPU, MIB, PATIENCE_S, WORDS, crash, figures, kernel, modules
from bench.peers.table import NotHere, Take
from bench.rsp_guest import READY, running
from box.cpio import Archive

NAME = "kdump (`makedumpfile -c -d 31`), then reboot"
RESERVED = "crashkernel=128M"
LEAST_MIB = 512  # the kernel takes no crash kernel that is larger than half of what is left
DISK = ["virtio_pci", "virtio_blk"]
CRASH_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in /*.ko; do /bin/busybox insmod $module; done
/bin/busybox mkdir /tmp
/bin/makedumpfile -F -c -d 31 /proc/vmcore 2>/error | /bin/busybox dd bs=64k of=/dev/vdb 2>/written
/bin/busybox sync
/bin/busybox grep -iE "fail|can't|cannot|error" /error /written >/dev/ttyS0
echo KDUMP-SAVED >/dev/ttyS0
/bin/busybox reboot -f
"""
CMDLINE = f"{WORDS} console=ttyS0 quiet irqpoll nr_cpus=1 reset_devices panic=-1"
ARM = (
    "for m in /later/*.ko; do busybox insmod $m; done; busybox mkdir /k; cd /k;"
    f" busybox cpio -i </dev/vda; ./kexec_load vmlinuz initrd '{CMDLINE}' && echo KDUMP''-ARMED"
    " || busybox dmesg | busybox grep -i crash"
)


def programs() -> dict[str, bytes]:
    """makedumpfile with the libraries it wants, by their place in an initrd."""
    program = shutil.which("makedumpfile")
    if not program:
        raise NotHere("makedumpfile is not installed")
    text = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = [Path(found) for found in re.findall(r"(/\S+) \(0x", text)]
    return {"bin/makedumpfile": Path(program).read_bytes()} | {
        ("lib64/" if "ld-linux" in path.name else "lib/") + path.name: path.read_bytes()
        for path in libraries
    }


def payload(place: Path) -> bytes:
    """An archive of the crash kernel, its initrd and the loader."""
    inner = Archive()
    for name, data in {
        "bin/busybox": Path("/bin/busybox").read_bytes(),
        "init": CRASH_INIT.encode(),
        **programs(),
    }.items():
        inner.file(name, data, 0o755)
    for directory in ("proc", "dev"):
        inner.directory(directory)
    for name, data in modules(DISK).items():
        inner.file(name, data)
    loader = place / "kexec_load"
    source = Path(__file__).with_name("kexec_load.c")
    try:
        subprocess.run(["gcc", "-Os", "-static", "-o", loader, source], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere(f"gcc cannot build {source.name}") from error
    outer = Archive()
    outer.file("kexec_load", loader.read_bytes(), 0o755)
    outer.file("vmlinuz", kernel().vmlinuz.read_bytes())
    outer.file("initrd", gzip.compress(inner.finish(), 1))
    return outer.finish()


def measure(place: Path, mebibytes: int) -> Take:
    """One panic of a new guest; `place` is an empty directory."""
    if mebibytes < LEAST_MIB:
        raise NotHere(f"{mebibytes} MiB do not hold a crash kernel's 128 MiB and its loading")
    disks = [place / "payload", place / "dump"]
    disks[0].write_bytes(payload(place))
    for disk, size in zip(disks, (64, mebibytes + 64), strict=True):
        with disk.open("ab") as file:
            file.truncate(size * MIB)
    more = ["-cpu", CPU, "-action", "reboot=reset"]
    for disk in disks:
        more += ["-drive", f"file={disk},format=raw,if=virtio"]
    later = {f"later/{name}": data for name, data in modules(DISK).items()}
    with running(
        place,
        bare=True,
        cpus=1,
        memory=mebibytes << 20,
        append=f"{WORDS} {RESERVED}",
        patience=PATIENCE_S,
        extra=later,
        more=more,
    ) as guest:
        guest.console.line(ARM)
        guest.console.expect(b"KDUMP-ARMED", PATIENCE_S)
        fault = crash(guest.console)
        said = guest.console.expect(b"KDUMP-SAVED", PATIENCE_S)
        safe = time.time()
        guest.console.expect(READY, PATIENCE_S)
        now = time.time()
    if disks[1].open("rb").read(12) != b"makedumpfile":
        raise RuntimeError(f"the crash kernel wrote no dump: {said[-300:]!r}")
    return figures(fault, safe, now, disks[1])
