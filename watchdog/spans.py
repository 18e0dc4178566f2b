# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and ranges of memory as a config has them: "256M", "256M@0x140000000", "0x20000000+1G"."""

from __future__ import annotations

import re
from typing import NamedTuple

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(0x[0-9a-fA-F]{1,16}|[0-9]{1,12})([KMG]?)", re.ASCII)


class Span(NamedTuple):
    """A range of physical memory, bytes; `base` is None where the pool chooses."""

    size: int
    base: int | None


def parse_size(text: str) -> int:
    """Bytes of "256M", "1G", "0x40000"; ValueError otherwise."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f'"{text}" is no size')
    return int(found[1], 0 if found[1].startswith("0x") else 10) * _UNITS[found[2]]


def parse_memory(text: str) -> Span:
    """A vnode's memory: "256M" or "256M@0x140000000"."""
    size, at, base = text.partition("@")
    return Span(parse_size(size), parse_size(base) if at else None)


def parse_range(text: str) -> Span:
    """Machine memory: "BASE+SIZE"."""
    base, plus, size = text.partition("+")
    if not plus:
        raise ValueError(f'"{text}" is no BASE+SIZE')
    return Span(parse_size(size), parse_size(base))


def parse_grant(text: str) -> Span:
    """Memory for vnodes: "BASE+SIZE", or "SIZE" where it is taken from the running root."""
    return parse_range(text) if "+" in text else Span(parse_size(text), None)


def overlap(a: Span, b: Span) -> bool:
    """Whether they share memory for certain."""
    if a.base is None or b.base is None:
        return False
    return a.base < b.base + b.size and b.base < a.base + a.size


def inside(span: Span, grant: Span) -> bool:
    """Whether there is room for `span` in `grant`, at its base when it has one."""
    if span.base is None:
        return span.size <= grant.size
    start = grant.base or 0
    return start <= span.base and span.base + span.size <= start + grant.size
