# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of an analysis: plain data, the source of its text, JSON and HTML.

Its JSON form is documented in docs/analysis.md.  Everything in it that came
from a dump is printable and of bounded size: `finished` sees to that, at the
one place where reports are completed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from adeos.text import printable

SCHEMA = 1
MAX_TEXT = 400  # characters of one line or cell
MAX_ROWS = 300  # of one block
MAX_BLOCKS = 120  # of one panel


class State(StrEnum):
    """How far a panel came."""

    OK = "ok"
    """All of it."""
    PARTIAL = "partial"
    """Part of it; `note` says what is missing."""
    FAILED = "failed"
    """Nothing; `note` says why."""


class Facts(msgspec.Struct, frozen=True, tag_field="type", tag="facts"):
    """Names and values."""

    heading: str
    rows: tuple[tuple[str, str], ...]


class Table(msgspec.Struct, frozen=True, tag_field="type", tag="table"):
    """Rows under column names."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Lines(msgspec.Struct, frozen=True, tag_field="type", tag="lines"):
    """Lines as they are: log, disassembly, sentences."""

    heading: str
    lines: tuple[str, ...]


class Stack(msgspec.Struct, frozen=True, tag_field="type", tag="stack"):
    """Frames "function+0xoffset/0xsize [module]", innermost first.

    guess   no registers were known: found by scanning
    end     "" when the stack was followed to its end, else why it was not
    """

    heading: str
    frames: tuple[str, ...]
    guess: bool = False
    end: str = ""


Block = Facts | Table | Lines | Stack


class Command(msgspec.Struct, frozen=True):
    """A command line that shows the same with another tool."""

    tool: str
    line: str


class Panel(msgspec.Struct, frozen=True):
    """One question and its answer; `seconds` is CPU time."""

    name: str
    title: str
    state: State = State.OK
    note: str = ""
    seconds: float = 0.0
    blocks: tuple[Block, ...] = ()
    commands: tuple[Command, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """What happened to one kernel.

    title     the same for the same fault, whatever boot, address or CPU
    culprit   the function at fault, "" when not known
    guess     the title rests on a guess; `basis` says on what it rests in any case
    cpu       which failed, None when not known
    host      its node name
    """

    title: str
    culprit: str = ""
    module: str = ""
    guess: bool = False
    basis: str = ""
    cpu: int | None = None
    release: str = ""
    build_id: str = ""
    host: str = ""
    source: str = ""
    incident: int | None = None
    seconds: float = 0.0
    redacted: dict[str, int] = {}
    panels: tuple[Panel, ...] = ()
    schema: int = SCHEMA

    def panel(self, name: str) -> Panel | None:
        return next((one for one in self.panels if one.name == name), None)


def map_text(report: Report, change: Callable[[str], str]) -> Report:
    """`report` with `change` applied to each text in it, names of members excepted."""

    def walk(value: Any) -> Any:
        if isinstance(value, str) and not isinstance(value, StrEnum):
            return change(value)
        if isinstance(value, tuple):
            return tuple(walk(one) for one in value)
        if isinstance(value, msgspec.Struct):
            fields = {name: walk(getattr(value, name)) for name in value.__struct_fields__}
            return type(value)(**fields)
        return value

    changed: Report = walk(report)
    return changed


def clean(text: str) -> str:
    """One printable line of bounded length; tabs become spaces."""
    raw = text[: MAX_TEXT + 1].replace("\t", "    ").encode("utf-8", "backslashreplace")
    safe = printable(raw)
    return safe if len(safe) <= MAX_TEXT else safe[: MAX_TEXT - 3] + "..."


def finished(report: Report) -> Report:
    """`report` with its text printable and its size bounded."""
    panels = tuple(_bounded(panel) for panel in report.panels)
    return map_text(msgspec.structs.replace(report, panels=panels), clean)


def _bounded(panel: Panel) -> Panel:
    blocks = tuple(_cut(block) for block in panel.blocks[:MAX_BLOCKS])
    dropped = len(panel.blocks) - len(blocks)
    if not dropped:
        return msgspec.structs.replace(panel, blocks=blocks)
    note = "; ".join(filter(None, (panel.note, f"{dropped} more blocks left out")))
    return msgspec.structs.replace(panel, blocks=blocks, state=State.PARTIAL, note=note)


def _cut(block: Block) -> Block:
    """A block of at most MAX_ROWS rows; its heading says how many were left out."""
    name = {"Facts": "rows", "Table": "rows", "Lines": "lines", "Stack": "frames"}[
        type(block).__name__
    ]
    rows: Sequence[Any] = getattr(block, name)
    if len(rows) <= MAX_ROWS:
        return block
    heading = f"{block.heading} ({len(rows) - MAX_ROWS} more {name} left out)"
    return msgspec.structs.replace(block, heading=heading, **{name: tuple(rows[:MAX_ROWS])})


def encode(report: Report) -> bytes:
    """As indented JSON with a final line feed."""
    return msgspec.json.format(msgspec.json.encode(report)) + b"\n"


def decode(data: bytes) -> Report:
    """:raises msgspec.DecodeError, msgspec.ValidationError: it is no report."""
    return msgspec.json.decode(data, type=Report)
