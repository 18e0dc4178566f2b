# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots a stock kernel in QEMU with a tiny initramfs and keeps its memory.

The guest tells the truth about itself on a second serial port (the files of
/proc, gzipped), then the memory is frozen: a raw file, and on request a
vmcore made by QEMU.  About five seconds under TCG for 256 MiB.

noirqdebug: PREEMPT_RT kernels else take QEMU's busy serial port for a stuck
interrupt and switch it off.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from box.cpio import Archive
from box.kernels import module_bytes

BUSYBOX = Path("/usr/bin/busybox")
READY = b"TRUTH-COMPLETE"

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in /modules/*.ko; do [ -e $m ] && insmod $m; done
sleep 1000 &
(mkfifo /pipe; cat /pipe) &
stty -F /dev/ttyS1 raw -echo
sleep 0.2
mkdir -p /truth/stack
echo "introspect test guest" >/dev/kmsg
ps -o pid,ppid,comm >/truth/ps
for p in /proc/[0-9]*; do cat $p/stack >/truth/stack/${p#/proc/}; done 2>/dev/null
cat /proc/kallsyms >/truth/kallsyms
cat /proc/modules >/truth/modules
cat /proc/meminfo >/truth/meminfo
cat /proc/cmdline >/truth/cmdline
cat /proc/uptime >/truth/uptime
dmesg -r >/truth/dmesg
cd /truth
for f in * stack/*; do
  [ -f $f ] && echo "=== $f $(wc -c <$f)" && cat $f
done | gzip -1 >/dev/ttyS1
AFTER
echo TRUTH-COMPLETE >/dev/ttyS0
exec sleep 100000
"""


@dataclass(frozen=True)
class Guest:
    """A frozen guest: its memory and what it said about itself."""

    raw: Path
    truth: dict[str, str]
    console: Path
    size: int


def initramfs(modules: list[Path], after: str = "", extra: dict[str, bytes] | None = None) -> bytes:
    """Busybox, INIT, modules to load, and files of one's own: "init" replaces INIT."""
    files = {"init": INIT.replace("AFTER", after).encode(), **(extra or {})}
    archive = Archive()
    archive.character_device("dev/console", 5, 1)
    archive.directory("modules")
    archive.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    for module in modules:
        archive.file(f"modules/{module.name.removesuffix('.xz')}", module_bytes(module))
    for name, data in files.items():
        archive.file(name, data, 0o755)
    return gzip.compress(archive.finish(), 1)


class Qmp:
    """A QMP client of twenty lines: commands in order, events ignored."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.sock.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.file = self.sock.makefile("rb")
        self.file.readline()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: Any) -> Any:
        self.sock.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']}")
            if "return" in answer:
                return answer["return"]


def parse_truth(blob: bytes) -> dict[str, str]:
    text = gzip.decompress(blob)
    out: dict[str, str] = {}
    at = 0
    while at < len(text):
        end = text.index(b"\n", at)
        _, name, size = text[at:end].split()
        out[name.decode()] = text[end + 1 : end + 1 + int(size)].decode("utf-8", "replace")
        at = end + 1 + int(size)
    return out


@contextlib.contextmanager
def running(
    directory: Path,
    kernel: Path,
    initrd: bytes,
    *,
    cmdline: str = "",
    memory: int = 256,
    cpus: int = 2,
    cpu: str = "max",
    qemu_args: tuple[str, ...] = (),
) -> Any:
    """A QEMU process on `kernel`; yields (Qmp, raw memory file, process)."""
    raw, initrd_file = directory / "ram.raw", directory / "initrd"
    console = directory / "console"
    initrd_file.write_bytes(initrd)
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", str(cpus),
        "-m", f"{memory}M", "-display", "none", "-nodefaults", "-no-reboot",
        "-object", f"memory-backend-file,id=ram,size={memory}M,mem-path={raw},share=on",
        "-machine", "pc,memory-backend=ram",
        "-chardev", f"socket,id=tty,path={directory / 'tty'},server=on,wait=off,logfile={console}",
        "-serial", "chardev:tty", "-serial", f"file:{directory / 'truth.gz'}",
        "-qmp", f"unix:{directory / 'qmp'},server=on,wait=off",
        "-kernel", str(kernel), "-initrd", str(initrd_file),
        "-append", f"console=ttyS0 quiet panic=-1 noirqdebug {cmdline}", *qemu_args,
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=(directory / "qemu.err").open("wb"))
    try:
        yield Qmp(directory / "qmp"), raw, process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        initrd_file.unlink(missing_ok=True)


def magic_sysrq(directory: Path, qmp: Qmp, key: bytes) -> None:
    """Presses a magic SysRq key on the serial console: it is handled in the hard interrupt."""
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(directory / "tty"))
        qmp.command("chardev-send-break", id="tty")
        console.sendall(key)
        console.settimeout(5)
        with contextlib.suppress(TimeoutError):
            while console.recv(65536):  # else the guest waits for a reader
                pass


def wait_for(path: Path, text: bytes, process: Any, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and text in path.read_bytes():
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    tail = path.read_bytes()[-2000:].decode("utf-8", "replace") if path.exists() else ""
    raise AssertionError(f"the guest did not print {text!r}; its console ends with:\n{tail}")


def stop_idle(qmp: Qmp, seconds: float = 60) -> None:
    """Stops the guest at a moment at which every CPU is halted in its idle loop."""
    deadline = time.monotonic() + seconds
    while True:
        qmp.command("stop")
        text = qmp.command("human-monitor-command", **{"command-line": "info registers -a"})
        if "HLT=0" not in text and "HLT=1" in text:
            return
        assert time.monotonic() < deadline, f"the guest does not come to rest:\n{text}"
        qmp.command("cont")
        time.sleep(0.1)


def boot(
    directory: Path,
    kernel: Path,
    modules: list[Path],
    *,
    elf: Path | None = None,
    after: str = "",
    until: bytes = READY,
    extra: dict[str, bytes] | None = None,
    idle: bool = False,
    **options: Any,
) -> Guest:
    """Boots, waits for `until`, freezes, optionally lets QEMU write a vmcore, and ends QEMU.

    `idle`: freezes once all its CPUs rest.
    """
    with running(directory, kernel, initramfs(modules, after, extra), **options) as (
        qmp, raw, process,
    ):  # fmt: skip
        wait_for(directory / "console", until, process)
        if idle:
            stop_idle(qmp)
        else:
            qmp.command("stop")
        if elf is not None:
            qmp.command("dump-guest-memory", paging=False, protocol=f"file:{elf}")
    truth = parse_truth((directory / "truth.gz").read_bytes())
    return Guest(raw, truth, directory / "console", options.get("memory", 256) << 20)
