# SPDX-License-Identifier: GPL-2.0-or-later
"""What doctor looks at: facts of this machine, and the verdicts drawn from them.

gather() reads /proc, /sys and /dev; the checks are pure.  Limits: what kmb.ko
has not told (APIC mode, the memory given) is guessed from the kernel's command
line, and a guess says so.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.output import size

if TYPE_CHECKING:
    from adeos.abi import RootInfo
    from adeos.machine import Machine
    from crashdump.quota import Limits, Usage

LIMITS = (
    "Vnodes run in ring 0 without a hypervisor: accidents are contained, malice is not.",
    "Contained: panics, oopses, hangs, deadlocks, reboots of a vnode.",
    "A triple fault in a vnode resets the whole machine; so do writes to ports 0xcf9 and 0x64.",
    "A wild write or stray DMA of a vnode can land anywhere, in the root's memory too.",
    "Before a vnode's agent is loaded, its emergency reboot is not caught.",
    "A root panic leaves the vnodes running, unwatched; without a successor panic= resets all.",
)

PROGRAMS: Mapping[str, tuple[str, str]] = {
    "gdb": ("gdb", "attach"),
    "ssh": ("openssh-client", "reaching a box or --host"),
    "qemu-system-x86_64": ("qemu-system-x86", "the box"),
    "mmdebstrap": ("mmdebstrap", "building the box"),
    "mksquashfs": ("squashfs-tools", "building the box"),
    "makedumpfile": ("makedumpfile", "filtering dumps"),
}
"""Program -> (Debian package, what needs it)."""

HOTPLUG = ("cpu/cpu1/online", "memory/block_size_bytes")
TAKEN = "'vnode-debug up' takes them from the running root"
BOX_PROGRAMS = ("ssh", "qemu-system-x86_64", "mmdebstrap", "mksquashfs")


class Role(Enum):
    """What this machine can be."""

    ROOT = "root vnode"
    HOST = "host of a box"


class Verdict(Enum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


class Facts(NamedTuple):
    """What is known of this machine."""

    arch: str
    release: str
    cmdline: str
    cpus_present: int
    cpus_online: int
    cpu_flags: frozenset[str]
    mem_bytes: int
    clocksource: str
    kmb_device: bool
    kmb_loaded: bool
    info: RootInfo | None
    info_error: str
    headers: bool
    kvm: bool
    box_accel: str
    """What a box that runs here was started with (kvm only after a trial boot), or ""."""
    programs: frozenset[str]
    hotplug: bool = False
    """Whether CPUs and memory blocks can be taken from the running kernel."""


class Check(NamedTuple):
    """One line of doctor."""

    name: str
    verdict: Verdict
    text: str
    hint: str = ""


def gather(
    root: Path = Path("/"),
    open_machine: Callable[[], Machine] | None = None,
    box_accel: str = "",
) -> Facts:
    """Read the facts; open_machine is called when root has a /dev/kmb."""
    device = root / "dev/kmb"
    cpuinfo = _text(root / "proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    total = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    release = os.uname().release
    info, error = _info(open_machine) if open_machine and device.exists() else (None, "")
    clock = "sys/devices/system/clocksource/clocksource0/current_clocksource"
    return Facts(
        arch=os.uname().machine,
        release=release,
        cmdline=_text(root / "proc/cmdline").strip(),
        cpus_present=count_cpus(_text(root / "sys/devices/system/cpu/present")),
        cpus_online=count_cpus(_text(root / "sys/devices/system/cpu/online")),
        cpu_flags=frozenset(flags[1].split()) if flags else frozenset(),
        mem_bytes=int(total[1]) * 1024 if total else 0,
        clocksource=_text(root / clock).strip(),
        kmb_device=device.exists(),
        kmb_loaded=(root / "sys/module/kmb").exists(),
        info=info,
        info_error=error,
        headers=(root / "lib/modules" / release / "build").exists(),
        kvm=os.access(root / "dev/kvm", os.R_OK | os.W_OK),
        box_accel=box_accel,
        programs=frozenset(name for name in PROGRAMS if shutil.which(name)),
        hotplug=all((root / "sys/devices/system" / name).exists() for name in HOTPLUG),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _info(open_machine: Callable[[], Machine]) -> tuple[RootInfo | None, str]:
    from adeos.errors import AdeosError

    try:
        machine = open_machine()
        return machine.info(), ""
    except (AdeosError, OSError) as error:
        return None, str(error)


def count_cpus(ranges: str) -> int:
    """CPUs in a list such as "0-3,6"; what is no list counts 0."""
    count = 0
    for part in ranges.strip().split(","):
        first, dash, last = part.partition("-")
        if first.isdigit() and (not dash or last.isdigit()):
            count += int(last or first) - int(first) + 1
    return count


def role(facts: Facts) -> Role:
    """A machine with kmb.ko, or prepared for it on its command line, is a root vnode."""
    prepared = "no_ipi_broadcast=1" in facts.cmdline.split()
    return Role.ROOT if facts.kmb_device or facts.kmb_loaded or prepared else Role.HOST


def check(facts: Facts) -> list[Check]:
    """All checks of this machine's role."""
    checks = [_architecture(facts)]
    if role(facts) is Role.ROOT:
        checks += [
            _device(facts),
            _cpus(facts),
            _memory(facts),
            _apic(facts),
            _tsc(facts),
            _broadcast(facts),
            _headers(facts),
            _program(facts, "gdb", needed=False),
        ]
    else:
        needed = [_program(facts, name, needed=True) for name in BOX_PROGRAMS]
        checks += [*needed, _host_memory(facts), _kvm(facts)]
    return checks


