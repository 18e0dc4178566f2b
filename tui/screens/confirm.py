# SPDX-License-Identifier: GPL-2.0-or-later
"""The question before a deed that reaches further than the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.text import safe

MAX_LINES = 12


class Confirm(ModalScreen[bool]):
    """True for y; False for anything else that ends it."""

    DEFAULT_CSS = """
    Confirm { align: center middle; background: $background 60%; }
    Confirm > Vertical {
        width: 76; max-width: 96%; height: auto; max-height: 90%; border: round $warning;
        background: $surface; padding: 0 1;
    }
    Confirm #question { text-style: bold; }
    Confirm #answer { color: $warning; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q", "answer(False)", "no"),
    ]

    def __init__(self, question: str, reached: Sequence[str]) -> None:
        super().__init__()
        self.question = safe(question)
        self.reached = [safe(line) for line in reached]

    def compose(self) -> ComposeResult:
        more = len(self.reached) - MAX_LINES
        lines = [f"  {line}" for line in self.reached[:MAX_LINES]]
        lines += [f"  and {more} more"] if more > 0 else []
        with Vertical():
            yield Static(self.question, id="question", markup=False)
            yield Static("\n".join(lines), id="reach", markup=False)
            yield Static("y does it, n or Esc does not", id="answer", markup=False)

    def action_answer(self, yes: bool) -> None:
        """The answer."""
        self.dismiss(yes)
