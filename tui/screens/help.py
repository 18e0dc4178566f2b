# SPDX-License-Identifier: GPL-2.0-or-later
"""All keys, as they are now, and what the marks mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from tui.keys import KEYS, PLACES, file, shown
from tui.look import STATES, Piece, Role
from tui.widgets.lines import Lines


class Help(ModalScreen[None]):
    """The overlay; any of its keys ends it."""

    DEFAULT_CSS = """
    Help { align: center middle; background: $background 60%; }
    Help > Vertical {
        width: 76; max-width: 96%; height: 90%; border: round $primary; background: $surface;
        padding: 0 1; border-title-color: $accent;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "app.back", "close"),
    ]

    def __init__(self, keymap: Mapping[str, str]) -> None:
        super().__init__()
        self._keymap = keymap

    def compose(self) -> ComposeResult:
        with Vertical() as frame:
            frame.border_title = "keys"
            yield Lines()

    def on_mount(self) -> None:
        lines = self.query_one(Lines)
        lines.show(list(help_lines(self._keymap)))
        lines.focus()


def help_lines(keymap: Mapping[str, str]) -> Iterator[Piece]:
    """The keys by place, then the marks."""
    for place in PLACES:
        yield Piece(place, Role.TITLE)
        for key in KEYS:
            if key.place == place:
                spelled = shown(keymap.get(key.id, key.key))
                yield Piece(f"  {spelled:9} {key.text:42} {key.id}")
    yield Piece("marks", Role.TITLE)
    for word, (mark, role) in STATES.items():
        yield Piece(f"  {mark} {word}", role)
    yield Piece("")
    yield Piece(f"other keys: {file()}, see docs/dashboard.md", Role.DIM)
