# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock kernel that panics in QEMU: its RAM as a file, its registers through QMP.

QEMU stands for a vnode here: the vmcore is written by us, from the raw RAM and
the registers alone.
"""

import json
import mmap
import os
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import stock
from box.cpio import Archive
from crashdump.facts import Segment
from crashdump.notes import CpuState

RAM = 256 << 20
GENERAL = (
    *("R15", "R14", "R13", "R12", "RBP", "RBX", "R11", "R10"),
    *("R9", "R8", "RAX", "RCX", "RDX", "RSI", "RDI"),
)
INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox sleep 1000 &
echo READY
echo c > /proc/sysrq-trigger
"""


@dataclass
class Guest:
    """A stopped guest: the path of its RAM and its CPUs."""

    ram: Path
    cpus: list[CpuState | None]
    console: str

    def segments(self) -> list[Segment]:
        with self.ram.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        return [Segment(0, view)]


def kernels() -> list[Path]:
    """The distribution kernels at hand."""
    return stock.kernels()


def initramfs() -> bytes:
    """busybox and an init, as a cpio archive (newc)."""
    busybox = next(p for p in map(Path, ("/bin/busybox", "/usr/bin/busybox")) if p.exists())
    archive = Archive()
    for name in ("proc", "dev"):
        archive.directory(name)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    archive.file("init", INIT, 0o755)
    return archive.finish()


def panic(kernel: Path, directory: Path, *, kaslr: bool, cpus: int = 2) -> Guest:
    """Boots `kernel`, lets it panic by sysrq and takes its registers."""
    ram, initrd = directory / "ram", directory / "initrd"
    initrd.write_bytes(initramfs())
    with ram.open("wb") as file:
        file.truncate(RAM)
    line = f"console=ttyS0 panic=0 {'' if kaslr else 'nokaslr'}"
    ours, theirs = socket.socketpair()
    command = f"""qemu-system-x86_64 -accel tcg,thread=multi -smp {cpus} -m {RAM >> 20}
        -display none -nodefaults -no-reboot -cpu max
        -object memory-backend-file,id=ram,size={RAM},mem-path={ram},share=on
        -machine q35,memory-backend=ram -kernel {kernel} -initrd {initrd} -serial stdio
        -chardev socket,id=qmp,fd={theirs.fileno()} -mon chardev=qmp,mode=control""".split()
    process = subprocess.Popen(
        [*command, "-append", line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    try:
        assert process.stdout is not None
        console = b""
        while b"end Kernel panic" not in console:
            piece = os.read(process.stdout.fileno(), 1 << 16)
            assert piece, f"QEMU ended early:\n{console.decode(errors='replace')[-2000:]}"
            console += piece
        with ours, ours.makefile("rw") as qmp:
            qmp.readline()
            ask(qmp, "qmp_capabilities")
            cpus = stopped(qmp)
            ask(qmp, "quit")
        process.wait(20)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return Guest(ram, cpus, console.decode(errors="replace"))


def ask(qmp: Any, command: str, **arguments: Any) -> Any:
    """One QMP command; its answer."""
    qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    qmp.flush()
    while True:
        answer = json.loads(qmp.readline())
        assert "error" not in answer, answer
        if "return" in answer:
            return answer["return"]


def stopped(qmp: Any) -> list[CpuState | None]:
    """Stops the guest where panic() waits, not in an interrupt that came in meanwhile."""
    for _ in range(50):
        ask(qmp, "stop")
        text = ask(qmp, "human-monitor-command", **{"command-line": "info registers -a"})
        cpus = registers(text)
        if any(cpu and cpu.regs[18] & 0x200 for cpu in cpus):  # interrupts are on
            return cpus
        ask(qmp, "cont")
        time.sleep(0.01)
    raise AssertionError(f"no CPU waits in panic():\n{text}")


def registers(text: str) -> list[CpuState | None]:
    """`info registers -a` as CPU states, None for a CPU that is not in 64-bit mode."""
    parts = re.split(r"CPU#\d+", text)[1:]
    return [_registers(cpu, part) if "R15" in part else None for cpu, part in enumerate(parts)]


def _registers(cpu: int, text: str) -> CpuState:
    def words(name: str, count: int = 1) -> list[int]:
        found = re.search(rf"\b{name} *=\s*" + r"\s+".join([r"([0-9a-fA-F]+)"] * count), text)
        assert found, f"{name} not in QEMU's answer"
        return [int(word, 16) for word in found.groups()]

    def one(name: str) -> int:
        return words(name)[0]

    regs = [one(n) for n in GENERAL]
    segments = {name: words(name, 2) for name in ("CS", "SS", "DS", "ES", "FS", "GS")}
    selector = {name: pair[0] for name, pair in segments.items()}
    regs += [(1 << 64) - 1, one("RIP"), selector["CS"], one("RFL"), one("RSP"), selector["SS"]]
    regs += [segments["FS"][1], segments["GS"][1]]
    regs += [selector[name] for name in ("DS", "ES", "FS", "GS")]
    control = [one(name) for name in ("CR0", "CR2", "CR3", "CR4")]
    tables = [*words("GDT", 2), *words("IDT", 2)]
    return CpuState(cpu, tuple(regs), True, 0, *control, *tables, one("TR"), one("LDT"))
