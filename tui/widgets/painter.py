# SPDX-License-Identifier: GPL-2.0-or-later
"""The styles of roles, from the theme; and strips of them, the currency of line widgets."""

from __future__ import annotations

from collections.abc import Iterable

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from tui.look import Piece, Role

CLASSES = {f"painter--{role.value}" for role in Role} | {
    "painter--cursor",
    "painter--marked",
    "painter--head",
}
CSS = """
    {widget} > .painter--plain {{ color: $foreground; }}
    {widget} > .painter--good {{ color: $success; }}
    {widget} > .painter--busy {{ color: $warning; }}
    {widget} > .painter--bad {{ color: $error; text-style: bold; }}
    {widget} > .painter--held {{ color: $primary; text-style: bold; }}
    {widget} > .painter--dim {{ color: $foreground 60%; }}
    {widget} > .painter--title {{ color: $accent; text-style: bold; }}
    {widget} > .painter--cursor {{ background: $primary-muted; }}
    {widget} > .painter--marked {{ text-style: bold; }}
    {widget} > .painter--head {{ color: $secondary; text-style: bold; background: $panel; }}
"""


def css(widget: str) -> str:
    """The default style sheet of a line widget of this class."""
    return CSS.format(widget=widget)


class Painter:
    """The styles of one widget; renew() after a change of theme."""

    def __init__(self, widget: Widget) -> None:
        self._widget = widget
        self._styles: dict[str, Style] = {}

    def renew(self) -> None:
        self._styles.clear()

    def style(self, name: str) -> Style:
        """The style of a component class of CLASSES, without its prefix."""
        style = self._styles.get(name)
        if style is None:
            partial = name in ("cursor", "marked")
            style = self._widget.get_component_rich_style(f"painter--{name}", partial=partial)
            self._styles[name] = style
        return style

    def strip(self, pieces: Iterable[Piece], width: int, over: str = "") -> Strip:
        """Pieces beside each other, filled up to `width`; `over` names a style laid over all."""
        top = self.style(over) if over else Style.null()
        base = self._widget.rich_style
        segments = [
            Segment(piece.text, base + self.style(piece.role.value) + top) for piece in pieces
        ]
        return Strip(segments).adjust_cell_length(width, base + top)
