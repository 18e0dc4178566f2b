# SPDX-License-Identifier: GPL-2.0-or-later
"""The incident store as the verbs read it: never repaired, never written."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.errors import NotFound

if TYPE_CHECKING:
    from cli.session import Session
    from crashdump.incident import Incident

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")


def dump_path(session: Session, incident: int) -> Path:
    """The vmcore of an incident; NotFound says why there is none."""
    record = session.store().get(incident)
    path = whole_path(session, record)
    if path is not None and path.is_file():
        return path
    why = f" ({record.dump.reason})" if record.dump.reason else ""
    raise NotFound(f"incident {incident} has no dump to read: it is {record.dump.state}{why}")


def whole_path(session: Session, incident: Incident) -> Path | None:
    """Where an incident's dump is or will be; the record names it within its directory."""
    name = incident.dump.path
    return session.store().path(incident.id) / name if name else None


def as_dict(session: Session, incident: Incident) -> dict[str, Any]:
    """An incident for JSON, with the directory of its files and its stages in milliseconds."""
    import msgspec

    from crashdump import stages

    rows = stages.table(incident.stamps)
    record = msgspec.to_builtins(incident)
    record["dump"]["path"] = str(whole_path(session, incident) or "")
    return {
        **record,
        "directory": str(session.store().path(incident.id)),
        "stages": [{"stage": str(r.stage), "at_ms": r.at_ms, "step_ms": r.step_ms} for r in rows],
    }


class WhenParam(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A time: "2026-11-21 10:00", "10:00" today, or "2h" ago; kept as Unix time."""

    name = "when"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        moment = parse_when(str(value), time.time())
        if moment is None:
            hint = 'write it like "2026-11-21 10:00", "10:00" or "2h" (ago)'
            self.fail(f"{value!r} is no time; {hint}", param, ctx)
        return moment


def parse_when(text: str, now: float) -> float | None:
    """The Unix time meant, None when none is."""
    text = text.strip()
    ago = re.fullmatch(r"-?(\d{1,9})([smhdw])(?: ago)?", text, re.ASCII)
    if ago:
        return now - int(ago[1]) * UNITS[ago[2]]
    today = time.strftime("%Y-%m-%d ", time.localtime(now))
    for candidate in (text, today + text):
        for form in FORMATS:
            try:
                return time.mktime(time.strptime(candidate, form))
            except (ValueError, OverflowError):
                continue
    return None


WHEN = WhenParam()
