# SPDX-License-Identifier: GPL-2.0-or-later
"""From a fenced vnode's memory to the vmcore of its incident, in steps that survive kill -9.

On the critical path, in the daemon, after the fence:

    low = low_memory(machine.view, slot)         # a spare region: the old one is the dump
    copy(store, id, machine.view, region, slot)  # none: out to the disk before the restart

The successor may start then; what follows makes the incident's dump of it:

    record(store, id, evidence, kmsg)            # registers and log; before a copy, too
    hold(store, id, low, region, slot)

Afterwards, in a process of low priority (:mod:`crashdump.worker`): :func:`write_dump`.
The incident's ``dump`` tells at every moment what remains to be done;
:func:`resume` reads it after a restart of the daemon.  Later analysis starts
where write_dump ends: from the incident's directory alone.
"""

import contextlib
import fcntl
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from adeos import abi
from adeos.abi import Range
from adeos.bridge import Bridge
from adeos.errors import BridgeError
from adeos.machine import Machine
from crashdump import incident as records
from crashdump import vmcore
from crashdump.errors import CrashdumpError, DiskFull, SourceLost
from crashdump.facts import Segment
from crashdump.facts import find as find_facts
from crashdump.files import replace_file
from crashdump.incident import PENDING, Dump, DumpMode, DumpState, Evidence, Extent, Incident
from crashdump.store import IncidentStore

LOW_FILE = "low.raw"
KMSG_FILE = "kmsg.txt"
EVIDENCE_FILE = "crash.json"
VMCORE_FILE = "vmcore"

View = Callable[[int, int], memoryview]
"""Physical memory: (base, size) in bytes, as Machine.view gives it."""


class Action(Enum):
    """What the daemon has to do for a dump that :func:`resume` found unfinished."""

    WAIT = "wait"
    """A worker of the former daemon is at it."""
    WORK = "work"
    """Start a worker."""
    COPY = "copy"
    """Call :func:`copy` again before the vnode is restarted."""


class Pending(NamedTuple):
    """An unfinished dump; ``region`` must not be used until it is finished, None = it may."""

    incident: Incident
    action: Action
    region: Range | None


# -- in the daemon, after the fence


def record(store: IncidentStore, number: int, evidence: Evidence, kmsg: str = "") -> None:
    """Writes ``crash.json`` and ``kmsg.txt``; ``kmsg`` is printable already (Bridge.kmsg)."""
    path = store.path(number)
    safe = msgspec.structs.replace(evidence, message=records.clean(evidence.message))
    replace_file(path / EVIDENCE_FILE, records.encode(safe), sync=False)
    if kmsg:
        data = kmsg.encode("utf-8", "backslashreplace")
        replace_file(path / KMSG_FILE, data, sync=False)


def low_memory(view: View, slot: Range) -> bytes:
    """A copy of the low slot's RAM, 32 KiB or so: the successor will use it."""
    return bytes(view(slot.base, slot.size)[abi.VN_SLOT_RAM :])


def hold(
    store: IncidentStore,
    number: int,
    low: bytes,
    region: Range,
    slot: Range,
    *,
    vmcoreinfo_pa: int = 0,
) -> Incident:
    """Declares ``region`` the dump: nobody may use it before the dump is finished.

    :param low: the slot's RAM, as :func:`low_memory` gave it before the successor started.
    """
    extents = (_save_slot(store, number, low, slot), Extent(region.base, region.size))
    dump = _dump(DumpState.HELD, DumpMode.HOLD, extents, vmcoreinfo_pa)
    return store.update(number, file=False, dump=dump)


def copy(
    store: IncidentStore,
    number: int,
    view: View,
    region: Range,
    slot: Range,
    *,
    vmcoreinfo_pa: int = 0,
) -> Incident:
    """Copies the vnode's memory out; afterwards region and slot are free.

    A full disk is no error here: the dump is then SKIPPED with the reason, and the
    restart goes on.
    """
    low = low_memory(view, slot)
    extents = (_save_slot(store, number, low, slot), Extent(region.base, region.size))
    dump = _dump(DumpState.COPYING, DumpMode.COPY, extents, vmcoreinfo_pa)
    store.update(number, dump=dump)
    out = store.path(number) / VMCORE_FILE
    try:
        with vmcore.Part(out, keep=True) as part:
            stored = part.copy(_segments(out.parent, dump, view))
        dump = msgspec.structs.replace(dump, state=DumpState.COPIED, stored=stored)
    except DiskFull as problem:
        dump = _ended(dump, DumpState.SKIPPED, str(problem))
    except (CrashdumpError, OSError) as problem:
        dump = _ended(dump, DumpState.FAILED, str(problem))
    return store.update(number, dump=dump)


