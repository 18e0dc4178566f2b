# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments of a request on the control socket: checked, or a UsageError that names them."""

from __future__ import annotations

from typing import Any

from watchdog.errors import WatchdogError

TEXT_MAX = 4096


class UsageError(WatchdogError):
    """An argument of a request is missing or wrong."""

    exit_code = 2


def flag(request: dict[str, Any], name: str) -> bool:
    """True or false; false when absent."""
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise UsageError(f"{name} is true or false")
    return value


def number(request: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    """A whole number in a range."""
    value = request.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{name} is a number from {low} to {high}")
    return value


def text(request: dict[str, Any], name: str, default: str) -> str:
    """A text of bounded length."""
    value = request.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise UsageError(f"{name} is a text of at most {TEXT_MAX} characters")
    return value
