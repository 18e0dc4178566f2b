# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU guest whose RAM is a shared file: watched like a vnode.

    qemu:RAMFILE,qmp=SOCKET

Memory comes from the file (`-object memory-backend-file,share=on,mem-path=RAMFILE`),
where which part of it lies from QEMU itself, registers over QMP.  Nothing is
stopped; `attach --stop` is stub_proxy.py's.

Limits: x86-64; one RAM file; registers of a running CPU are those at its last
exit from translated code.
"""

import re
from pathlib import Path
from typing import NamedTuple

from debugger.errors import NothingThere, TargetError, WrongTarget
from debugger.qmp import Qmp
from debugger.registers import Values
from debugger.target import Change, Identity, KernelTarget, Liveness
from introspect.errors import IntrospectError
from introspect.kernel import Kernel
from introspect.memory import FileMemory

PREFIX = "qemu:"
_MAX_CPUS = 1024
_MAX_SEGMENTS = 256
_MAX_BACKENDS = 64
# "0000000000100000-000000000fffffff (prio 0, ram): pc.ram @0000000000100000 KVM"
_RANGE = re.compile(r"\s*([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, r[ao]m\): (.*)")
_PLACE = re.compile(r"(.*?)(?: @([0-9a-f]{16}))?(?: KVM)?")
_CPU = re.compile(r"^CPU#(\d{1,4})$", re.MULTILINE)
_NUMBER = re.compile(r"\b(R[A-Z0-9]{1,2}|RFL|EFER|CR[0-8]) ?=([0-9a-f]{8,16})\b")
_SEGMENT = re.compile(r"^([CDEFGS]S) =([0-9a-f]{4}) ([0-9a-f]{8,16}) ", re.MULTILINE)


class Guest(NamedTuple):
    """What names a guest."""

    ram: Path
    qmp: str

    @classmethod
    def parse(cls, text: str) -> "Guest":
        """ "qemu:RAMFILE,qmp=SOCKET"; WrongTarget."""
        ram, comma, socket = text.removeprefix(PREFIX).partition(",qmp=")
        if not ram or not comma or not socket or "\0" in text:
            raise WrongTarget(f"{text}: a QEMU guest is qemu:RAMFILE,qmp=SOCKET")
        return cls(Path(ram), socket)


def parse_registers(text: str) -> dict[int, dict[str, int]]:
    """Registers by CPU, by gdb's names, out of `info registers -a`; {} for a CPU in 32-bit mode."""
    parts = _CPU.split(text.replace("\r", ""))
    found: dict[int, dict[str, int]] = {}
    for number, part in zip(parts[1::2], parts[2::2], strict=True):
        values = {name.lower(): int(value, 16) for name, value in _NUMBER.findall(part)}
        if "rip" not in values:  # EIP: before the kernel has switched to 64 bits
            found[int(number)] = {}
            continue
        values["eflags"] = values.pop("rfl", 2)
        for name, selector, base in _SEGMENT.findall(part):
            values[name.lower()] = int(selector, 16)
            if name in ("FS", "GS"):
                values[f"{name.lower()}_base"] = int(base, 16)
        found[int(number)] = values
    return found


def parse_mtree(text: str, backend: str) -> list[tuple[int, int, int]]:
    """(physical address, offset, size) of a backend's RAM out of `info mtree -f`."""
    found: list[tuple[int, int, int]] = []
    is_system = False
    for line in text.replace("\r", "").split("\n"):
        if line.startswith(" Root memory region: "):
            is_system = line.endswith(": system")
        match = _RANGE.fullmatch(line) if is_system else None
        place = _PLACE.fullmatch(match[3]) if match is not None else None
        if match is None or place is None or place[1] != backend:
            continue
        start, end = int(match[1], 16), int(match[2], 16) + 1
        offset = int(place[2] or "0", 16)
        if found and found[-1][0] + found[-1][2] == start and offset == sum(found[-1][1:]):
            found[-1] = (found[-1][0], found[-1][1], end - found[-1][0])
        elif start < end and len(found) < _MAX_SEGMENTS:
            found.append((start, offset, end - start))
    return found


def backend_of(qmp: Qmp, ram: Path) -> str:
    """The id of the memory backend that is this file; NothingThere when none is, or not shared."""
    for row in list(qmp.command("query-memdev"))[:_MAX_BACKENDS]:
        name = str(row.get("id", ""))
        try:
            path = qmp.command("qom-get", path=f"/objects/{name}", property="mem-path")
        except TargetError:  # memory of no file
            continue
        if Path(path).resolve() == ram.resolve():
            if not row.get("share"):
                raise NothingThere(f"{ram}: not shared: give QEMU's memory-backend-file share=on")
            return name
    raise NothingThere(f"{ram}: no memory of the guest at {qmp.path}: see its mem-path=")


class QemuCpus:
    """CpuSource of a guest."""

    volatile = True
    focus = 0
    liveness = Liveness.RUNNING

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self.count = min(max(len(qmp.command("query-cpus-fast")), 1), _MAX_CPUS)
        self._saved: dict[int, dict[str, int]] = {}
        self._runs = True
        self._gone = ""
        self.refresh()

    def refresh(self) -> None:
        if self._gone:
            return
        self._runs = bool(self._qmp.command("query-status").get("running"))
        self._saved = parse_registers(self._qmp.monitor("info registers -a"))

    def registers(self, cpu: int) -> Values:
        return self._saved.get(cpu, {})

    def state(self, cpu: int) -> str:
        words = "running [sampled]" if self._runs else "stopped [saved]"
        return words if self.registers(cpu) else f"{words.partition(' ')[0]} [not in 64-bit mode]"

    def change(self) -> Change | None:
        """What QEMU's events tell: that the guest is gone, or has panicked (pvpanic)."""
        events = [] if self._gone else self._qmp.events()
        if "EOF" in events or "SHUTDOWN" in events:
            self._gone = "QEMU ended, or the guest has shut down"
        elif "RESET" in events:
            self._gone = "the guest was reset: detach and attach again"
        if self._gone:
            return Change(self._gone, gone=True)
        if "GUEST_PANICKED" in events:
            return Change("the guest's kernel has panicked", gone=False)
        return None


def target(guest: Guest, qmp: Qmp | None = None, *, tasks: bool = True) -> KernelTarget:
    """A guest, watched; NothingThere when it is not there, or has no kernel (yet).

    QEMU talks to one client at a time: `qmp` is a connection there is already; it is the target's.
    """
    qmp = qmp or Qmp(guest.qmp)
    try:
        return _target(guest, qmp, tasks=tasks)
    except BaseException:
        qmp.close()
        raise


def _target(guest: Guest, qmp: Qmp, *, tasks: bool) -> KernelTarget:
    backend = backend_of(qmp, guest.ram)
    segments = parse_mtree(qmp.monitor("info mtree -f"), backend)
    try:
        kernel = Kernel.find(FileMemory(guest.ram, segments), live=True)
    except IntrospectError as error:
        raise NothingThere(f"{guest.ram}: {error}") from None
    name = Identity(1, guest.ram.name)
    return KernelTarget(name, kernel, QemuCpus(qmp), tasks=tasks, close=qmp.close)
