# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of a fault before its successor starts: raw copies, in files that need no disk.

    journal.put(case)      # after the fence: survives kill -9 of this process
    ...                    # the successor starts; then filing.py makes an incident of it
    journal.drop(case)     # the store has it

The copies are of what the successor will use again: its low slot, and, unless its region is held,
the bridge with crash record, registers and log.  Nothing is parsed here: that costs 20 ms under
emulation, a copy less than one.
Limits: the directory is in memory (/run): a case is as lost by a reboot as the vnode's memory.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import replace

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.errors import AdeosError
from adeos.machine import Machine
from crashdump.capture import boot_id
from crashdump.errors import DiskFull
from crashdump.files import replace_file
from crashdump.incident import Witness
from watchdog import log
from watchdog.states import Fault

BRIDGE_KEPT = abi.VN_BR_KMSG + abi.VN_KMSG_SIZE
"""Bytes of a bridge that tell of a fault; behind them are grants and the warm restart's."""


class Held(msgspec.Struct, frozen=True):
    """Memory that is the dump, `region`, and a copy of what the successor needs, `low`."""

    region: Range
    slot: Range
    low: bytes


class Case(msgspec.Struct, frozen=True):
    """A fault of a fenced vnode.

    `opened`: Unix time, seconds; with `vnode` and the fault's incarnation it names the case.
    `stamps`: TSC of each stage.  `gathered`, `answered`: as in Unit.  `bridge`: a copy of it, b"" =
    it had none or lies in what is held.  `boot_id`: of the root kernel under which `held` lies in
    memory.  `strategy`, `successor`: of one that runs already.  `lost`: why there is no dump.
    """

    vnode: int
    name: str
    fault: Fault
    opened: float
    stamps: dict[str, int]
    witnesses: tuple[Witness, ...]
    policy: str
    ncpus: int
    boot_id: str
    gathered: str = ""
    answered: tuple[int, ...] | None = None
    bridge: bytes = b""
    held: Held | None = None
    strategy: str = ""
    successor: int | None = None
    lost: str = ""

    def held_by(self, held: Held) -> Case:
        """The case with its memory held, where the bridge is as safe as in a copy."""
        return replace(self, held=held, bridge=b"")

    def open_bridge(self, machine: Machine) -> Bridge | None:
        """The copy, or what is held of it in the machine's memory, to be read as any bridge."""
        if self.bridge:
            return Bridge(memoryview(self.bridge.ljust(abi.VN_BRIDGE_SIZE, b"\0")))
        if self.held is None or self.boot_id != boot_id():
            return None
        try:
            return Bridge.open(machine, self.held.region)
        except AdeosError as error:
            log.write("warning", "bridge", vnode=self.vnode, what=error)
            return None


def bridge_copy(bridge: Bridge) -> bytes:
    """What a case keeps of a bridge: of the log's tail no more than there is."""
    tail = abi.CRASH.get(bridge.view, abi.VN_BR_CRASH, "kmsg_len")
    return bytes(bridge.view[: min(abi.VN_BR_KMSG + tail, BRIDGE_KEPT)])


class Journal:
    """A file a case, whole or not there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, case: Case) -> bool:
        """Keep a case, or what is new of it; False, and logged, where that cannot be done."""
        try:
            replace_file(self._path(case), msgspec.msgpack.encode(case), sync=False)
        except (OSError, DiskFull) as error:
            log.write("error", "journal", vnode=case.vnode, what=error)
            return False
        return True

    def drop(self, case: Case) -> None:
        """The store has it."""
        try:
            self._path(case).unlink(missing_ok=True)
        except OSError as error:
            log.write("error", "journal", vnode=case.vnode, what=error)

    def left(self) -> list[Case]:
        """What an earlier daemon did not come to file, oldest first; the unreadable is removed."""
        cases: list[Case] = []
        for path in self.directory.iterdir():
            try:
                if path.suffix == ".case":
                    cases.append(msgspec.msgpack.decode(path.read_bytes(), type=Case))
                    continue
            except (msgspec.DecodeError, OSError) as error:
                log.write("error", "journal", file=path.name, what=error)
            path.unlink(missing_ok=True)
        return sorted(cases, key=lambda case: case.opened)

    def _path(self, case: Case) -> Path:
        return self.directory / f"{case.vnode}-{case.opened:.6f}.case"
