# SPDX-License-Identifier: GPL-2.0-or-later
"""Every key of the dashboard, by the id of its action; a file may give other keys.

KEYS is the table: screens take their bindings from it, the help overlay and docs/dashboard.md show
it, and the file (`[keys]` of tui.toml, see docs/dashboard.md) names actions by these ids.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from textual.binding import Binding, BindingType

from tui.errors import WrongKeys


class Key(NamedTuple):
    """A key: where it works, the id of its action, the key, what it does."""

    place: str
    id: str
    key: str
    text: str
    action: str
    footer: str = ""
    """What the footer calls it; "" where it has no room for it."""


KEYS: tuple[Key, ...] = (
    Key("anywhere", "help", "question_mark", "all keys", "help", "keys"),
    Key("anywhere", "palette", "ctrl+p", "command palette", "command_palette"),
    Key("anywhere", "overview", "1", "overview", "go('overview')"),
    Key("anywhere", "incidents", "2", "incidents", "go('incidents')"),
    Key("anywhere", "timeline", "3", "timeline", "go('timeline')"),
    Key("anywhere", "back", "escape", "back", "back"),
    Key("anywhere", "theme", "ctrl+t", "next theme", "next_theme"),
    Key("anywhere", "picture", "ctrl+s", "write the screen as an SVG file", "picture"),
    Key("anywhere", "copy", "y", "copy the line under the cursor", "copy_line"),
    Key("anywhere", "quit", "q", "quit", "quit", "quit"),
    Key("lists", "filter", "slash", "filter; ! before the words inverts it", "filter", "filter"),
    Key("lists", "sort", "s", "sort by the next column", "sort"),
    Key("lists", "reverse", "r", "reverse the order", "reverse"),
    Key("lists", "mark", "space", "mark, for an action on several", "mark"),
    Key("lists", "mark-all", "asterisk", "mark all, or none", "mark_all"),
    Key("vnodes", "open", "enter", "open the vnode", "open", "open"),
    Key("vnodes", "attach", "g", "gdb on it; it runs on", "act('attach')", "gdb"),
    Key("vnodes", "attach-stop", "G", "gdb on it, stopped", "act('attach-stop')"),
    Key("vnodes", "drgn", "d", "drgn on it", "act('drgn')"),
    Key("vnodes", "console", "c", "its console, with this terminal", "act('console')"),
    Key("vnodes", "start", "S", "start", "act('start')"),
    Key("vnodes", "stop", "X", "stop", "act('stop')"),
    Key("vnodes", "restart", "R", "restart", "act('restart')", "restart"),
    Key("vnodes", "fence", "F", "park its CPUs for good, keep its memory", "act('fence')"),
    Key("vnodes", "stage", "I", "stage its config's image", "act('stage')"),
    Key("vnodes", "dump", "D", "dump its memory, without stopping it", "act('dump')"),
    Key("vnodes", "nmi", "N", "have every CPU save its registers, by NMI", "act('nmi')"),
    Key("vnodes", "panic", "P", "make it panic, to try things out", "act('panic')"),
    Key("vnodes", "twins", "equals_sign", "compare two: the marked, or with the next", "twins"),
    Key("a vnode", "pane-left", "left_square_bracket", "the pane before", "pane(-1)"),
    Key("a vnode", "pane-right", "right_square_bracket", "the next pane", "pane(1)", "next pane"),
    Key("a vnode", "refresh", "f5", "read anew", "reread"),
    Key("a vnode", "type", "i", "type into the console", "type"),
    Key("a vnode", "tree", "t", "tasks as a tree", "tree"),
    Key("logs", "follow", "f", "follow what is added", "follow"),
    Key("logs", "wrap", "w", "wrap long lines", "wrap"),
    Key("logs", "level", "l", "only the next worse level", "level"),
    Key("logs", "context", "x", "lines around a hit of the filter: 0, 2, 5", "context"),
    Key("logs", "previous", "p", "the log of the incarnation before", "previous"),
    Key("incidents", "incident-open", "enter", "the report", "open", "report"),
    Key("incidents", "incident-gdb", "g", "gdb on its dump", "act('gdb')", "gdb"),
    Key("incidents", "incident-drgn", "d", "drgn on its dump", "act('drgn')", "drgn"),
    Key("incidents", "incident-export", "e", "write the dump as kdump", "act('export')", "export"),
    Key("incidents", "incident-capsule", "c", "write a redacted HTML", "act('capsule')", "HTML"),
    Key("timeline", "earlier", "left", "scrub back", "scrub(-1)", "back"),
    Key("timeline", "later", "right", "scrub forward", "scrub(1)", "forward"),
    Key("timeline", "much-earlier", "shift+left", "scrub back a screen", "scrub(-40)"),
    Key("timeline", "much-later", "shift+right", "scrub forward a screen", "scrub(40)"),
    Key("timeline", "divergence", "v", "to the first divergence", "divergence", "divergence"),
    Key("timeline", "now", "end", "back to now", "now", "now"),
    Key("timeline", "zoom-in", "plus", "zoom in", "zoom(-1)"),
    Key("timeline", "zoom-out", "minus", "zoom out", "zoom(1)"),
)  # fmt: skip
SHOWN = {
    "question_mark": "?", "slash": "/", "asterisk": "*", "equals_sign": "=", "plus": "+",
    "minus": "-", "left_square_bracket": "[", "right_square_bracket": "]", "escape": "Esc",
    "enter": "Enter", "space": "Space", "left": "←", "right": "→", "shift+left": "Shift-←",
    "shift+right": "Shift-→", "end": "End", "f5": "F5",
}  # fmt: skip
PLACES = tuple(dict.fromkeys(key.place for key in KEYS))
_KEY = re.compile(r"[A-Za-z0-9_]{1,32}(\+[A-Za-z0-9_]{1,32}){0,3}|[!-~]")
FILE_MAX = 1 << 16


def shown(key: str) -> str:
    """A key as people write it."""
    if key.startswith("ctrl+"):
        return f"Ctrl-{key[5:].upper()}"
    return SHOWN.get(key, key)


def bindings(*places: str) -> list[BindingType]:
    """The bindings of some places, for a screen's or the app's BINDINGS."""
    return [
        Binding(
            key.key,
            key.action,
            key.footer or key.text,
            show=bool(key.footer),
            id=key.id,
            key_display=shown(key.key),
        )
        for key in KEYS
        if key.place in places
    ]


def file() -> Path:
    """Where other keys are kept: beside the config file."""
    from watchdog.paths import config_file

    return config_file().with_name("tui.toml")


def load(path: Path) -> dict[str, str]:
    """Keys by action id out of the file's table [keys]; {} when there is no file.

    WrongKeys says what in it is wrong, on one line.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(FILE_MAX).decode()
        table = tomllib.loads(text).get("keys", {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WrongKeys(f"{path}: {error}; see docs/dashboard.md") from None
    if not isinstance(table, dict):
        raise WrongKeys(f'{path}: keys is no table; write [keys] and lines like restart = "R"')
    return {name: _checked(path, name, table) for name in table}


def _checked(path: Path, name: str, table: Mapping[str, object]) -> str:
    known = {key.id for key in KEYS}
    if name not in known:
        raise WrongKeys(f"{path}: there is no action {name!r}; vnode-debug tui --keys lists them")
    value = table[name]
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise WrongKeys(f'{path}: {name} = {value!r} is no key; write "R", "f7" or "ctrl+r"')
    return value


def table(overrides: Mapping[str, str] | None = None) -> str:
    """All keys as Markdown, a table a place."""
    given = overrides or {}
    lines = ["| place | key | id | does |", "|---|---|---|---|"]
    for key in KEYS:
        spelled = shown(given.get(key.id, key.key))
        lines.append(f"| {key.place} | `{spelled}` | {key.id} | {key.text} |")
    return "\n".join(lines) + "\n"
