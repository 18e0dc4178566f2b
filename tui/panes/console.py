# SPDX-License-Identifier: GPL-2.0-or-later
"""The console: what the vnode writes, as lines without escapes; and a line to type into it.

Limits: no terminal is emulated; full-screen programs want the real console (its key is `c`).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from introspect.printk import printable
from tui import keys
from tui.look import Piece
from tui.off_loop import one_line, start
from tui.panes.pane import Pane
from tui.widgets.lines import Lines

POLL_S = 0.1
UNFINISHED_MAX = 4096
"""Bytes kept of a line that has no end yet."""


class Splitter:
    """Bytes to lines; a line that is not finished is given again once it is."""

    def __init__(self) -> None:
        self._rest = b""
        self.open = False
        """Whether the last line given may still go on."""

    def feed(self, data: bytes) -> list[str]:
        """The lines as they are now, the unfinished one last; the first goes on from `open`."""
        raw = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = raw[-1][-UNFINISHED_MAX:]
        self.open = bool(self._rest)
        texts = [_text(line) for line in raw[:-1]]
        return [*texts, _text(self._rest)] if self._rest else texts


def _text(line: bytes) -> str:
    # what stands before a carriage return was written over
    last = line.rstrip(b"\r").rsplit(b"\r", 1)[-1]
    return printable(last.decode("utf-8", "backslashreplace"))


class TypedLine(Input):
    """A line for the vnode's console; Enter sends it."""

    DEFAULT_CSS = "TypedLine { dock: bottom; height: 1; border: none; padding: 0 1; }"

    def key_escape(self, event: events.Key) -> None:
        event.stop()
        self.screen.query_one("ConsolePane Lines").focus()


class ConsolePane(Pane):
    """Live, with scrollback."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("logs")

    def compose(self) -> ComposeResult:
        yield Lines(follow=True)
        yield TypedLine(placeholder="i: type a line for the vnode; Enter sends it, Esc leaves")

    def on_mount(self) -> None:
        self._lines = self.query_one(Lines)
        self._splitter = Splitter()
        self._reader = self.client.console(self.vnode)
        self.query_one(TypedLine).disabled = self.dashboard.readonly

    async def read(self) -> None:
        while True:
            data = await self.fetch(self._reader.read)
            if data:
                self._show(data)
            await asyncio.sleep(POLL_S)

    def _show(self, data: bytes) -> None:
        was_open = self._splitter.open
        fresh = [Piece(text) for text in self._splitter.feed(data)]
        if was_open and fresh:
            self._lines.replace_last(fresh.pop(0))
        self._lines.add(fresh)

    def action_type(self) -> None:
        """Into the console."""
        if self.dashboard.readonly:
            self.dashboard.say("this dashboard is read-only", bad=True)
        else:
            self.query_one(TypedLine).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        start(self, partial(self._send, event.value), "type")
        event.input.clear()

    async def _send(self, text: str) -> None:
        try:
            await self.fetch(lambda: self.client.type(self.vnode, f"{text}\r".encode()))
        except Exception as error:
            self.dashboard.say(one_line(error), bad=True)

    def action_follow(self) -> None:
        """Stay at the end, or not."""
        self.dashboard.say("follows" if self._lines.toggle_follow() else "stays")

    def action_wrap(self) -> None:
        """Wrap long lines, or not."""
        self._lines.toggle_wrap()

    def action_context(self) -> None:
        """Lines around each hit of the filter."""
        self.dashboard.say(f"{self._lines.next_context()} lines around a hit")