def _architecture(facts: Facts) -> Check:
    text = f"{facts.arch}, Linux {facts.release}"
    if facts.arch != "x86_64":
        return Check("architecture", Verdict.MISSING, text, "vnodes need x86-64")
    return Check("architecture", Verdict.OK, text)


def _device(facts: Facts) -> Check:
    if facts.info is not None:
        owner = f"owned by process {facts.info.owner_pid}" if facts.info.owner_pid else "no owner"
        return Check("/dev/kmb", Verdict.OK, f"ABI {facts.info.abi}, {owner}")
    if facts.kmb_device:
        return Check(
            "/dev/kmb",
            Verdict.MISSING,
            facts.info_error or "cannot be opened",
            "run as root, or reload kmb.ko",
        )
    return Check("/dev/kmb", Verdict.MISSING, "not there", "'vnode-debug up' loads kmb.ko")


def _cpus(facts: Facts) -> Check:
    spare = facts.cpus_present - facts.cpus_online
    given = facts.info.ncpus if facts.info else spare
    text = f"{facts.cpus_present} present, {facts.cpus_online} in the root, {given} for vnodes"
    if given < 1 and facts.hotplug and facts.info is None:
        return Check("CPUs", Verdict.NOTE, f"{text}; {TAKEN}")
    if given < 1:
        return Check("CPUs", Verdict.MISSING, text, "boot the root with maxcpus=1")
    return Check("CPUs", Verdict.OK, text)


def _memory(facts: Facts) -> Check:
    if facts.info is not None:
        size = sum(r.size for r in facts.info.range)
        text = f"{size >> 20} MiB in {len(facts.info.range)} range(s) for vnodes"
        verdict = Verdict.OK if size else Verdict.MISSING
        return Check("memory", verdict, text, "" if size else "load kmb.ko with mem=BASE+SIZE")
    words = re.findall(r"\bmemmap=(\S+\$\S+)", facts.cmdline)
    if words:
        return Check("memory", Verdict.NOTE, f"reserved at boot: {', '.join(words)} (a guess)")
    if facts.hotplug:
        text = "none reserved; 'vnode-debug up' takes it from the running root"
        return Check("memory", Verdict.NOTE, text, "memmap=SIZE$BASE keeps it free for sure")
    return Check(
        "memory",
        Verdict.MISSING,
        "none reserved",
        "boot the root with memmap=SIZE$BASE for the vnodes",
    )


def _apic(facts: Facts) -> Check:
    if facts.info is not None:
        return Check("APIC", Verdict.OK, "x2APIC mode" if facts.info.x2apic else "xAPIC mode")
    if "x2apic" in facts.cpu_flags and "nox2apic" not in facts.cmdline.split():
        return Check("APIC", Verdict.NOTE, "x2APIC is possible; kmb.ko tells the mode in use")
    return Check("APIC", Verdict.OK, "xAPIC mode (a guess)")


