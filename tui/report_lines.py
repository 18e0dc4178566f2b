# SPDX-License-Identifier: GPL-2.0-or-later
"""Analysis reports and incidents as lines: panels, facts, bars of the stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adeos.units import duration, size
from tui.look import Piece, Role
from tui.text import bar

if TYPE_CHECKING:
    from crashdump.analysis.report import Panel
    from crashdump.incident import Incident

BAR = 32


def panel_lines(panel: Panel) -> Iterator[Piece]:
    """A panel of an analysis."""
    from crashdump.analysis.report import State
    from crashdump.analysis.text import block_lines

    yield Piece(panel.title, Role.TITLE)
    if panel.state is not State.OK:
        yield Piece(f"  {panel.state}: {panel.note}", Role.BUSY)
    for block in panel.blocks:
        if block.heading:
            yield Piece(f"  {block.heading}", Role.HELD)
        for line in block_lines(block):
            yield Piece(f"    {line}", Role.BAD if line.startswith("=>") else Role.PLAIN)
    yield Piece("")


def stage_lines(one: Incident) -> Iterator[Piece]:
    """Where the time of an incident went: a bar a stage, as long as its step."""
    from crashdump.stages import table

    rows = table(one.stamps)
    whole = max((row.step_ms for row in rows), default=0.0)
    for row in rows:
        numbers = f"{row.step_ms:10.3f} ms  at {row.at_ms:10.3f}"
        yield Piece(f"  {row.stage!s:9} {numbers}  {bar(row.step_ms, whole, BAR)}")


def fact_lines(one: Incident) -> Iterator[Piece]:
    """Who, when, why, and what came of it."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.opened))
    yield Piece(one.title or one.message or one.reason, Role.TITLE)
    facts = (
        ("incident", f"{one.id}, {one.state}, {when}"),
        ("vnode", f"{one.vnode} {one.name}, incarnation {one.incarnation} {one.release}"),
        ("reason", " ".join(filter(None, (one.reason, one.layer, one.message)))),
        ("task", f"{one.comm} ({one.pid})" if one.comm else ""),
        ("outcome", " ".join(filter(None, (one.policy, one.outcome, one.restart)))),
        ("dump", _dump(one)),
    )
    yield from (Piece(f"  {name:9} {value}") for name, value in facts if value)


def _dump(one: Incident) -> str:
    dump = one.dump
    stored = f"{size(dump.stored)} of {size(dump.size)}" if dump.stored else ""
    took = f"in {duration(dump.seconds)}" if dump.stored else ""
    return " ".join(filter(None, (str(dump.state), stored, took, dump.reason, dump.remark)))
