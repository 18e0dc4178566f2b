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
        self._styles: dict[tuple[Role, str], Style] = {}

    def renew(self) -> None:
        self._styles.clear()

    def style(self, role: Role, over: str = "") -> Style:
        """The style of a role on this widget; `over` names a class of CLASSES laid over it."""
        style = self._styles.get((role, over))
        if style is None:
            style = self._widget.rich_style + self._component(role.value)
            if over:
                style += self._component(over, partial=over in ("cursor", "marked"))
            self._styles[role, over] = style
        return style

    def _component(self, name: str, *, partial: bool = False) -> Style:
        return self._widget.get_component_rich_style(f"painter--{name}", partial=partial)

    def strip(self, pieces: Iterable[Piece], width: int, over: str = "") -> Strip:
        """Pieces beside each other, filled up to `width`."""
        segments = [Segment(text, self.style(role, over)) for text, role in pieces]
        return Strip(segments).adjust_cell_length(width, self.style(Role.PLAIN, over))
