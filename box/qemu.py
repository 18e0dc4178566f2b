# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line, its monitor, and whether KVM can be trusted on this host.

The machine is q35 with the plain `qemu64` CPU: xAPIC, 4-level paging, and RDRAND so that no kernel
waits for entropy.  RAM is shared memory because virtiofs wants it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from box import cache, cpio, initramfs, kernels
from box.errors import BoxError

CPU_MODEL = "qemu64,+rdrand,+arat"
PROBE_SECONDS = 6.0
PROBE_WORD = b"box: this guest boots"


@dataclass(frozen=True)
class Spec:
    """All that QEMU is told; sizes in bytes."""

    qemu: str
    accel: str
    cpus: int
    memory: int
    kernel: Path
    initrd: Path
    append: str
    images: tuple[Path, ...]  # read-only disks, vda first
    state: Path  # the writable disk after them
    port: int  # on 127.0.0.1, to the root vnode's sshd
    tree_socket: Path  # of virtiofsd
    monitor_socket: Path
    console_log: Path  # the root's ttyS0
    vnodes_log: Path  # ttyS1, free for the vnodes' early messages


def argv(spec: Spec) -> list[str]:
    """The command line; no shell is involved."""
    disks: list[str] = []
    for number, image in enumerate((*spec.images, spec.state)):
        mode = "off" if image == spec.state else "on"
        disks += ["-drive", _drive(f"disk{number}", image, mode)]
        disks += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    return [
        *(spec.qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-name", "vnode-debug-box"),
        *("-M", "q35,memory-backend=ram", "-accel", spec.accel),
        *("-cpu", CPU_MODEL),
        *("-smp", f"{spec.cpus},sockets=1,cores={spec.cpus},threads=1"),
        *("-m", f"{spec.memory >> 20}M"),
        *("-object", f"memory-backend-memfd,id=ram,size={spec.memory},share=on"),
        *("-kernel", str(spec.kernel), "-initrd", str(spec.initrd), "-append", spec.append),
        *disks,
        *("-netdev", f"user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{spec.port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-chardev", f"socket,id=tree,path={_escape(spec.tree_socket)}"),
        *("-device", "vhost-user-fs-pci,chardev=tree,tag=checkout,queue-size=1024"),
        *("-serial", f"file:{spec.console_log}", "-serial", f"file:{spec.vnodes_log}"),
        *("-qmp", f"unix:{_escape(spec.monitor_socket)},server=on,wait=off"),
    ]


def _escape(path: Path) -> str:
    """A comma ends an option's value unless it is doubled."""
    return str(path).replace(",", ",,")


def _drive(name: str, image: Path, readonly: str) -> str:
    return f"file={_escape(image)},format=raw,if=none,id={name},readonly={readonly}"


def monitor(path: Path, command: str, arguments: Mapping[str, object]) -> object:
    """Runs one QMP command and gives its result; BoxError when QEMU refuses or is silent."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5.0)
            link.connect(str(path))
            lines = link.makefile("rwb")
            for name, args in (("qmp_capabilities", {}), (command, dict(arguments))):
                lines.write(json.dumps({"execute": name, "arguments": args}).encode() + b"\n")
                lines.flush()
                reply = _reply(lines)
            return reply
    except (OSError, ValueError) as error:
        raise BoxError(f"QEMU's monitor {path}: {command}: {error}") from error


def _reply(lines: Iterable[bytes]) -> object:
    for line in lines:
        message = json.loads(line)
        if "error" in message:
            raise ValueError(message["error"].get("desc", "refused"))
        if "return" in message:
            return message["return"]
    raise ValueError("closed")


def accelerator(qemu: str, kernel: kernels.KernelImage, progress: cache.Progress) -> str:
    """`kvm` only when a guest was seen to boot under it here, else multi-threaded `tcg`.

    /dev/kvm may exist and open on hosts where no stock guest ever gets anywhere.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg,thread=multi"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    stamp = f"{Path(qemu).stat().st_mtime_ns}"

    def build(scratch: Path) -> Path:
        progress(f"KVM: trying to boot a guest, {PROBE_SECONDS:.0f} s at most")
        verdict = scratch / "verdict"
        verdict.write_text("yes" if _boots_under_kvm(qemu, kernel, scratch) else "no")
        return verdict

    answer = cache.entry(f"kvm-{cache.digest(boot, stamp, kernel.version)}", build).read_text()
    return "kvm" if answer == "yes" else "tcg,thread=multi"


def _boots_under_kvm(qemu: str, kernel: kernels.KernelImage, scratch: Path) -> bool:
    archive = cpio.Archive()
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", initramfs.busybox(), 0o755)
    script = f"#!/bin/busybox sh\necho '{PROBE_WORD.decode()}'\n/bin/busybox poweroff -f\n"
    archive.file("init", script.encode(), 0o755)
    initrd = scratch / "probe.cpio"
    initrd.write_bytes(archive.finish())
    command = [qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    command += ["-M", "q35", "-accel", "kvm", "-cpu", CPU_MODEL, "-smp", "2", "-m", "256M"]
    command += ["-serial", "stdio", "-kernel", str(kernel.vmlinuz), "-initrd", str(initrd)]
    command += ["-append", "console=ttyS0 quiet"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return PROBE_WORD in done.stdout