def again(store: IncidentStore, number: int) -> Incident:
    """Have a dump that was skipped written after all; its region must still be held."""
    dump = msgspec.structs.replace(store.get(number).dump, state=DumpState.HELD, reason="")
    return store.update(number, dump=dump)


def _save_slot(store: IncidentStore, number: int, low: bytes, slot: Range) -> Extent:
    """The RAM part of the low slot as a file of the incident."""
    replace_file(store.path(number) / LOW_FILE, low, sync=False)
    return Extent(slot.base + abi.VN_SLOT_RAM, len(low), LOW_FILE)


def _dump(state: DumpState, mode: DumpMode, extents: tuple[Extent, ...], note: int) -> Dump:
    return Dump(state, mode=mode, extents=extents, vmcoreinfo_pa=note, boot_id=boot_id())


def _ended(dump: Dump, state: DumpState, reason: str) -> Dump:
    return msgspec.structs.replace(dump, state=state, reason=records.clean(reason))


@cache
def boot_id() -> str:
    """Identity of this boot of the root's kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# -- in the worker


def write_dump(store: IncidentStore, number: int, view: View) -> Incident:
    """Finishes the dump of an incident: DONE, or SKIPPED, FAILED, LOST with the reason.

    Does nothing when there is nothing to do or another process is at it.
    :param view: asked for memory that is held in place only.
    """
    store.get(number)  # there is such an incident
    path = store.path(number)
    with _lock(path) as mine:
        incident = store.get(number)
        if not mine or incident.dump.state not in PENDING:
            return incident
        dump = incident.dump
        store.update(number, dump=msgspec.structs.replace(dump, state=DumpState.WRITING))
        try:
            dump = _finished(incident, path, view)
        except DiskFull as problem:
            dump = _ended(dump, DumpState.SKIPPED, str(problem))
        except SourceLost as problem:
            dump = _ended(dump, DumpState.LOST, str(problem))
        except Exception as problem:  # else it would be tried again at every start
            dump = _ended(dump, DumpState.FAILED, f"{type(problem).__name__}: {problem}")
        return store.update(number, sync=True, dump=dump)


def _finished(incident: Incident, path: Path, view: View) -> Dump:
    dump = incident.dump
    out = path / VMCORE_FILE
    evidence = records.decode_evidence((path / EVIDENCE_FILE).read_bytes())
    if out.exists():  # killed between the rename and the update
        size, stored = out.stat().st_size, out.stat().st_blocks * 512
        return _done(dump, size=size, stored=stored)
    if dump.mode is DumpMode.COPY:
        with vmcore.Part(out, resume=True) as part, _mapped(part.path) as view_of_part:
            segments = _from_part(dump, view_of_part)
            facts = find_facts(segments, dump.vmcoreinfo_pa)
            size = part.seal(vmcore.headers(segments, evidence.cpus, facts))
        return _done(dump, size=size, remark=facts.remark)
    segments = _segments(path, dump, view)
    _check_source(incident, view)
    facts = find_facts(segments, dump.vmcoreinfo_pa)
    summary = vmcore.write(out, segments, evidence.cpus, facts)
    try:
        _check_source(incident, view)
    except SourceLost:
        out.unlink()
        raise
    return _done(
        dump,
        size=summary.size,
        stored=summary.stored,
        seconds=summary.seconds,
        remark=summary.remark,
    )


def _done(dump: Dump, **fields: object) -> Dump:
    return msgspec.structs.replace(
        dump, state=DumpState.DONE, path=VMCORE_FILE, extents=(), **fields
    )


def _segments(path: Path, dump: Dump, view: View) -> list[Segment]:
    def data(one: Extent) -> memoryview:
        return memoryview((path / one.file).read_bytes()) if one.file else view(one.base, one.size)

    return [Segment(one.base, data(one)) for one in dump.extents]


def _from_part(dump: Dump, view: memoryview) -> list[Segment]:
    """The segments as a part file holds them: by address, one behind the other."""
    found: list[Segment] = []
    at = vmcore.HEADER_SPACE
    for one in sorted(dump.extents, key=lambda extent: extent.base):
        data = view[at : at + one.size]
        if len(data) != one.size:
            raise SourceLost(f"the copy of memory {one.base:#x} is cut short")
        found.append(Segment(one.base, data))
        at += one.size
    return found


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        # not closed: the segments are views of it
        yield memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether this process now is the one that writes the dump."""
    fd = os.open(path / ".worker", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _check_source(incident: Incident, view: View) -> None:
    """:raises SourceLost: the held region belongs to another kernel by now.

    A bridge that cannot be read proves nothing: the fault may have destroyed it.
    """
    for one in incident.dump.extents:
        if one.file or one.size < abi.VN_OFF_RAM:
            continue
        try:
            side = Bridge(view(one.base + abi.VN_OFF_BRIDGE, abi.VN_BRIDGE_SIZE)).root_side()
        except BridgeError:
            continue
        if (side.vnode_id, side.incarnation) != (incident.vnode, incident.incarnation):
            raise SourceLost(
                f"region {one.base:#x} now holds vnode {side.vnode_id}, incarnation"
                f" {side.incarnation}"
            )


def worker_command(store: IncidentStore, number: int) -> list[str]:
    """Command line of a worker; run it with :func:`worker_environment`, in a session of its own.

    chrt keeps it off a real-time scheduler it would inherit from the daemon.
    """
    command = [sys.executable, "-m", "crashdump.worker", str(store.directory), str(number)]
    chrt = Path("/usr/bin/chrt")
    return [str(chrt), "--idle", "0", *command] if chrt.exists() else command


def worker_environment() -> dict[str, str]:
    """The environment with this installation on PYTHONPATH."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


# -- in a daemon that has just started


def resume(store: IncidentStore, machine: Machine) -> list[Pending]:
    """What remains to be done for unfinished dumps; the rest is marked LOST.

    Call it before a region is given to anyone.
    """
    pending: list[Pending] = []
    for incident in store.list(dumps=PENDING):
        with _lock(store.path(incident.id)) as idle:
            region = _region(incident)
            if not idle:
                pending.append(Pending(incident, Action.WAIT, region))
                continue
            try:
                pending.append(_next(store, store.get(incident.id), region, machine))
            except SourceLost as problem:
                _give_up(store, incident, str(problem))
    return pending


def _region(incident: Incident) -> Range | None:
    """The region that must stay untouched, None when the memory is in a file."""
    dump = incident.dump
    if dump.mode is DumpMode.COPY and dump.state is not DumpState.COPYING:
        return None
    bare = [one for one in dump.extents if not one.file]
    return Range(bare[0].base, bare[0].size) if bare else None


def _next(
    store: IncidentStore, incident: Incident, region: Range | None, machine: Machine
) -> Pending:
    dump = incident.dump
    if dump.state not in PENDING:
        raise SourceLost(dump.reason)
    if dump.boot_id != boot_id():
        raise SourceLost("the root was rebooted before the dump was written")
    if region is None:
        if not any((store.path(incident.id) / name).exists() for name in _COPIES):
            raise SourceLost("vmcore.part is gone")
        return Pending(incident, Action.WORK, None)
    _check_source(incident, machine.view)
    for vnode in range(1, abi.VN_MAX_VNODES):
        binding = machine.query(vnode)
        if binding and binding.started and binding.region.overlaps(region):
            raise SourceLost(f"vnode {vnode} runs in region {region.base:#x}")
    action = Action.COPY if dump.state is DumpState.COPYING else Action.WORK
    return Pending(incident, action, region)


_COPIES = (VMCORE_FILE, f"{VMCORE_FILE}.part")


def _give_up(store: IncidentStore, incident: Incident, reason: str) -> None:
    vmcore.part_path(store.path(incident.id) / VMCORE_FILE).unlink(missing_ok=True)
    store.update(incident.id, dump=_ended(incident.dump, DumpState.LOST, reason))
