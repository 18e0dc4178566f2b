# SPDX-License-Identifier: GPL-2.0-or-later
"""Which dumps go when they are too many, too large, or the disk is too full.

    removed = apply(store, Limits(dumps=100, bytes=20 << 30, free=1 << 30))
    removed = make_room(store, limits, expected(store, vnode, region_size))  # before a dump

The record of an incident, its registers, log and analysis stay; only its memory goes.
Of each title the first and the last dump stay longest: the first shows how it began,
the last what it is like now.  What is unfinished never goes, nor does the newest dump.
A process killed here leaves a record that says `removed` beside files that are removed
the next time.
"""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from crashdump.incident import PENDING, Dump, DumpState, Incident, IncidentState
from crashdump.store import IncidentStore
from crashdump.vmcore import HEADER_SPACE, RESERVE

FILES = ("vmcore", "vmcore.part", ".vmcore.part", "low.raw")
"""What is memory, and large."""


class Limits(NamedTuple):
    """At most so many dumps and bytes, at least so many bytes free on their disk; 0: no limit."""

    dumps: int = 0
    bytes: int = 0
    free: int = 0


class Kept(NamedTuple):
    """A dump that may go: the incident, what it has in common with others, bytes on the disk."""

    incident: int
    title: str
    size: int


class Usage(NamedTuple):
    """All dumps of a store: how many, their bytes on the disk, and the bytes free beside them."""

    dumps: int
    bytes: int
    free: int


def surplus(kept: Sequence[Kept], limits: Limits, usage: Usage) -> list[int]:
    """The incidents whose dumps go, in this order; `kept` is by number, oldest first."""
    gone: list[int] = []
    count, size, free = usage
    for one in _order(kept):
        over = (
            (limits.dumps and count > limits.dumps)
            or (limits.bytes and size > limits.bytes)
            or (limits.free and free < limits.free)
        )
        if not over:
            break
        gone.append(one.incident)
        count, size, free = count - 1, size - one.size, free + one.size
    return gone


def _order(kept: Sequence[Kept]) -> list[Kept]:
    """What is neither first nor last of its title, then firsts, then lasts; not the newest."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for one in kept:
        first.setdefault(one.title, one.incident)
        last[one.title] = one.incident

    def rank(one: Kept) -> tuple[int, int]:
        if last[one.title] == one.incident:
            return 2, one.incident
        return int(first[one.title] == one.incident), one.incident

    return sorted(kept[:-1], key=rank)


def usage(store: IncidentStore) -> Usage:
    """What the dumps of a store take."""
    sizes = [size(store, one) for one in store.list()]
    return Usage(sum(1 for one in sizes if one), sum(sizes), disk_free(store))


def disk_free(store: IncidentStore) -> int:
    """Bytes free on the disk of a store."""
    disk = os.statvfs(store.directory)
    return disk.f_bavail * disk.f_frsize


def apply(store: IncidentStore, limits: Limits) -> list[int]:
    """Remove what is over the limits; the incidents whose dumps went."""
    _finish(store, (one for one in store.list() if one.dump.state is DumpState.REMOVED))
    return _remove(store, surplus(_kept(store), limits, usage(store)))


def expected(store: IncidentStore, vnode: int, worst: int) -> int:
    """Bytes that a vnode's next dump may take, `worst` at most: as its others, and a quarter."""
    sizes = [size(store, one) for one in store.list() if one.vnode == vnode]
    return min(max(sizes) * 5 // 4, worst) if any(sizes) else worst


def make_room(store: IncidentStore, limits: Limits, need: int, title: str = "") -> list[int]:
    """Remove dumps until a further one of `need` bytes fits; the incidents whose dumps went.

    `title` is that one's, as far as it is known: it will be the last of that title.
    None goes when that does not suffice, nor where no limit is set: then all are to be kept.
    """
    if not any(limits):
        return []
    wanted = need + HEADER_SPACE + max(limits.free, RESERVE)
    if disk_free(store) >= wanted:
        return []
    used, kept = usage(store), _kept(store)
    coming = Kept(0, title, 0)  # will be the newest, which never goes
    gone = surplus([*kept, coming], Limits(free=wanted), used)
    if used.free + sum(one.size for one in kept if one.incident in gone) < wanted:
        return []
    return _remove(store, gone)


def _kept(store: IncidentStore) -> list[Kept]:
    sizes = ((one, size(store, one)) for one in store.list() if removable(one))
    return [Kept(one.id, one.title or one.reason, bytes_) for one, bytes_ in sizes if bytes_]


def _remove(store: IncidentStore, gone: list[int]) -> list[int]:
    for number in gone:
        dump = store.get(number).dump
        store.update(number, dump=removed(dump))
    _finish(store, (store.get(number) for number in gone))
    return gone


def removable(incident: Incident) -> bool:
    """Whether an incident is finished, its dump too."""
    return incident.state is not IncidentState.OPEN and incident.dump.state not in PENDING


def removed(dump: Dump) -> Dump:
    """A dump that went by the quota."""
    reason = "removed to keep the disk quota ([dumps] in vnodes.toml)"
    return msgspec.structs.replace(dump, state=DumpState.REMOVED, reason=reason, path="", stored=0)


def size(store: IncidentStore, incident: Incident) -> int:
    """Bytes on the disk of an incident's memory."""
    total = 0
    for name in FILES:
        try:
            total += (store.path(incident.id) / name).stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def _finish(store: IncidentStore, incidents: Iterable[Incident]) -> None:
    for one in incidents:
        for name in FILES:
            (store.path(one.id) / name).unlink(missing_ok=True)
