# SPDX-License-Identifier: GPL-2.0-or-later
"""What two kernels have not in common: pure comparison of their facts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tui.kernels import Facts

NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
MOST = 500
"""Differences of one section that are shown."""


class Difference(NamedTuple):
    """One thing that is otherwise; a side that has nothing of the kind is empty."""

    section: str
    left: str
    right: str


def differences(left: Facts, right: Facts) -> list[Difference]:
    """All of them, section by section, in the order that each side has."""
    found: list[Difference] = []
    for section in left.sections:
        ours, theirs = left.sections[section], right.sections.get(section, ())
        found += _section(section, ours, theirs)[:MOST]
    return found


def _section(section: str, left: tuple[str, ...], right: tuple[str, ...]) -> list[Difference]:
    same = _shape if section == "log" else _itself
    only_left, only_right = _only(left, right, same), _only(right, left, same)
    pairs: dict[str, list[str]] = {}
    for text in only_right if section != "log" else ():
        pairs.setdefault(_subject(text), []).append(text)
    found = []
    for text in only_left:
        twin = pairs.get(_subject(text), [])
        found.append(Difference(section, text, twin.pop(0) if twin else ""))
    paired = Counter(one.right for one in found if one.right)
    for text in only_right:
        if paired[text]:
            paired[text] -= 1
        else:
            found.append(Difference(section, "", text))
    return found


def _only(ours: tuple[str, ...], theirs: tuple[str, ...], same: Callable[[str], str]) -> list[str]:
    """What we have and they have not, or more often than they."""
    counted = Counter(map(same, theirs))
    found = []
    for text in ours:
        if counted[same(text)]:
            counted[same(text)] -= 1
        else:
            found.append(text)
    return found


def _itself(text: str) -> str:
    return text


def _shape(text: str) -> str:
    """A log line without its numbers, which no two boots share."""
    return NUMBER.sub("#", text)


def _subject(text: str) -> str:
    """What a line is about: its first word."""
    return text.split(maxsplit=1)[0].partition("=")[0] if text.strip() else ""