def _tsc(facts: Facts) -> Check:
    text = f"clocksource {facts.clocksource or 'unknown'}"
    steady = "constant_tsc" in facts.cpu_flags or "tsc=reliable" in facts.cmdline.split()
    if facts.clocksource == "tsc" and steady:
        return Check("TSC", Verdict.OK, text)
    return Check(
        "TSC",
        Verdict.NOTE,
        f"{text}: stage times may be off between CPUs",
        "boot the root with tsc=reliable if the machine's TSCs agree",
    )


def _broadcast(facts: Facts) -> Check:
    if "no_ipi_broadcast=1" in facts.cmdline.split():
        return Check("IPIs", Verdict.OK, "no_ipi_broadcast=1")
    return Check(
        "IPIs",
        Verdict.MISSING,
        "the root may broadcast IPIs to the vnodes' CPUs",
        "boot the root with no_ipi_broadcast=1",
    )


def _headers(facts: Facts) -> Check:
    if facts.headers:
        return Check("kernel headers", Verdict.OK, "installed")
    return Check(
        "kernel headers",
        Verdict.NOTE,
        "absent: kmb.ko cannot be built here",
        f"install linux-headers-{facts.release}",
    )


def _program(facts: Facts, name: str, *, needed: bool) -> Check:
    package, purpose = PROGRAMS[name]
    if name in facts.programs:
        return Check(name, Verdict.OK, f"installed, for {purpose}")
    verdict = Verdict.MISSING if needed else Verdict.NOTE
    return Check(name, verdict, f"absent; needed for {purpose}", f"apt-get install {package}")


def _host_memory(facts: Facts) -> Check:
    text = f"{facts.mem_bytes >> 20} MiB"
    if facts.mem_bytes < 3 << 30:
        return Check("memory", Verdict.MISSING, text, "a box takes 2 GiB")
    return Check("memory", Verdict.OK, text)


def _kvm(facts: Facts) -> Check:
    if facts.box_accel == "kvm":
        return Check(
            "KVM", Verdict.OK, "proven: a guest was seen to boot, and the box runs with it"
        )
    if not facts.kvm:
        return Check("KVM", Verdict.NOTE, "no usable /dev/kvm: a box runs emulated")
    if facts.box_accel:
        return Check("KVM", Verdict.NOTE, "not proven: /dev/kvm opens, the box runs emulated")
    text = "not proven: /dev/kvm opens, which is no sign that a guest boots; 'box up' tries it"
    return Check("KVM", Verdict.NOTE, text)


def succession(successor: int, panic: str) -> Check:
    """What a panic of the root ends in: `panic` is the sysctl kernel.panic, "" = unknown."""
    resets = panic not in ("", "0")
    if successor:
        text = f"vnode {successor} succeeds the root: no reset while it runs (kernel.panic={panic})"
        return Check("root panic", Verdict.OK, text)
    if resets:
        text = f"resets the machine and all vnodes (kernel.panic={panic})"
        hint = "name a [machine] successor, or set kernel.panic=0"
        return Check("root panic", Verdict.NOTE, text, hint)
    return Check("root panic", Verdict.OK, "the vnodes run on, nobody watches them")


def dumps(used: Usage, limits: Limits) -> Check:
    """What the dumps take; close to the least that is to be left free, old ones will go."""
    parts = [
        f"{used.dumps} dump(s)" + (f" of {limits.dumps}" if limits.dumps else ""),
        size(used.bytes) + (f" of {size(limits.bytes)}" if limits.bytes else ""),
        f"{size(used.free)} free" + (f", {size(limits.free)} kept" if limits.free else ""),
    ]
    if limits.free and used.free < 2 * limits.free:
        hint = "enlarge the disk, or lower [dumps] free: old dumps are removed"
        return Check("dumps", Verdict.NOTE, ", ".join(parts), hint)
    return Check("dumps", Verdict.OK, ", ".join(parts))


def complete(checks: list[Check]) -> bool:
    """Whether nothing needed is missing."""
    return all(c.verdict is not Verdict.MISSING for c in checks)
