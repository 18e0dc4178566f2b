# SPDX-License-Identifier: GPL-2.0-or-later
"""Themes of the dashboard's own; two of them for eyes that do not tell red from green, or blue.

The colour-blind ones use the palette of M. Okabe and K. Ito (2008).  A mark beside each state says
the same without colour, so NO_COLOR, which Textual obeys, loses nothing.
"""

from textual.theme import Theme

DEFAULT = "vnode-dark"
THEMES = (
    Theme(
        DEFAULT, primary="#5aa9e6", secondary="#7f8c9b", accent="#f2b84b", foreground="#d7dde4",
        background="#10151b", surface="#161d25", panel="#1f2933", success="#5fc77f",
        warning="#f2b84b", error="#ef6b6b", dark=True,
    ),
    Theme(
        "vnode-light", primary="#0b63a5", secondary="#5b6770", accent="#8a5a00",
        foreground="#1c232a", background="#fbfbf8", surface="#f1f1ec", panel="#e2e4e0",
        success="#1f7a3d", warning="#8a5a00", error="#b3261e", dark=False,
    ),
    Theme(
        "no-red-green", primary="#56b4e9", secondary="#999999", accent="#f0e442",
        foreground="#e6e6e6", background="#101216", surface="#171a20", panel="#232831",
        success="#56b4e9", warning="#f0e442", error="#e69f00", dark=True,
    ),
    Theme(
        "no-blue-yellow", primary="#cc79a7", secondary="#999999", accent="#e0e0e0",
        foreground="#e6e6e6", background="#121212", surface="#1a1a1a", panel="#272727",
        success="#009e73", warning="#cc79a7", error="#d55e00", dark=True,
    ),
)  # fmt: skip
NAMES = tuple(theme.name for theme in THEMES)
