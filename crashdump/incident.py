# SPDX-License-Identifier: GPL-2.0-or-later
"""What is recorded of an incident; its JSON form is documented in docs/incidents.md.

Limits: text that came from a vnode is made printable and cut to length when an
incident is made (:func:`clean`), not when it is shown.
"""

from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec

from adeos.text import printable
from crashdump.notes import CpuState

T = TypeVar("T")

SCHEMA = 1
TEXT_MAX = 256


class IncidentState(StrEnum):
    OPEN = "open"
    """Being handled."""
    COMPLETE = "complete"
    """Handled as the policy says."""
    INTERRUPTED = "interrupted"
    """The root's daemon died over it and could not take it up again."""


class DumpState(StrEnum):
    """Where the vnode's memory is.  HELD, COPIED and WRITING can be resumed."""

    NONE = "none"
    """Not captured, or not yet."""
    HELD = "held"
    """In place: the region must not be used until the dump is written."""
    COPYING = "copying"
    """Being copied before the restart; the region must not be used."""
    COPIED = "copied"
    """In ``vmcore.part``, headers to be added; the region is free."""
    WRITING = "writing"
    """A worker is at it; ``mode`` tells from what."""
    DONE = "done"
    """``vmcore`` is complete."""
    SKIPPED = "skipped"
    """Not wanted, or no room: see ``reason``."""
    FAILED = "failed"
    """See ``reason``."""
    LOST = "lost"
    """The memory was used again before it was written."""
    REMOVED = "removed"
    """Was complete, and went to keep the disk quota."""


PENDING = frozenset({DumpState.HELD, DumpState.COPYING, DumpState.COPIED, DumpState.WRITING})
"""A dump that still needs work."""


class DumpMode(StrEnum):
    HOLD = "hold"
    """The region is kept and the successor boots in another one."""
    COPY = "copy"
    """The region is copied before the restart."""


class Extent(msgspec.Struct, frozen=True):
    """Physical memory: ``size`` bytes from ``base`` on; ``file`` holds a copy, "" = none."""

    base: int
    size: int
    file: str = ""


class Dump(msgspec.Struct, frozen=True):
    """The dump of an incident: all that a restarted daemon needs to go on with it.

    Sizes in bytes; ``stored`` is without the holes.
    ``extents`` is the memory, ``vmcoreinfo_pa`` what the agent said (0 = nothing),
    ``boot_id`` the root kernel under which it lies there.
    """

    state: DumpState = DumpState.NONE
    reason: str = ""
    mode: DumpMode | None = None
    path: str = ""
    size: int = 0
    stored: int = 0
    seconds: float = 0.0
    remark: str = ""
    extents: tuple[Extent, ...] = ()
    vmcoreinfo_pa: int = 0
    boot_id: str = ""


class Witness(msgspec.Struct, frozen=True):
    """Beats of another vnode when the incident opened and when it closed."""

    vnode: int
    name: str
    incarnation: int
    before: int
    after: int | None = None


Time = Annotated[float, msgspec.Meta(ge=0, lt=253402300800)]
"""Unix time, seconds: up to the year 9999, which every calendar can show."""


class Incident(msgspec.Struct, frozen=True):
    """One failure of one vnode.  Times are Unix times in seconds.

    ``image_age``, seconds, is that of the image the successor was resumed from, None = it booted.
    ``title`` is the analysis's: equal for equal faults, "" before it is done.
    """

    id: int
    vnode: int
    name: str
    incarnation: int
    reason: str
    crash: bool
    opened: Time
    rev: int = 0
    schema: int = SCHEMA
    state: IncidentState = IncidentState.OPEN
    closed: Time | None = None
    release: str = ""
    layer: str = ""
    message: str = ""
    cpu: int | None = None
    pid: int | None = None
    comm: str = ""
    stamps: dict[str, int] = {}
    witnesses: tuple[Witness, ...] = ()
    policy: str = ""
    outcome: str = ""
    restart: str = ""
    image_age: float | None = None
    successor: int | None = None
    dump: Dump = Dump()
    title: str = ""


class Evidence(msgspec.Struct, frozen=True):
    """``crash.json``: what was known of the CPUs; the source of the vmcore's registers."""

    incident: int
    reason: str
    message: str
    crashed_cpu: int | None
    cpus: tuple[CpuState | None, ...]
    trapnr: int | None = None
    error_code: int | None = None


def clean(text: str | bytes, limit: int = TEXT_MAX) -> str:
    """``text`` on one line, harmless for a terminal, at most ``limit`` characters."""
    raw = text if isinstance(text, bytes) else text[:limit].encode("utf-8", "backslashreplace")
    return printable(raw[: 4 * limit])[:limit]


def changed(incident: Incident, fields: dict[str, Any]) -> Incident:
    """``incident`` with ``fields`` replaced, its text cleaned, its revision raised by one.

    :raises TypeError: a field is unknown, or one that never changes (id, opened, ...).
    """
    fixed = {"id", "rev", "schema", "opened"} & fields.keys()
    if fixed:
        raise TypeError(f"incident field {min(fixed)} never changes")
    safe = {
        name: clean(value) if isinstance(value, str) and not isinstance(value, StrEnum) else value
        for name, value in fields.items()
    }
    return msgspec.structs.replace(incident, rev=incident.rev + 1, **safe)


def encode(value: Incident | Evidence) -> bytes:
    """As indented JSON with a final line feed."""
    return msgspec.json.format(msgspec.json.encode(value)) + b"\n"


def decode(data: bytes) -> Incident:
    """:raises msgspec.DecodeError, msgspec.ValidationError: it is no incident."""
    return _decode(data, Incident)


def decode_evidence(data: bytes) -> Evidence:
    """:raises msgspec.DecodeError, msgspec.ValidationError: it is no crash.json."""
    return _decode(data, Evidence)


def _decode(data: bytes, kind: type[T]) -> T:
    """msgspec lets UnicodeDecodeError out of a text that is no UTF-8."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UnicodeDecodeError as problem:
        raise msgspec.DecodeError(str(problem)) from None
